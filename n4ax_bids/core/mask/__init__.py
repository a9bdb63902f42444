"""Masks that are found in the image itself: the head, the brain."""
