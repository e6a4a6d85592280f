"""What a model of a table is for: predictions for new rows, metrics on them, and a file that holds the model."""
