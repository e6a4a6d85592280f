"""What the code of a user's module and data module can read, change and keep."""
