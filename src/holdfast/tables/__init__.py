"""Tables of the user's: read, split, encoded, trained on, and predicted."""

from holdfast.tables.table import Table

__all__ = ["Table"]
