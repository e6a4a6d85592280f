"""Cuts a CSV file into chunks of whole records, so that any of them can be parsed alone."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import IO, NamedTuple

CHUNK = 1 << 23
"""Bytes of a CSV file that are read at once."""

_LONGEST = 1 << 28
"""Bytes after which a record that has no end is taken for a quote that was never closed."""


class Chunk(NamedTuple):
    """Some whole records of a CSV file.

    Attributes:
        content: their bytes.
        end: of the records before it and of these, in bytes of the file's content, uncompressed.
    """

    content: bytes
    end: int


def chunks(stream: IO[bytes], start: int, delimiter: str, size: int | None = None) -> Iterator[Chunk]:
    r"""The records of a stream from a place on, in chunks.

    Args:
        stream: of the file's content, uncompressed.
        start: where a record begins, in bytes.
        delimiter: between the columns.
        size: of a chunk, in bytes, `CHUNK` by default; one is longer only where a record is.

    >>> import io
    >>> file = io.BytesIO(b'a,b\n1,"x\ny"\n2,z\n')
    >>> [chunk.content for chunk in chunks(file, 4, ",", size=9)]
    [b'1,"x\ny"\n', b'2,z\n']
    """
    stream.seek(start)
    rest = b""
    while True:
        read = stream.read(size or CHUNK)
        content = rest + read
        cut = _end_of_records(content, delimiter) if read and len(content) < _LONGEST else len(content)
        if cut:
            start += cut
            yield Chunk(content[:cut], start)
        rest = content[cut:]
        if not read:
            return


def _end_of_records(content: bytes, delimiter: str) -> int:
    """Where the last whole record ends; 0 if there is none."""
    newline = b"\n" if b"\n" in content else b"\r"
    limit = len(content) - (newline == b"\r")  # the second half of a line end may follow
    spans = _quoted(content, delimiter) if b'"' in content else []
    starts = [start for start, _ in spans]
    while (place := content.rfind(newline, 0, limit)) >= 0:
        at = bisect_right(starts, place) - 1
        if at < 0 or place >= spans[at][1]:
            return place + 1
        limit = spans[at][0]
    return 0


def _quoted(content: bytes, delimiter: str) -> list[tuple[int, int]]:
    """Where the values in quotes begin and end; one that is not closed ends after the content."""
    before = re.escape(delimiter).encode() + rb"\r\n"
    found = re.finditer(rb"(?:\A|(?<=[" + before + rb']))"[^"]*(?:""[^"]*)*("?)', content)
    return [(match.start(), match.end() if match[1] else len(content) + 1) for match in found]
