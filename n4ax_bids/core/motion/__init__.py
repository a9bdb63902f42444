"""Rigid motion of the volumes of a series: parameters, registration, resampling."""
