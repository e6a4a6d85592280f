"""Rows that are read buffer by buffer: their order, their batches, and what happens when reading fails."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.data import BatchIndices, BufferedRows, Rows
from holdfast.data.blocks import BLOCK_ROWS, BlockWriter
from holdfast.data.buffered import LEAST_BLOCKS, ReadAhead
from holdfast.data.disk_batches import OrderedBatches, ShuffledBatches
from holdfast.data.order import batch_rows, evaluation_loader, loader
from holdfast.errors import DataError
from holdfast.model import Linear
from holdfast.report.row_sample import MAX_ROWS, sample_rows
from tests.conftest import bare_trainer
from tests.data.on_disk import OnDisk, blocks_of, make, numbered, written

QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def permutation(count: int, *stream: int | str) -> list[int]:
    """A permutation whose seed is derived as that of Holdfast, written again."""
    digest = hashlib.blake2b("/".join(map(str, stream)).encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.randperm(count, generator=generator).tolist()


def in_order(blocks: int, buffers: int) -> list[list[int]]:
    """The blocks of each buffer without shuffling: one after the other."""
    counts = [blocks // buffers + (number < blocks % buffers) for number in range(buffers)]
    ends = list(itertools.accumulate(counts))
    return [list(range(end - count, end)) for count, end in zip(counts, ends, strict=True)]


def dealt_hands(blocks: int, buffers: int, seed: int, epoch: int) -> list[list[int]]:
    """The blocks of each buffer: of every so many neighbours, each buffer gets one, by the smallest number drawn."""
    digest = hashlib.blake2b(f"{seed}/blocks/{epoch}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    drawn = torch.rand(blocks, generator=generator, dtype=torch.float64).tolist()
    hands = [list[int]() for _ in range(buffers)]
    for first in range(0, blocks, buffers):
        neighbours = sorted(range(first, min(blocks, first + buffers)), key=drawn.__getitem__)
        for hand, block in zip(hands, neighbours, strict=False):
            hand.append(block)
    return hands


def reference(
    rows: int, block: int, in_a_buffer: int, *, seed: int, order_seed: int, epoch: int, shuffle: bool
) -> tuple[list[int], list[int]]:
    """The rows of an epoch in the order in which they are visited, row by row, and the sizes of the buffers."""
    blocks = math.ceil(rows / block)
    buffers = math.ceil(blocks / in_a_buffer)
    hands = dealt_hands(blocks, buffers, seed, epoch) if shuffle else in_order(blocks, buffers)
    order, sizes = list[int](), list[int]()
    for number, hand in enumerate(hands):
        mine = sorted(hand)
        buffer = [row for each in mine for row in range(each * block, min(rows, (each + 1) * block))]
        stream = (order_seed, "order", epoch, number) if number else (order_seed, "order", epoch)
        places = permutation(len(buffer), *stream) if shuffle else range(len(buffer))
        order += [buffer[place] for place in places]
        sizes.append(len(buffer))
    return order, sizes


def visited(batches: ShuffledBatches | OrderedBatches) -> list[list[int]]:
    """The number of each row of each batch; targets have to belong to their inputs."""
    result = []
    for x, y in batches:
        assert torch.equal(x[:, :1], -y)
        result.append(list(map(int, x[:, 1].tolist())))
    return result


@QUICK
@given(
    rows=st.integers(1, 150),
    block=st.integers(1, 12),
    in_a_buffer=st.integers(1, 6),
    batch_size=st.integers(1, 40),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 5),
    shuffle=st.booleans(),
)
def test_batches_are_slices_of_the_orders_of_the_buffers(
    tmp_path: Path, *, rows: int, block: int, in_a_buffer: int, batch_size: int, epoch: int, seed: int, shuffle: bool
) -> None:
    with blocks_of(block):
        source = BufferedRows(numbered(tmp_path / "file", rows), block * in_a_buffer, seed)
        indices = BatchIndices(rows, batch_size, seed=seed + 1, epoch=lambda: epoch, shuffle=shuffle)
        batches = ShuffledBatches(source, indices)
        order, sizes = reference(rows, block, in_a_buffer, seed=seed, order_seed=seed + 1, epoch=epoch, shuffle=shuffle)
        assert source.sizes(epoch, shuffle=shuffle) == sizes
        assert max(sizes) <= source.buffer_rows <= block * in_a_buffer
        expected = [order[start : start + batch_size] for start in range(0, rows, batch_size)]
        for _ in range(2):  # the second pass finds the first buffer of another epoch read ahead
            assert visited(batches) == expected
        assert len(batches) == len(expected)
        assert sorted(order) == list(range(rows))


@QUICK
@given(
    rows=st.integers(1, 100),
    block=st.integers(1, 9),
    in_a_buffer=st.integers(1, 4),
    batch_size=st.integers(1, 20),
    world_size=st.sampled_from([2, 3]),
)
def test_processes_share_the_positions_of_an_epoch(
    tmp_path: Path, *, rows: int, block: int, in_a_buffer: int, batch_size: int, world_size: int
) -> None:
    with blocks_of(block):
        source = BufferedRows(numbered(tmp_path / "file", rows), block * in_a_buffer, 0)
        order, sizes = reference(rows, block, in_a_buffer, seed=0, order_seed=7, epoch=2, shuffle=True)
        share = math.ceil(rows / world_size)
        for rank in range(world_size):
            kwargs: dict[str, Any] = {"seed": 7, "epoch": lambda: 2, "rank": rank, "world_size": world_size}
            batches = visited(ShuffledBatches(source, BatchIndices(rows, batch_size, **kwargs)))
            last = order[rows - sizes[-1] :]
            positions = range(rank, share * world_size, world_size)
            expected = [order[at] if at < rows else last[(at - rows) % len(last)] for at in positions]
            assert [row for batch in batches for row in batch] == expected
            assert len(batches) == math.ceil(share / batch_size)


@QUICK
@given(rows=st.integers(1, 120), batch_size=st.integers(1, 50), world_size=st.integers(1, 3), epoch=st.integers(0, 2))
def test_one_buffer_gives_the_batches_of_rows_in_memory(
    tmp_path: Path, *, rows: int, batch_size: int, world_size: int, epoch: int
) -> None:
    with blocks_of(8):
        source = BufferedRows(numbered(tmp_path / "file", rows), rows, 3)
        memory = Rows(*source[:])
        for rank in range(world_size):
            kwargs: dict[str, Any] = {"seed": 5, "epoch": lambda: epoch, "rank": rank, "world_size": world_size}
            indices = BatchIndices(rows, batch_size, **kwargs)
            for (x, y), (x_memory, y_memory) in zip(
                ShuffledBatches(source, indices), loader(memory, indices), strict=True
            ):
                assert torch.equal(x, x_memory)
                assert torch.equal(y, y_memory)


def test_rows_are_read_by_slices_and_by_ascending_numbers(tmp_path: Path) -> None:
    with blocks_of(7):
        source = BufferedRows(numbered(tmp_path / "file", 50), 14, 0)
        memory = Rows(*source[:])
        assert len(source) == len(memory) == 50
        assert source.shapes == memory.shapes
        for index in (slice(3), slice(0, 14), slice(5, 23), slice(44, 99), slice(-3, None), slice(9, 4)):
            assert all(map(torch.equal, source[index], memory[index]))
        some = torch.tensor([0, 6, 7, 30, 49])
        assert all(map(torch.equal, source[some], memory[some]))
        assert all(map(torch.equal, source.head(9)[:], memory.head(9)[:]))
        with pytest.raises(DataError, match="steps of 2"):
            source[::2]
        in_order = zip(OrderedBatches(source, 8), (memory[start : start + 8] for start in range(0, 50, 8)), strict=True)
        assert all(torch.equal(mine[0], yours[0]) and torch.equal(mine[1], yours[1]) for mine, yours in in_order)
        assert len(OrderedBatches(source, 8)) == 7


def test_a_buffer_holds_enough_blocks_and_is_filled_evenly(tmp_path: Path) -> None:
    with blocks_of(1, LEAST_BLOCKS):
        file = numbered(tmp_path / "file", 100)
        assert BufferedRows(file, 1, 0).sizes(0, shuffle=True) == [15, 15, 14, 14, 14, 14, 14]
        assert BufferedRows(file, 50, 0).sizes(0, shuffle=True) == [50, 50]
        assert BufferedRows(file, 99, 0).sizes(0, shuffle=True) == [50, 50]
        assert BufferedRows(file, 1000, 0).sizes(0, shuffle=True) == [100]


def test_a_batch_that_no_buffer_holds_is_refused(tmp_path: Path) -> None:
    with blocks_of(10):
        source = BufferedRows(numbered(tmp_path / "file", 100), 30, 0)
        assert batch_rows(source, 30) == 30
        for size in (31, "full"):
            with pytest.raises(DataError, match=f"batch_size={size} is .* at most 30, or data.buffer_rows="):
                batch_rows(source, size)
        assert batch_rows(BufferedRows(source.file, 31, 0), 31) == 31
        assert batch_rows(BufferedRows(source.file, 100, 0), "full") == 100
        assert batch_rows(BufferedRows(source.file, 100, 0), 500) == 500  # as of rows in memory


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="A split needs rows"):
        BufferedRows(written(tmp_path / "file", torch.zeros(0, 1), torch.zeros(0, 1)), 1, 0)


def test_the_next_buffer_is_read_while_one_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with blocks_of(5):
        source = BufferedRows(numbered(tmp_path / "file", 20), 5, 0)
        read, in_thread = list[int](), list[bool]()

        def note(blocks: Iterable[int], *memory: Any) -> None:
            read.extend(blocks)
            in_thread.append(threading.current_thread() is not threading.main_thread())

        monkeypatch.setattr(source.file, "read", note)
        for number in range(4):
            source.buffer(0, number, shuffle=False)
            source.read_on(0, number, shuffle=False)
        source.buffer(1, 0, shuffle=False)
        assert read == [0, 1, 2, 3, 0]
        assert in_thread == [False, True, True, True, True]
        source.buffer(3, 2, shuffle=False)  # another one than was expected
        assert read[-1] == 2


def test_one_buffer_is_read_once(tmp_path: Path) -> None:
    source = BufferedRows(numbered(tmp_path / "file", 20), 1, 0)
    first = source.buffer(0, 0, shuffle=True)
    source.read_on(0, 0, shuffle=True)
    source.file.path.unlink()
    assert source.buffer(1, 0, shuffle=False) is first


def test_the_memory_of_a_buffer_is_used_again_once_nothing_refers_to_it(tmp_path: Path) -> None:
    with blocks_of(5):
        source = BufferedRows(numbered(tmp_path / "file", 40), 10, 0)
        places = set[int]()
        for number in range(4):
            buffer = source.buffer(0, number, shuffle=False)
            source.read_on(0, number, shuffle=False)
            places.add(buffer.x.data_ptr())
            del buffer
        assert len(places) == 2
        held = source.buffer(1, 0, shuffle=False)[3:5][0]
        rows = held.clone()
        for number in range(3):
            source.read_on(1, number, shuffle=False)
            assert source.buffer(1, number + 1, shuffle=False).x.data_ptr() != held.data_ptr()
        assert torch.equal(held, rows)


def _take(ahead: ReadAhead[list[int]], answers: multiprocessing.Queue[list[int]]) -> None:
    answers.put(ahead.result())


@pytest.mark.skipif(sys.platform == "darwin", reason="forks are not safe there")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, for processes with threads
def test_what_is_read_ahead_survives_a_fork() -> None:
    go_on = threading.Event()

    def slow() -> None:
        if os.getpid() == here:
            go_on.wait(30)
        memory[0] = 3

    memory, here, context = [0], os.getpid(), multiprocessing.get_context("fork")
    ahead = ReadAhead(memory, slow)
    answers: multiprocessing.Queue[list[int]] = context.Queue()
    child = context.Process(target=_take, args=(ahead, answers))
    child.start()
    assert answers.get(timeout=30) == [3]
    child.join(30)
    go_on.set()
    assert ahead.result() == [3]


def test_reading_ahead_neither_delays_nor_spoils_the_end_of_a_process(tmp_path: Path) -> None:
    file = numbered(tmp_path / "file", 16 * BLOCK_ROWS)
    code = (
        "import sys, time\nimport numpy as np\nfrom pathlib import Path\n"
        "from holdfast.data.blocks import BlockFile, BlockForm\nfrom holdfast.data.buffered import ReadAhead\n"
        f"form = BlockForm(*{tuple(file.form)})\nfile = BlockFile(Path(sys.argv[1]), form, {file.checks.tolist()})\n"
        "x, y = (part.numpy() for part in form.empty(form.rows))\n"
        "def fill():\n    while True: file.read(range(form.blocks), x, y)\n"
        "waits = [ReadAhead(None, fill) for _ in range(3)]\ntime.sleep(0.2)\nprint('done', flush=True)"
    )
    command = [sys.executable, "-c", code, str(file.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_rows_travel_without_what_was_read(tmp_path: Path) -> None:
    with blocks_of(5):
        source = BufferedRows(numbered(tmp_path / "file", 40), 10, 0)
        source.buffer(0, 0, shuffle=True)
        source.read_on(0, 0, shuffle=True)
        sent = pickle.dumps(source)
        assert len(sent) < 2000
        received = pickle.loads(sent)
        assert received.key == source.key
        for number in range(4):
            assert all(
                map(torch.equal, received.buffer(0, number, shuffle=True)[:], source.buffer(0, number, shuffle=True)[:])
            )


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_reported_where_the_buffer_is_needed(tmp_path: Path, damage: str) -> None:
    with blocks_of(5):
        source = BufferedRows(numbered(tmp_path / "file", 40), 10, 0)
        batches = iter(ShuffledBatches(source, BatchIndices(40, 5, shuffle=False)))
        for _ in range(4):  # the second buffer, and with it the reading of the third begins
            next(batches)
        _damage(source.file.path, damage)
        with pytest.raises(DataError, match="holdfast cache clear"):
            list(batches)
        in_order = iter(OrderedBatches(source, 8))
        with pytest.raises(DataError, match="holdfast cache clear"):
            list(in_order)


def _damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if how == "cut" else content[:-1] + bytes([content[-1] ^ 1]))


def test_lightning_trains_validates_tests_and_predicts_with_it(tmp_path: Path) -> None:
    with blocks_of(64):
        make(tmp_path, 500)
        data, memory = (OnDisk(str(tmp_path), batch_size=50, buffer_rows=rows) for rows in (200, 0))
        model, trainer = _linear(), bare_trainer()
        trainer.fit(model, datamodule=data)
        assert trainer.global_step == len(data.train_dataloader()) == 10
        assert isinstance(data.val_dataloader(), OrderedBatches)
        measured = list[dict[str, torch.Tensor]]()
        for each in (data, memory):
            trainer.validate(model, datamodule=each, verbose=False)
            validated = dict(trainer.callback_metrics)
            trainer.test(model, datamodule=each, verbose=False)
            measured.append({**validated, **trainer.callback_metrics})
        assert measured[0] == measured[1]
        assert measured[0].keys() >= {"val/loss", "test/loss"}
        predicting = _Predicting(3, 1)
        loaders = data.val_dataloader(), evaluation_loader(memory.val)
        mine, yours = (trainer.predict(predicting, dataloaders=each) for each in loaders)
        assert mine is not None
        assert yours is not None
        assert torch.equal(torch.cat(mine), torch.cat(yours))


class _Predicting(pl.LightningModule):
    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(features, outputs)

    def predict_step(self, batch: Sequence[torch.Tensor]) -> torch.Tensor:
        result: torch.Tensor = self.layer(batch[0])
        return result


def _linear() -> Linear:
    model = Linear(features=3)
    model.optimize_with(lambda parameters: torch.optim.SGD(parameters, lr=0.01), None, "val/loss")
    return model


def test_the_report_samples_rows_on_disk_as_rows_in_memory(tmp_path: Path) -> None:
    source = BufferedRows(numbered(tmp_path / "file", 20_000), 1, 0)
    memory = Rows(*source[:])
    indices = BatchIndices(20_000, 10)
    samples = [sample_rows(each, None) for each in (ShuffledBatches(source, indices), loader(memory, indices))]
    assert samples[0] is not None
    assert samples[1] is not None
    assert len(samples[0].x) == MAX_ROWS
    assert torch.equal(samples[0].x, samples[1].x)
    assert torch.equal(samples[0].y, samples[1].y)
    assert samples[0].note == samples[1].note


def test_a_file_sorted_by_its_target_trains_as_a_full_shuffle_does(tmp_path: Path) -> None:
    make(tmp_path, 500_000, sort=True)
    losses = []
    for blocks in (1000, LEAST_BLOCKS):
        data = OnDisk(str(tmp_path), buffer_rows=blocks * BLOCK_ROWS)
        data.setup("fit")
        weight, bias = torch.zeros(3, 1), torch.zeros(1)
        for epoch in range(2):
            indices = BatchIndices(len(data.train), 256, epoch=partial(int, epoch))
            for x, y in ShuffledBatches(data.train, indices):
                error = x @ weight + bias - y
                weight -= 0.02 * x.T @ error / len(x)
                bias -= 0.02 * error.mean()
        x, y = data.train[:]
        losses.append(float((x @ weight + bias - y).square().mean()))
    assert losses[0] == pytest.approx(0.25, rel=0.02)
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_large_file_takes_no_more_memory_than_two_buffers(tmp_path: Path) -> None:
    rows, features = 1_500_000, 49  # 300 MB; a buffer of 16 blocks has 13 MB
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(500_000, features, generator=generator)
    with BlockWriter(tmp_path / "file", features, 1, False) as writer:
        for _ in range(rows // len(block)):
            writer.write(block.numpy(), block[:, :1].numpy())
        form, checks = writer.finish()
    del block
    code = (
        "import json, resource, sys\nfrom pathlib import Path\nimport torch\n"
        "from holdfast.data import BatchIndices, BufferedRows\nfrom holdfast.data.blocks import BlockFile, BlockForm\n"
        "from holdfast.data.disk_batches import OrderedBatches, ShuffledBatches\n"
        "path, (form, checks) = sys.argv[1], map(json.loads, sys.argv[2:])\n"
        "rows = BufferedRows(BlockFile(Path(path), BlockForm(*form), checks), 1, 0)\n"
        "batches = ShuffledBatches(rows, BatchIndices(len(rows), 1024))\n"
        "weight = torch.zeros(form[1], 1)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for x, y in batches:\n    weight -= 0.01 * x.T @ (x @ weight - y) / len(x)\n"
        "sums = [float((x @ weight - y).square().sum()) for x, y in OrderedBatches(rows)]\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, sum(sums) / len(rows))"
    )
    arguments = [str(tmp_path / "file"), json.dumps(list(form)), json.dumps(checks)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    growth, loss = done.stdout.split()
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS
    assert int(growth) * unit < 60 << 20
    assert float(loss) < 0.1
