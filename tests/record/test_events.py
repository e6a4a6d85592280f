from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.record_writer import RecordWriter

from holdfast.errors import StorageError
from holdfast.record import events
from holdfast.record.tfrecord import framed


def new_file(path: Path, time: float) -> events.EventFile:
    file = events.EventFile(path)
    file.append(events.version(time))
    return file


def read(path: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def by_tensorboard(path: Path, tag: str, points: list[tuple[int, float, float]]) -> bytes:
    """Write the points with TensorBoard's own writer."""
    with path.open("wb") as stream:
        writer = RecordWriter(stream)
        for step, value, time in points:
            event = Event(wall_time=time, step=step)
            event.summary.value.add(tag=tag, simple_value=value)
            writer.write(event.SerializeToString())
        writer.flush()
    return path.read_bytes()


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**35 - 1), st.floats(width=32), st.floats(0, 2e9)),
        min_size=1,
        max_size=20,
    ),
    st.text(min_size=1, max_size=150),
)
def test_each_record_equals_the_one_that_protobuf_encodes(points: list[tuple[int, float, float]], tag: str) -> None:
    steps, values, times = zip(*points, strict=True)
    records = events.scalars(tag, steps, values, times)
    size = len(records) // len(points)
    for number, (step, value, time) in enumerate(points):
        record = records[number * size : (number + 1) * size]
        event = Event.FromString(record[12:-4])
        assert (event.step, event.wall_time, event.summary.value[0].tag) == (step, time, tag)
        np.testing.assert_equal(event.summary.value[0].simple_value, value)
        # length and checksums as TensorBoard frames the same bytes
        assert record == framed(record[12:-4])


def test_framing_equals_that_of_tensorboard(tmp_path: Path) -> None:
    for size in (0, 1, 100, 1000):
        record = bytes(range(256)) * 4
        with (tmp_path / "theirs").open("wb") as stream:
            writer = RecordWriter(stream)
            writer.write(record[:size])
            writer.flush()
        assert (tmp_path / "theirs").read_bytes() == framed(record[:size])


def test_tensorboard_reads_the_same_curve_from_both_writers(tmp_path: Path) -> None:
    points = [(step, float(np.float32(np.sin(step) * 10.0**step)), 1.7e9 + step) for step in range(30)]
    (tmp_path / "ours").mkdir()
    (tmp_path / "theirs").mkdir()
    file = new_file(tmp_path / "ours" / "events.out.tfevents.1.host", 1.7e9)
    file.append(events.scalars("train/loss_step", *zip(*points, strict=True)))
    by_tensorboard(tmp_path / "theirs" / "events.out.tfevents.1.host", "train/loss_step", points)
    ours, other = (read(tmp_path / name).Scalars("train/loss_step") for name in ("ours", "theirs"))
    assert ours == other
    assert [(event.step, event.value) for event in ours] == [(step, value) for step, value, _ in points]


def test_values_that_are_not_finite_or_too_large_are_read_back_as_such(tmp_path: Path) -> None:
    file = new_file(tmp_path / "events.out.tfevents.1.host", 0.0)
    file.append(events.scalars("a", range(4), [np.nan, np.inf, -1e300, 1.0], [0.0] * 4))
    np.testing.assert_equal([event.value for event in read(tmp_path).Scalars("a")], [np.nan, np.inf, -np.inf, 1.0])


def test_no_points_give_no_records() -> None:
    assert events.scalars("a", [], [], []) == b""


def test_hyperparameters_are_read_back_with_their_types(tmp_path: Path) -> None:
    file = new_file(tmp_path / "events.out.tfevents.1.host", 1.0)
    row = {"lr": 0.1, "batch_size": "full", "nesterov": True, "weight": None, "epochs": 3}
    file.append(events.session_start(row, 1.0), events.session_end(True, 2.0))
    plugin = read(tmp_path).summary_metadata
    start = HParamsPluginData.FromString(plugin["_hparams_/session_start_info"].plugin_data.content)
    end = HParamsPluginData.FromString(plugin["_hparams_/session_end_info"].plugin_data.content)
    cells = start.session_start_info.hparams
    assert (cells["lr"].number_value, cells["batch_size"].string_value, cells["nesterov"].bool_value) == (
        0.1,
        "full",
        True,
    )
    assert (cells["weight"].string_value, cells["epochs"].number_value) == ("null", 3)
    assert (end.session_end_info.status, end.session_end_info.end_time_secs) == (1, 2.0)


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_truncated_file_still_shows_its_complete_records(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    new_file(path, 0.0).append(events.scalars("a", range(3), [1.0, 2.0, 3.0], [0.0] * 3))
    path.write_bytes(path.read_bytes()[:-cut])
    assert [event.value for event in read(tmp_path).Scalars("a")] == [1.0, 2.0]


def test_a_write_that_fails_half_way_is_undone(tmp_path: Path) -> None:
    file = new_file(tmp_path / "events", 1.0)
    before = file.path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limits[1]))  # as a disk that is almost full
    try:
        with pytest.raises(StorageError, match="events cannot be written"):
            file.append(events.scalars("x", range(1000), [0.0] * 1000, [1.0] * 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.path.read_bytes() == before
