"""Rows: where they come from, how they are split, in which order they are visited."""

from holdfast.data.datamodule import DataModule, Line, Linear
from holdfast.data.order import Batches, Rows, row_order

__all__ = ["Batches", "DataModule", "Line", "Linear", "Rows", "row_order"]
