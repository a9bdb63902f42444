"""Selects the images of a dataset that are corrected, and the files that belong to them."""
