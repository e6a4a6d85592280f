"""A sweep: its jobs, their results, and the one that wins."""
