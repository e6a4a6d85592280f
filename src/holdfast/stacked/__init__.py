"""Many jobs, trained as one batched program."""
