"""Which jobs are trained together: the plan of a sweep, and the checks and trials behind it."""
