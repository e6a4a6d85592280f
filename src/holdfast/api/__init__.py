"""Holdfast from Python: the same runs, sweeps and files as from the command line."""
