"""LightningModules as people write them: each is swept in a stack and by a Trainer, and all numbers are compared."""
