"""The device and the process: threads, compiled programs, programs of others."""
