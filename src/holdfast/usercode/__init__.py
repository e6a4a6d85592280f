"""What a user's module and data module can read and change."""
