"""Figures and pages of the images of a run."""
