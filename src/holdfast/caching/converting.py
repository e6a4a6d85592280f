"""Converts a table to blocks of encoded rows on disk; a conversion that was stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from holdfast.caching.cache_folder import CachedFiles, CacheFolder, stamp
from holdfast.caching.checked_json import read_checked, write_checked
from holdfast.caching.column_facts import ColumnsOnDisk, classes_on_disk, values_of_target
from holdfast.caching.column_reader import ColumnReader
from holdfast.caching.dividing import SplitFile, split_parts
from holdfast.caching.encoded_rows import write_rows
from holdfast.caching.limit import size_of
from holdfast.caching.raw_columns import RawColumns
from holdfast.caching.reading import Files, Reading
from holdfast.data.split import SPLITS
from holdfast.errors import TableError
from holdfast.tables import selection
from holdfast.tables.columns import check_decimal_marks, common_type
from holdfast.tables.encoding import Encoding
from holdfast.tables.notes import summary, warnings
from holdfast.tables.reader import columns_in
from holdfast.tables.roles import choose_features, class_target, is_classification, regression_target


class Progress(Protocol):
    """Shows how far a conversion has come."""

    def read(self, size: int, rows: int) -> None:
        """Some bytes, or 0 where it is not known how many, and rows were read."""

    def begin(self, what: str) -> None:
        """Another pass begins."""


class TableFile(NamedTuple):
    """A file of a table.

    Attributes:
        path: the file.
        split: that of its rows; -1 where it is drawn.
        sha256: its digest.
        stamp: its state when the digest was taken.
    """

    path: Path
    split: int
    sha256: str
    stamp: list[int]


def convert(
    keys: Mapping[str, Any], files: Sequence[TableFile], cache: CacheFolder, target: CachedFiles, progress: Progress
) -> dict[str, Any]:
    """Convert a table; the caller holds its lock.

    Args:
        keys: the data group of a configuration.
        files: of the table.
        cache: the folder of all tables.
        target: the files that are written.
        progress: shows how far it has come.

    Returns:
        The content of `table.json`.

    Raises:
        TableError: the table cannot be used, or a file has changed while it was read.
        StorageError: the disk is full, or has too little room to begin with.
    """
    about = {"files": [str(file.path) for file in files], "stamps": [file.stamp for file in files]}
    with suppress(OSError, ValueError):
        if read_checked(target.about) != about:  # what an earlier process has read may have been something else
            target.progress.unlink(missing_ok=True)
    write_checked(target.about, about)
    table = _Conversion(keys, files, cache, target, progress).run()
    for file in files:
        if stamp(file.path) != file.stamp:
            raise TableError(f"{file.path} has changed while it was read: wait until it is complete, and start again.")
    write_checked(target.table, table)
    return table


class _Conversion:
    def __init__(
        self,
        keys: Mapping[str, Any],
        files: Sequence[TableFile],
        cache: CacheFolder,
        target: CachedFiles,
        progress: Progress,
    ) -> None:
        self._keys, self._sources, self._cache, self._target = keys, files, cache, target
        self._progress, self._said = progress, list[str]()
        self._targets = selection.targets_of(keys)
        columns = [columns_in(file.path, keys["delimiter"]) for file in files]
        self._delimiters = [delimiter for _, delimiter in columns]
        types = {file.path: of_file for file, (of_file, _) in zip(files, columns, strict=True)}
        selection.check_same_names({path: list(of_file) for path, of_file in types.items()})
        first = files[0].path
        selection.check_names(keys, list(types[first]), first)
        self._dividing = selection.divided_by(keys)
        self._wanted = selection.features_of(keys, list(types[first]))
        dividing = [keys[self._dividing]] if self._dividing in ("split", "group", "time") else []
        self._names = [*self._wanted, *self._targets, *dividing]
        group = keys["group"] if self._dividing == "group" else None
        # groups are compared as texts, as each file writes them
        of_name = {
            name: common_type(name, first, [each[name] for each in types.values()])
            for name in self._names
            if name != group
        }
        self._files = Files([file.path for file in files], self._delimiters, of_name)

    def run(self) -> dict[str, Any]:
        """Read, divide, encode and write; returns the content of `table.json`."""
        self._check_room()
        raw, reading = self._read()
        readers = {reader.name: reader for reader in reading.readers}

        def where(row: int) -> str:
            return self._files.where(reading, row)

        self._progress.begin("dividing")
        values = {name: values_of_target(raw, readers[name], where) for name in self._targets}
        is_class = is_classification(self._keys["task"], values)
        split = SplitFile(self._target.splits, raw.pieces)
        given = self._given(reading) if self._dividing in ("val_path", "test_path") else None
        parts = split_parts(self._keys, raw, readers, by_class=is_class, given=given, where=where)
        counts = split.write(parts)
        selection.check_counts(counts, SPLITS)
        self._progress.begin("measuring")
        columns = ColumnsOnDisk(raw, split, readers, counts[0])
        if is_class:
            name = self._targets[0]
            targets = [class_target(name, values[name], classes_on_disk(raw, split, readers[name]))]
        else:
            of_targets = columns.facts(self._targets)
            targets = [regression_target(name, facts) for name, facts in of_targets.items()]
        facts = columns.facts(self._wanted)
        options = {"chosen": self._keys["columns"] is not None, "standardise": self._keys["standardise"]}
        features = choose_features(facts, self._said, **options)
        digests = tuple(file.sha256 for file in self._sources)
        encoding = Encoding(tuple(features), tuple(targets), digests, self._keys["decimal"])
        self._progress.begin("writing")
        row_bytes = 4 * (len(encoding.inputs) + 2 * len(targets))
        self._cache.check_free(row_bytes * raw.rows, self._keys["path"])
        blocks, noted = write_rows(self._target.rows, raw, split, readers, encoding)
        missing = {each.name: facts[each.name].missing for each in features}
        about = "about " if noted.part > 1 else ""
        said = [
            *summary(encoding, missing, counts),
            *self._said,
            *warnings(counts, noted.shared, noted.alone, about),
        ]
        table = {
            "encoding": encoding.as_plain(),
            "digest": split.digest([*digests, *self._targets, str(is_class)]),
            "rows": raw.rows,
            "said": said,
            "splits": [{"form": list(form), "checks": checks} for form, checks in blocks],
        }
        raw.remove()
        self._target.splits.unlink()
        self._target.progress.unlink()
        return table

    def _check_room(self) -> None:
        rows = sum(size_of(file.path).rows for file in self._sources)
        written = sum(file.stat().st_size for file in (self._target.raw,) if file.exists())
        # the columns as doubles, and encoded as floats
        self._cache.check_free((8 + 4) * rows * len(self._names) - written, self._keys["path"])

    def _read(self) -> tuple[RawColumns, Reading]:
        """The columns as doubles; read twice where a column turns out to be another than its first rows were."""
        reading = self._begun() or Reading([self._reader(name) for name in self._names])
        raw, reading = self._pass(reading)
        if any(reader.is_stale for reader in reading.readers):
            changed = ", ".join(reader.name for reader in reading.readers if reader.is_stale)
            self._progress.begin(f"reading again: {changed} turned out to be other than its first rows")
            raw, reading = self._pass(Reading([reader.again() for reader in reading.readers]))
        return raw, reading

    def _pass(self, reading: Reading) -> tuple[RawColumns, Reading]:
        self._progress.read(0, sum(reading.pieces))
        raw = RawColumns(self._target.raw, self._names, reading.pieces)
        self._files.read(reading, raw, self._target.progress, self._progress.read)
        for reader in reading.readers:
            reader.finish(lambda row: self._files.where(reading, row))
        used = {*self._wanted, *self._targets}
        marks = {reader.name: reader.mark for reader in reading.readers if reader.name in used}
        check_decimal_marks(marks, self._sources[0].path, self._keys["decimal"])
        return raw, reading

    def _reader(self, name: str) -> ColumnReader:
        decimal = self._keys["decimal"]
        is_group = self._dividing == "group" and name == self._keys["group"]
        return ColumnReader(name, decimal, decimal is None and self._delimiters[0] != ";", is_group)

    def _begun(self) -> Reading | None:
        """How far an earlier process has read; None where it has not."""
        try:
            reading = Reading.of_plain(read_checked(self._target.progress))
            size = 8 * len(self._names) * sum(reading.pieces)
            return reading if self._target.raw.stat().st_size >= size else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _given(self, reading: Reading) -> list[int]:
        """The split of each piece, by its file; -1 where it is drawn."""
        begin, given = 0, list[int]()
        for rows in reading.pieces:
            number = sum(first <= begin for first in reading.begins) - 1
            given.append(self._sources[number].split)
            begin += rows
        return given
