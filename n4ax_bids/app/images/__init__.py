"""Processes the images: runs the node for each, and puts its files in place."""
