"""The curves of a stack: what was added is what is read, wherever the file was flushed, cut or resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import CheckpointError
from holdfast.record import curves as module
from holdfast.record.curves import Curves

JOBS = 3


def fill(curves: Curves, first: int, last: int, flush: set[int]) -> None:
    """Add epochs of two iterations each, whose numbers are known, and flush after some."""
    for epoch in range(first, last):
        losses = np.arange(JOBS) + 10.0 * np.array([[2 * epoch], [2 * epoch + 1]])
        curves.add_iterations(2 * epoch + 2, losses.astype(np.float32), np.full((1, 2, JOBS), epoch, dtype=np.float32))
        curves.add_epoch({"val/loss": np.full(JOBS, 100.0 + epoch), "train/lr": np.arange(JOBS) * 1.0})
        if epoch in flush:
            curves.flush()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 8), st.sets(st.integers(0, 7)), st.permutations(range(JOBS)), st.booleans())
def test_what_was_added_is_read(epochs: int, flush: set[int], jobs: list[int], in_memory: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        curves = Curves(JOBS, None if in_memory else Path(folder, "0.history"))
        fill(curves, 0, epochs, flush)
        block = curves.of_jobs(jobs[:2])
    expected = np.arange(2 * epochs)[:, None] * 10.0 + np.array(jobs[:2])
    assert np.array_equal(block.losses, expected)
    assert block.metrics[:, curves.names.index("val/loss"), 0].tolist() == [100.0 + epoch for epoch in range(epochs)]
    assert block.points[:, 0, 0].tolist() == list(range(epochs))
    assert block.clock[:, 0].tolist() == [2.0 * epoch + 2 for epoch in range(epochs)]


def test_a_file_that_goes_on_after_a_snapshot_is_cut_there(tmp_path: Path) -> None:
    path = tmp_path / "0.history"
    curves = Curves(JOBS, path)
    fill(curves, 0, 3, {0, 1, 2})
    position = curves.flush()
    fill(curves, 3, 5, {3, 4})  # the process is killed before the archive names these
    again = Curves(JOBS, path)
    again.resume(position, curves.names)
    fill(again, 3, 6, set())
    whole = Curves(JOBS)
    fill(whole, 0, 6, set())
    assert np.array_equal(again.of_jobs([0, 2]).losses, whole.of_jobs([0, 2]).losses)
    read = Curves(JOBS, path)
    read.resume(again.flush(), again.names)
    assert np.array_equal(read.of_jobs([1]).metrics, whole.of_jobs([1]).metrics)


def test_memory_does_not_grow_with_the_number_of_iterations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PENDING", 1000)
    curves, most = Curves(JOBS, tmp_path / "0.history"), 0
    for epoch in range(200):
        fill(curves, epoch, epoch + 1, set())
        most = max(most, curves._pending)
    for count in range(401, 601):  # an epoch that does not end
        curves.add_iterations(count, np.zeros((1, JOBS), dtype=np.float32), None)
        most = max(most, curves._pending)
    assert most < 1000
    assert (tmp_path / "0.history").stat().st_size > 4800
    assert len(curves.of_jobs([0]).losses) == 600


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_file_is_told(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "0.history"
    curves = Curves(JOBS, path)
    fill(curves, 0, 3, {0, 1, 2})
    position, content = curves.flush(), bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes({"cut": content[:-20], "flipped": content, "missing": b""}[damage])
    if damage == "missing":
        path.unlink()
    words = {"cut": "incomplete", "flipped": "digest differs", "missing": "No such file"}[damage]
    with pytest.raises(CheckpointError, match=f"0.history cannot be read.*{words}"):
        Curves(JOBS, path).resume(position, curves.names)
