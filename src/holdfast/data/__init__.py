"""Rows: where they come from, how they are split, in which order they are visited."""

from holdfast.data.buffered import BufferedRows
from holdfast.data.datamodule import DataModule, Line, Linear
from holdfast.data.order import BatchIndices, Rows, row_order

__all__ = ["BatchIndices", "BufferedRows", "DataModule", "Line", "Linear", "Rows", "row_order"]
