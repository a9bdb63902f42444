"""Threads, processes, memory, and runs that share a folder; nothing of BIDS."""
