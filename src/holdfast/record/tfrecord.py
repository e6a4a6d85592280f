"""TFRecord framing: the length of some data, a checksum of the length, the data, and a checksum of the data.

The checksum is a masked CRC-32C. Of many records of the same length it is computed column by column, with NumPy.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_POLYNOMIAL = 0x82F63B78  # CRC-32C, reversed


def _crc_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _crc_table()
_LOOKUP: list[int] = _TABLE.tolist()


def framed(data: bytes) -> bytes:
    """One record.

    >>> len(framed(b"data"))
    20
    """
    return header(len(data)) + data + _checksum(data)


def header(length: int) -> bytes:
    """The 12 bytes in front of the data of a record."""
    encoded = struct.pack("<Q", length)
    return encoded + _checksum(encoded)


def running_crc(rows: Bytes, crc: NDArray[np.uint32] | None = None) -> NDArray[np.uint32]:
    """The CRC-32C of every row so far, shape `(..., bytes)` to `(...)`; continues `crc` where it is given."""
    crc = np.full(rows.shape[:-1], 0xFFFFFFFF, dtype=np.uint32) if crc is None else crc
    for column in np.ascontiguousarray(np.moveaxis(rows, -1, 0)):
        crc = _TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    return crc


def checksums(crc: NDArray[np.uint32]) -> Bytes:
    """The 4 bytes behind the data of a record, shape `(...)` to `(..., 4)`."""
    crc = ~crc
    masked = (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(0xA282EAD8)
    return masked.astype("<u4")[..., np.newaxis].view(np.uint8)


def _checksum(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _LOOKUP[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
