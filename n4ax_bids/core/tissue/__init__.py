"""Correction by a mixture of tissue classes that are seen through a smooth field."""
