"""Stacks of sections in files, which need not fit into memory."""
