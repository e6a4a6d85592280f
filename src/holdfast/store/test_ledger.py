"""The record of how often test rows were opened, `test.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from holdfast.errors import FolderError, HoldfastError
from holdfast.store.files import write_json


class TestLedger:
    """The openings of the test rows by one run or one sweep.

    Each opening is on disk before the rows are read, so that a process that is killed in between has opened them all
    the same. A run has one entry, with the weights of its last opening; a sweep has one entry for each winner, and a
    winner for each data set.

    Args:
        file: `test.json` in the folder of the run or the sweep.
        again: whether rows that were opened before may be opened again.

    Raises:
        FolderError: the file exists, but cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ledger = TestLedger(Path(folder, "test.json"))
    ...     ledger.open("0a1b")
    >>> ledger.count()
    1
    >>> ledger.check()
    Traceback (most recent call last):
    holdfast.errors.HoldfastError: the test rows were opened before; test_again=true opens them again, and counts it
    """

    __test__ = False  # pytest would collect the class for its name

    def __init__(self, file: Path, *, again: bool = False) -> None:
        self._file, self._again = file, again
        self._entries = _read(file)

    def count(self, data: str | None = None) -> int:
        """The number of openings, for whichever weights.

        Args:
            data: digest of the validation rows, which identifies a data set; None counts all data sets.
        """
        return sum(int(entry["count"]) for entry in self._of(data))

    def check(self, data: str | None = None) -> None:
        """Make sure that the test rows may be opened.

        Raises:
            HoldfastError: they were opened before, and are not to be opened again.
        """
        if (entries := self._of(data)) and not self._again:
            winner = f", for job {entries[-1]['winner']}" if data else ""
            raise HoldfastError(
                f"the test rows were opened before{winner}; test_again=true opens them again, and counts it"
            )

    def metrics(self, sha256: str, data: str) -> dict[str, float] | None:
        """The test metrics that an earlier opening gave; None if there are none, or they are to be measured again.

        Args:
            sha256: digest of the weights.
            data: digest of the validation rows.
        """
        entry = self._find(sha256, data)
        return None if entry is None or self._again else entry["test"]

    def open(self, sha256: str, *, data: str | None = None, winner: int | None = None) -> None:
        """Write down that the test rows are about to be read.

        Args:
            sha256: digest of the weights.
            data: in a sweep, the digest of the validation rows.
            winner: in a sweep, the number of the winner.
        """
        entry = self._find(sha256, data)
        if entry is None:
            entry = {"sha256": sha256, "count": 0}
            if data is not None:
                entry = {"winner": winner, "data": data, **entry, "test": None}
            self._entries.append(entry)
        entry["sha256"] = sha256
        entry["count"] += 1
        self._write()

    def add_metrics(self, sha256: str, data: str, metrics: dict[str, float] | None) -> None:
        """Write down the test metrics of an opening; nothing where the rows were not opened after all."""
        if (entry := self._find(sha256, data)) is not None:
            entry["test"] = metrics
            self._write()

    def _of(self, data: str | None) -> list[dict[str, Any]]:
        return [entry for entry in self._entries if data is None or entry["data"] == data]

    def _find(self, sha256: str, data: str | None) -> dict[str, Any] | None:
        return next((entry for entry in self._of(data) if data is None or entry["sha256"] == sha256), None)

    def _write(self) -> None:
        write_json(self._file, self._entries if len(self._entries) > 1 else self._entries[0])


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise FolderError(
            f"{file} cannot be read: {error}. Whether test rows were opened is not known without it."
        ) from None
    return content if isinstance(content, list) else [content]
