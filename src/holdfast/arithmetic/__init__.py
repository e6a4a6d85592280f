"""The arithmetic of a stack: gradients and updates of many jobs at once."""
