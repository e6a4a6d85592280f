"""Rows: where they come from, how they are split, in which order they are visited."""

from holdfast.data.loading import Batches, Rows, row_order
from holdfast.data.module import DataModule, Line, Linear

__all__ = ["Batches", "DataModule", "Line", "Linear", "Rows", "row_order"]
