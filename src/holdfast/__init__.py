"""Holdfast: Lightning experiments composed with Hydra, with honest hold-out selection."""

__version__ = "0.1.0"
