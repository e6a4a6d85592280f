"""Launchers for clusters: works are sent elsewhere, and what comes back is placed as that of worker processes."""
