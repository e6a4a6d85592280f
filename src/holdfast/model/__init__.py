"""Networks, and the Lightning modules that train them."""

from holdfast.model.module import MLP, Linear, Module, Regression

__all__ = ["MLP", "Linear", "Module", "Regression"]
