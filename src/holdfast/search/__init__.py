"""Which jobs a sweep tries."""
