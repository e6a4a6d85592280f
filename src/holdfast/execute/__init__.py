"""Executors: they train the planned jobs."""
