"""What people look at: figures, TensorBoard's pictures and texts, one page; all from a folder's files."""
