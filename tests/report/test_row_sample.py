"""Which rows a report reads of small data, large data and streams, and what it says about them."""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.data import DataModule, Line, Rows
from holdfast.report.regression import SampledRows, read_rows
from holdfast.store.folders import SweepFolder
from tests.conftest import command_line

Row = tuple[Tensor, Tensor]
RANDOM = "10,000 of 1,000,000 rows, drawn at random"


def row(index: int) -> Row:
    return torch.tensor([index / 1e6]), torch.tensor([2 * index / 1e6 + 1])


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Reading starts no worker process, or ends it; processes left by other tests do not count."""
    before = set(multiprocessing.active_children())
    yield
    assert not set(multiprocessing.active_children()) - before


SEEN = argparse.Namespace(rows=0, data=None)  # not a plain variable: those are restored after each job


class Counting(Dataset[Row]):
    """Rows on a line, and a list of the indices that this process has read."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Row:
        self.read.append(index)
        return row(index)


class Endless(IterableDataset[Row]):
    """An endless stream of rows."""

    def __iter__(self) -> Iterator[Row]:
        index = 0
        while True:
            SEEN.rows += 1
            yield row(index)
            index += 1


class Finite(IterableDataset[Row]):
    """A stream of 50 rows."""

    def __iter__(self) -> Iterator[Row]:
        return map(row, range(50))


class Backwards(Sampler[int]):
    """A sampler that is not torch's."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rows - 1, -1, -1))

    def __len__(self) -> int:
        return self.rows


def doubled(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """A user's collate function."""
    x, y = (torch.stack(part) for part in zip(*rows, strict=True))
    return 2 * x, y


class Data(pl.LightningDataModule):
    """A user's data module, with one of several kinds of loaders."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        SEEN.data = self

    def loader(self, *, shuffle: bool) -> Any:
        big = Counting(1_000_000)
        loaders: dict[str, Callable[[], Any]] = {
            "endless": lambda: DataLoader(Endless(), 5),
            "workers": lambda: DataLoader(Endless(), 5, num_workers=2, persistent_workers=True, timeout=5),
            "finite": lambda: DataLoader(Finite(), 5),
            "big": lambda: DataLoader(big, 100, shuffle=shuffle, collate_fn=doubled),
            "big, workers": lambda: DataLoader(big, 100, shuffle=shuffle, num_workers=2, persistent_workers=True),
            "sampler": lambda: DataLoader(big, 100, sampler=Backwards(len(big)), num_workers=2, timeout=5),
            "small": lambda: DataLoader(Counting(60), 7, shuffle=shuffle),
            "last dropped": lambda: DataLoader(Counting(60), 7, drop_last=True),
            "unknown": lambda: ((x[None], y[None]) for x, y in map(row, range(20_000))),
            "dictionaries": lambda: DataLoader(Endless(), 5, collate_fn=lambda rows: {"x": rows}),
            "several": lambda: [DataLoader(Endless(), 5), DataLoader(Endless(), 5)],
        }
        return loaders[self.form]()

    def train_dataloader(self) -> Any:
        self.train = self.loader(shuffle=True)
        return self.train

    def val_dataloader(self) -> Any:
        self.val = self.loader(shuffle=False)
        return self.val


class Million(DataModule):
    """A Holdfast data module with many rows."""

    def draw(self, split: str) -> Rows:
        x = torch.arange(1_000_000.0)[:, None] / 1e6
        return Rows(x, 2 * x + 1)


def rows_of(form: str, *overrides: str) -> SampledRows | None:
    config = compose([*overrides, "lr=0.1"], CONF)
    target = "tests.report.test_row_sample.Data" if form else "tests.report.test_row_sample.Million"
    config.data = {"_target_": target, **({"form": form} if form else {})}
    return read_rows(config)


@pytest.mark.parametrize("form", ["big", "big, workers", ""])
def test_a_sample_of_many_rows_is_uniform_ascending_and_reproducible(form: str) -> None:
    sample = rows_of(form)
    assert sample is not None
    state = torch.get_rng_state()
    for split in ("train", "val"):
        x, y = (part[:, 0].double().numpy() for part in getattr(sample, split)[:2])
        index = x * (0.5e6 if form == "big" else 1e6)  # the loader's collate function doubles x
        assert len(np.unique(index.round())) == 10_000
        assert (np.diff(index) > 0).all()
        np.testing.assert_allclose(y, 2 * index / 1e6 + 1, rtol=1e-6)
        # a uniform draw: the mean is within 5 standard errors of that of all rows, each tenth within 5 of a tenth
        assert abs(index.mean() - 5e5) < 5 * 1e6 / np.sqrt(12 * 1e4)
        shares = np.histogram(index, bins=10, range=(0, 1e6))[0]
        assert abs(shares - 1000).max() < 5 * np.sqrt(1e4 * 0.1 * 0.9)
        if form:
            assert len(getattr(SEEN.data, split).dataset.read) == 10_000
    assert torch.equal(torch.get_rng_state(), state)
    assert sample.note("train", "val") == f" Training rows: {RANDOM}. Validation rows: {RANDOM}."
    again = rows_of(form)
    assert again is not None
    assert torch.equal(again.train.x, sample.train.x)
    exact = sample.least_squares()
    np.testing.assert_allclose([exact.weight[0, 0], exact.bias[0]], [1 if form == "big" else 2, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("form", "overrides", "rows", "note"),
    [
        ("endless", [], 10_000, "the first 10,000 rows of a stream"),
        ("endless", ["trainer.limit_train_batches=3"], 15, "the first 15 rows of a stream"),
        ("workers", ["trainer.limit_train_batches=1"], 5, "the first 5 rows of a stream"),
        ("finite", [], 50, ""),
        ("finite", ["trainer.limit_train_batches=20"], 50, ""),
        ("sampler", [], 10_000, "the first 10,000 rows"),
        ("sampler", ["trainer.limit_train_batches=0.0005"], 500, "the first 500 rows"),
        ("unknown", [], 10_000, "the first 10,000 rows of a stream"),
        ("small", [], 60, ""),
        ("small", ["trainer.limit_train_batches=1"], 60, ""),
        ("last dropped", [], 56, ""),
    ],
)
def test_first_rows_are_read_where_no_sample_is_possible(form: str, overrides: list[str], rows: int, note: str) -> None:
    SEEN.rows = 0
    sample = rows_of(form, *overrides, "trainer.limit_val_batches=2")
    assert sample is not None
    x = sample.train.x[:, 0]
    index = 999_999 - torch.arange(rows) if form == "sampler" else torch.arange(rows)
    torch.testing.assert_close(x, index / 1e6)
    assert sample.note("train") == (f" Training rows: {note}." if note else "")
    if form == "endless":
        assert SEEN.rows == rows + 10
    if form == "sampler":
        assert len(SEEN.data.train.dataset.read) == rows


@pytest.mark.parametrize("form", ["dictionaries", "several"])
def test_reading_stops_at_a_batch_that_is_not_for_regression(form: str) -> None:
    SEEN.rows = 0
    assert rows_of(form) is None
    assert SEEN.rows < 50


@pytest.mark.parametrize(
    ("form", "train", "val"),
    [
        ("endless", "the first 15 rows of a stream", "the first 10 rows of a stream"),
        ("big", RANDOM, RANDOM),
        ("small", "", ""),
    ],
)
def test_the_page_says_which_rows_were_read(
    form: str, train: str, val: str, holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    text = f"_target_: tests.report.test_row_sample.Data\nform: {form}\n"
    (tmp_path / "my_conf" / "data" / "mine.yaml").write_text(text)
    limits = ["trainer.limit_train_batches=3", "trainer.limit_val_batches=2", "trainer.full_train_loss=false"]
    command = ["--config-dir", "my_conf", "-m", "data=mine", "lr=0.01,0.1", "epochs=2", *limits, "hydra.sweep.dir=s"]
    ran = holdfast(*command)
    assert ran.code == 0, ran.out
    folder = SweepFolder(tmp_path / "s")
    assert folder.page.exists(), ran.out
    page = folder.page.read_text()
    assert json.loads(folder.selection.read_text())["winner"] is not None
    notes = [f" Training rows: {train}.", f" Validation rows: {val}."] if train else ["", ""]
    assert f"<figcaption>What was fitted, over the rows.{notes[0]}{notes[1]}</figcaption>" in page
    assert f"and the way of each job down it.{notes[0]}</figcaption>" in page
    (remark,) = (line for line in page.splitlines() if "Least squares, solved exactly" in line)
    assert f").{notes[0]}{notes[1]}</li>" in remark
    if form == "big":
        code, printed = command_line("report", "s", "--config-dir", "my_conf")
        assert code == 0, printed
        assert len(SEEN.data.train.dataset.read) <= 10_000
        assert len(SEEN.data.val.dataset.read) <= 10_000


def test_rows_of_a_holdfast_data_module_are_read_in_order() -> None:
    config = compose(["lr=0.1", "batch_size=7"], CONF)
    sample = read_rows(config)
    assert sample is not None
    rows = Line(outliers={0: 0.0, "50:55": 20.0}).draw("train")
    assert torch.equal(sample.train.x, rows.x)
    assert torch.equal(sample.train.y, rows.y)
    assert sample.note("train", "val") == ""
