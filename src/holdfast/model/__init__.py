"""What is fitted: networks, and the Lightning modules around them."""

from holdfast.model.module import MLP, Linear, Module, Regression

__all__ = ["MLP", "Linear", "Module", "Regression"]
