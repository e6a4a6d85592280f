"""TensorBoard event files, written by hand: the scalars of a run at once, as arrays.

The format is TensorBoard's (tensorflow/core/util/event.proto in TFRecord framing): for every event its length, a
checksum of the length, the protocol buffer and a checksum of it. TensorBoard's own writer takes 16 microseconds an
event, a third of them for the checksum in Python, and 0.2 s to import.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from holdfast.errors import StorageError

Bytes = NDArray[np.uint8]

_POLYNOMIAL = 0x82F63B78  # CRC-32C, reversed
_VARINT = 5  # bytes kept for a step: 2**35 iterations


def _crc_table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1).astype(np.uint32)
    return table


_TABLE = _crc_table()
_LOOKUP: list[int] = _TABLE.tolist()


def scalars(tag: str, steps: ArrayLike, values: ArrayLike, times: ArrayLike) -> bytes:
    """The records of one scalar over many steps.

    Args:
        tag: the name of the curve, such as `train/loss_step`.
        steps: whole numbers, shape `(events,)`.
        values: shape `(events,)`.
        times: in seconds since 1970, shape `(events,)`.
    """
    return frames(tag, steps, values, times).tobytes()


def frames(tag: str, steps: ArrayLike, values: ArrayLike, times: ArrayLike) -> Bytes:
    """The records of one scalar of one run or of many, which then share steps and times.

    Args:
        tag: the name of the curve.
        steps: whole numbers, shape `(events,)`.
        values: shape `(events,)` or `(runs, events)`.
        times: in seconds since 1970, shape `(events,)`.

    Returns:
        Shape `(events, bytes)` or `(runs, events, bytes)`.
    """
    step = np.asarray(steps, dtype=np.uint64)
    name = tag.encode()
    head = b"\x0a" + _varint(len(name)) + name + b"\x15"  # tag, then the head of simple_value
    head = b"\x0a" + _varint(len(head) + 4) + head  # one value of a summary
    head = b"\x2a" + _varint(len(head) + 4) + head
    record = np.empty((len(step), 10 + _VARINT + len(head)), dtype=np.uint8)  # all but the value
    record[:, 0] = 0x09  # wall_time
    record[:, 1:9] = _little_endian(times, "<f8")
    record[:, 9] = 0x10  # step
    for place in range(_VARINT):  # zeros may lead: each step then has the same length
        more = np.uint64(0x80 if place < _VARINT - 1 else 0)
        record[:, 10 + place] = ((step >> np.uint64(7 * place)) & np.uint64(0x7F)) | more
    record[:, 10 + _VARINT :] = np.frombuffer(head, dtype=np.uint8)
    value = _little_endian(values, "<f4")
    length = struct.pack("<Q", record.shape[1] + 4)
    framed = np.empty((*value.shape[:-1], 12 + record.shape[1] + 8), dtype=np.uint8)
    framed[..., :12] = np.frombuffer(length + struct.pack("<I", _mask(_crc(length))), dtype=np.uint8)
    framed[..., 12:-8] = record
    framed[..., -8:-4] = value
    # runs share all but their values, and so the checksum up to there
    framed[..., -4:] = _little_endian(_masked(_crcs(value, _crcs(record))), "<u4")
    return framed


def version(time: float) -> bytes:
    """The record that every event file begins with."""
    from tensorboard.compat.proto.event_pb2 import Event

    return framed(Event(wall_time=time, file_version="brain.Event:2").SerializeToString())


def session_start(hparams: Mapping[str, Any], time: float) -> bytes:
    """The hyperparameters of a run, for TensorBoard's HParams: `framed(session_message(...))`."""
    return framed(session_message(hparams, time))


def framed(record: bytes) -> bytes:
    """A record between its length and the checksums."""
    length = struct.pack("<Q", len(record))
    checks = [struct.pack("<I", _mask(_crc(part))) for part in (length, record)]
    return length + checks[0] + record + checks[1]


def framed_rows(records: Bytes) -> Bytes:
    """Records of the same length, one of each run, shape `(runs, bytes)`, each framed."""
    length = struct.pack("<Q", records.shape[1])
    head = np.frombuffer(length + struct.pack("<I", _mask(_crc(length))), dtype=np.uint8)
    checks = _little_endian(_masked(_crcs(records)), "<u4")
    return np.concatenate([np.broadcast_to(head, (len(records), len(head))), records, checks], axis=1)


def session_message(hparams: Mapping[str, Any], time: float) -> bytes:
    """The hyperparameters of a run, as a protocol buffer.

    There is no record of an experiment: without one TensorBoard builds the columns from all runs it finds, with one
    it believes the first and hides the others.
    """
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData()
    data.session_start_info.start_time_secs = time
    for name, value in hparams.items():
        cell = data.session_start_info.hparams[name]
        if isinstance(value, bool):
            cell.bool_value = value
        elif isinstance(value, (int, float)):
            cell.number_value = value
        else:
            cell.string_value = "null" if value is None else str(value)
    return _session("_hparams_/session_start_info", data, time)


def session_end(succeeded: bool, time: float) -> bytes:
    """How a run ended, for TensorBoard's HParams."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData()
    data.session_end_info.status = 1 if succeeded else 2
    data.session_end_info.end_time_secs = time
    return framed(_session("_hparams_/session_end_info", data, time))


def text(tag: str, markdown: str, time: float) -> bytes:
    """A text in markdown, for TensorBoard's Text."""
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event(wall_time=time)
    value = event.summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = "text"
    value.tensor.dtype = 7  # text
    value.tensor.string_val.append(markdown.encode())
    return framed(event.SerializeToString())


def image(tag: str, png: bytes, time: float) -> bytes:
    """A picture, for TensorBoard's Images."""
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event(wall_time=time)
    value = event.summary.value.add(tag=tag)
    value.image.width, value.image.height = struct.unpack(">II", png[16:24])  # where every PNG has them
    value.image.encoded_image_string = png
    return framed(event.SerializeToString())


def read(path: Path, tags: Container[str]) -> dict[str, list[tuple[int, float]]]:
    """Some scalars of an event file: of each, steps and values in order; what follows a torn record is left out."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    data, place = path.read_bytes(), 0
    found: dict[str, list[tuple[int, float]]] = {}
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        try:
            event = Event.FromString(data[place + 12 : place + 12 + length])
        except DecodeError:
            break
        for value in event.summary.value:
            if value.tag in tags and value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
        place += length + 16
    return found


class EventFile:
    """An event file that grows; TensorBoard follows it while it does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Forget what came after so many bytes."""
        os.truncate(self.path, size)

    def append(self, *records: bytes) -> None:
        """Add records, in one write; of one that fails half-way, as on a full disk, nothing stays."""
        before = None
        try:
            with self.path.open("ab") as stream:
                before = stream.tell()
                stream.write(b"".join(records))
        except OSError as error:
            if before is not None:
                self.cut(before)
            raise StorageError(f"{self.path} cannot be written: {error.strerror}.") from error


def _session(tag: str, data: Any, time: float) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    event = Event(wall_time=time)
    value = event.summary.value.add(tag=tag)
    value.metadata.plugin_data.plugin_name = "hparams"
    value.metadata.plugin_data.content = data.SerializeToString()
    value.tensor.dtype = 1  # an empty tensor of floats: what is meant stands in the metadata
    value.tensor.tensor_shape.dim.add(size=0)
    record: bytes = event.SerializeToString()
    return record


def _crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _LOOKUP[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _mask(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _crcs(data: Bytes, crc: NDArray[np.uint32] | None = None) -> NDArray[np.uint32]:
    """The checksum of every row at once, begun or gone on with: as many steps as a row has bytes."""
    crc = np.full(data.shape[:-1], 0xFFFFFFFF, dtype=np.uint32) if crc is None else crc
    for column in np.ascontiguousarray(np.moveaxis(data, -1, 0)):
        crc = _TABLE[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    return crc


def _masked(crc: NDArray[np.uint32]) -> NDArray[np.uint32]:
    crc = ~crc
    return (crc >> np.uint32(15) | crc << np.uint32(17)) + np.uint32(0xA282EAD8)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _little_endian(values: ArrayLike | Sequence[float], dtype: str) -> Bytes:
    array = np.ascontiguousarray(np.asarray(values, dtype=np.float64 if dtype != "<u4" else np.uint32))
    with np.errstate(over="ignore"):  # a diverged loss beyond single precision is infinite there
        return array.astype(dtype)[..., np.newaxis].view(np.uint8)
