"""Which jobs are trained together, and the trials that show it."""
