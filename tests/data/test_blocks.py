"""Files of blocks give back what was written, and refuse to give anything else."""

from __future__ import annotations

import os
import pickle
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from holdfast.data.blocks import BLOCK_ROWS, BlockFile, BlockForm, BlockWriter
from holdfast.errors import DataError, StorageError
from tests.data.on_disk import blocks_of, numbered, random_pieces, written

QUICK = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(
    rows=st.integers(1, 60),
    features=st.integers(1, 4),
    targets=st.integers(1, 3),
    classes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_written_in_any_pieces_is_read_back(
    tmp_path: Path, *, rows: int, features: int, targets: int, classes: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, features)).astype(np.float32)
    y = generator.integers(0, 9, rows) if classes else generator.normal(size=(rows, targets)).astype(np.float32)
    with blocks_of(7):
        with BlockWriter(tmp_path / "file", features, targets, classes) as writer:
            start = 0
            for piece in random_pieces(rows, seed):
                writer.write(x[start : start + piece], y[start : start + piece])
                start += piece
            form, checks = writer.finish()
        assert form == BlockForm(rows, features, targets, classes)
        file = pickle.loads(pickle.dumps(BlockFile(tmp_path / "file", form, checks)))
        parts = []
        for block in range(form.blocks):
            part = form.empty(form.rows_of(block))
            read_block(file, block, part)
            parts.append(part)
        for read, expected in zip([torch.cat(some) for some in zip(*parts, strict=True)], (x, y), strict=True):
            assert read.numpy().dtype == expected.dtype
            np.testing.assert_array_equal(read.numpy(), expected)
        index = torch.from_numpy(np.sort(generator.integers(0, rows, 9)))
        for read, expected in zip(file.read_rows(index), (x, y), strict=True):
            np.testing.assert_array_equal(read.numpy(), expected[index])


def read_block(file: BlockFile, block: int, memory: tuple[Tensor, Tensor] | None = None) -> None:
    x, y = memory or file.form.empty(file.form.rows_of(block))
    file.read([block], x.numpy(), y.numpy())


def test_the_bytes_are_those_of_x_and_y_block_by_block(tmp_path: Path) -> None:
    rows = BLOCK_ROWS + 5
    x, y = torch.randn(rows, 3), torch.randn(rows, 2)
    file = written(tmp_path / "file", x, y)
    split = [slice(0, BLOCK_ROWS), slice(BLOCK_ROWS, rows)]
    blocks = [x[some].numpy().tobytes() + y[some].numpy().tobytes() for some in split]
    assert (tmp_path / "file").read_bytes() == b"".join(blocks)
    assert file.checks.tolist() == list(map(zlib.crc32, blocks))
    assert [file.form.offset(block) for block in range(3)] == [0, len(blocks[0]), sum(map(len, blocks))]


def test_every_flipped_or_missing_byte_is_noticed(tmp_path: Path) -> None:
    with blocks_of(4):
        file = numbered(tmp_path / "file", 10)
        content = file.path.read_bytes()
        for position in range(len(content)):
            file.path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            assert _unreadable(file) == [position // 48]
            file.path.write_bytes(content[:position])
            assert _unreadable(file) == [block for block in range(3) if position < min(120, 48 * (block + 1))]


def _unreadable(file: BlockFile) -> list[int]:
    """The blocks that cannot be read; each is named, with what to do."""
    found = []
    for block in range(file.form.blocks):
        message = ""
        try:
            read_block(file, block)
        except DataError as error:
            message = str(error)
        if message:
            assert re.match(rf"{file.path} cannot be used: .*block {block}\b.* holdfast cache clear", message)
            found.append(block)
    return found


def test_a_file_that_is_gone_or_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = numbered(tmp_path / "file", 10)
    file.path.unlink()
    for read in (lambda: read_block(file, 0), lambda: file.read_rows(torch.tensor([3]))):
        with pytest.raises(DataError, match=r"file cannot be used: the file has vanished"):
            read()
    file.path.mkdir()
    with pytest.raises(DataError, match="block 0 cannot be read"):
        read_block(file, 0)


def test_single_rows_of_a_file_that_was_cut_off_are_refused(tmp_path: Path) -> None:
    file = numbered(tmp_path / "file", 10)
    os.truncate(file.path, 100)
    assert file.read_rows(torch.tensor([1, 4]))[0][:, 0].tolist() == [1.0, 4.0]
    with pytest.raises(DataError, match="cut off"):
        file.read_rows(torch.tensor([1, 9]))


def test_a_full_disk_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing/file cannot be written: No such file"):
        BlockWriter(tmp_path / "missing" / "file", 1, 1, False)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("the system has no /dev/full")
    rows = np.zeros((BLOCK_ROWS, 1), np.float32)
    with BlockWriter(full, 1, 1, False) as writer, pytest.raises(StorageError, match="No space left"):
        writer.write(rows, rows)
