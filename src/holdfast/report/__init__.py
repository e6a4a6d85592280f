"""Reports of finished runs and sweeps: figures, texts and images for TensorBoard, and one HTML page."""
