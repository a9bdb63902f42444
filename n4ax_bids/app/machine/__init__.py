"""Threads, processes, memory, and runs that share a folder; this part knows nothing of BIDS."""
