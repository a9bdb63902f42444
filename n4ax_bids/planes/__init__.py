"""Stacks on disk and in arrays, read and written a few planes at a time."""
