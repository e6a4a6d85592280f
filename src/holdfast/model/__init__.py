"""Networks, and the Lightning modules that train them."""

from holdfast.model.module import Module
from holdfast.model.regressors import MLP, Linear, Regression

__all__ = ["MLP", "Linear", "Module", "Regression"]
