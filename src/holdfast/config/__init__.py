"""What a configuration may hold: its keys, their types and ranges, and the check."""
