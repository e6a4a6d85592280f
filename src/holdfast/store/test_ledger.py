"""The openings of test rows in a sweep: written down before the rows are read, and counted."""

from __future__ import annotations

import json
from typing import Any

from holdfast.config.schema import Config
from holdfast.errors import FolderError, HoldfastError
from holdfast.store.files import digest, write_json
from holdfast.store.folders import RunFolder, SweepFolder

OPENED = "the test rows were opened before, for job {winner}; test_again=true opens them again, and counts it"


class Openings:
    """The openings in one sweep, `test.json`.

    A winner's name and the digest of its weights are on disk before the rows are read, what they said right after: a
    process that is killed in between has opened them all the same.

    Args:
        folder: the sweep's.
        again: whether rows that were opened before may be opened again.
    """

    def __init__(self, folder: SweepFolder, *, again: bool) -> None:
        self._file, self._again = folder.test_ledger, again
        self._entries = _entries(folder)

    def count(self, data: str) -> int:
        """How often the test rows of a data set were opened, for whichever winner."""
        return sum(int(entry["count"]) for entry in self._entries if entry["data"] == data)

    def test(self, winner: int, data: str, run: RunFolder, config: Config) -> dict[str, float] | None:
        """What the test rows say of a winner: read, or taken from the one time they were read.

        Args:
            winner: its number.
            data: digest of its validation rows, which tells one data set from another.
            run: its folder.
            config: its configuration.

        Raises:
            HoldfastError: they were opened before, and what they said is lost, or was said of another winner.
        """
        from holdfast.single.trainer import test_best

        weights = digest(run.best)
        before = [entry for entry in self._entries if entry["data"] == data]
        entry: dict[str, Any] | None = next((item for item in before if item["sha256"] == weights), None)
        if before and not self._again:
            if entry is not None and entry.get("test") is not None:
                known: dict[str, float] = entry["test"]
                return known
            raise HoldfastError(OPENED.format(winner=before[-1]["winner"]))
        if entry is None:
            entry = {"winner": winner, "data": data, "sha256": weights, "count": 0, "test": None}
        opened = entry

        def announce() -> None:
            opened["count"] += 1
            if opened not in self._entries:
                self._entries.append(opened)
            self._write()

        metrics = test_best(config, run, announce)
        opened["test"] = metrics
        if opened["count"]:
            self._write()
        return metrics

    def _write(self) -> None:
        write_json(self._file, self._entries if len(self._entries) > 1 else self._entries[0])


def opened(folder: SweepFolder) -> int:
    """How often test rows were opened in a sweep."""
    return sum(int(entry["count"]) for entry in _entries(folder))


def _entries(folder: SweepFolder) -> list[dict[str, Any]]:
    try:
        found = json.loads(folder.test_ledger.read_bytes())
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError) as error:
        raise FolderError(
            f"{folder.test_ledger} cannot be read: {error}. Whether test rows were opened is not known without it."
        ) from None
    return found if isinstance(found, list) else [found]
