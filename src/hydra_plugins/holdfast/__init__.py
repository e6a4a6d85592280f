"""What Hydra discovers of Holdfast."""
