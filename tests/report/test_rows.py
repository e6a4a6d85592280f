"""The rows that figures show: few, fair, and said to be few."""

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
from holdfast.report.read import Table
from holdfast.store.folders import SweepFolder
from tests.conftest import command_line

Row = tuple[Tensor, Tensor]
RANDOM = "10,000 of 1,000,000 rows, drawn at random"


def row(index: int) -> Row:
    return torch.tensor([index / 1e6]), torch.tensor([2 * index / 1e6 + 1])


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """Workers of loaders end with the reading; other tests may have left processes of their own."""
    before = set(multiprocessing.active_children())
    yield
    assert not set(multiprocessing.active_children()) - before


SEEN = argparse.Namespace(asked=0, data=None)  # what objects of a library keep is not restored after a job


class Counting(Dataset[Row]):
    """So many rows, on a line; it remembers which were asked for, if it is asked in this process."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Row:
        self.asked.append(index)
        return row(index)


class Endless(IterableDataset[Row]):
    """Rows without end."""

    def __iter__(self) -> Iterator[Row]:
        index = 0
        while True:
            SEEN.asked += 1
            yield row(index)
            index += 1


class Finite(IterableDataset[Row]):
    """Rows with an end that is not known before."""

    def __iter__(self) -> Iterator[Row]:
        return map(row, range(50))


class Backwards(Sampler[int]):
    """An order of the user's own."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rows - 1, -1, -1))

    def __len__(self) -> int:
        return self.rows


def doubled(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """A collate function that others do not have."""
    x, y = (torch.stack(part) for part in zip(*rows, strict=True))
    return 2 * x, y


class Data(pl.LightningDataModule):
    """A user's own, of one of these forms."""

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
    """Ours, with many rows."""

    def draw(self, split: str) -> Rows:
        x = torch.arange(1_000_000.0)[:, None] / 1e6
        return Rows(x, 2 * x + 1)


def table(form: str, *words: str) -> Table:
    config = compose([*words, "lr=0.1"], CONF)
    target = "tests.report.test_rows.Data" if form else "tests.report.test_rows.Million"
    config.data = {"_target_": target, **({"form": form} if form else {})}
    return Table(config)


@pytest.mark.parametrize("form", ["big", "big, workers", ""])
def test_of_many_rows_few_are_drawn_fairly_and_in_order(form: str) -> None:
    drawn = table(form)
    state = torch.get_rng_state()
    for split in ("train", "val"):
        x, y = (part[:, 0].double().numpy() for part in (drawn.x(split), drawn.y(split)))
        index = x * (0.5e6 if form == "big" else 1e6)  # the loader's collate function doubles x
        assert len(np.unique(index.round())) == 10_000
        assert (np.diff(index) > 0).all()
        np.testing.assert_allclose(y, 2 * index / 1e6 + 1, rtol=1e-6)
        # a uniform draw: the mean is within 5 standard errors of that of all rows, each tenth within 5 of a tenth
        assert abs(index.mean() - 5e5) < 5 * 1e6 / np.sqrt(12 * 1e4)
        shares = np.histogram(index, bins=10, range=(0, 1e6))[0]
        assert abs(shares - 1000).max() < 5 * np.sqrt(1e4 * 0.1 * 0.9)
        if form:
            assert len(getattr(SEEN.data, split).dataset.asked) == 10_000
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn.note("train", "val") == f" Training rows: {RANDOM}. Validation rows: {RANDOM}."
    again = table(form)
    assert torch.equal(again.x("train"), drawn.x("train"))
    exact = drawn.least_squares()
    np.testing.assert_allclose([exact.weight[0], exact.bias], [1 if form == "big" else 2, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("form", "words", "rows", "note"),
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
def test_what_cannot_be_drawn_is_read_from_the_front(form: str, words: list[str], rows: int, note: str) -> None:
    SEEN.asked = 0
    read = table(form, *words, "trainer.limit_val_batches=2")
    x = read.x("train")[:, 0]
    index = 999_999 - torch.arange(rows) if form == "sampler" else torch.arange(rows)
    torch.testing.assert_close(x, index / 1e6)
    assert read.note("train") == (f" Training rows: {note}." if note else "")
    if form == "endless":
        assert SEEN.asked == rows + 10
    if form == "sampler":
        assert len(SEEN.data.train.dataset.asked) == rows


@pytest.mark.parametrize("form", ["dictionaries", "several"])
def test_rows_of_another_form_are_not_read_on(form: str) -> None:
    SEEN.asked = 0
    assert not table(form).is_regression()
    assert SEEN.asked < 50


@pytest.mark.parametrize(
    ("form", "train", "val"),
    [
        ("endless", "the first 15 rows of a stream", "the first 10 rows of a stream"),
        ("big", RANDOM, RANDOM),
        ("small", "", ""),
    ],
)
def test_a_sweep_over_many_rows_ends_with_a_page_that_says_so(
    form: str, train: str, val: str, holdfast: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "own" / "data").mkdir(parents=True)
    text = f"_target_: tests.report.test_rows.Data\nform: {form}\n"
    (tmp_path / "own" / "data" / "mine.yaml").write_text(text)
    limits = ["trainer.limit_train_batches=3", "trainer.limit_val_batches=2", "trainer.full_train_loss=false"]
    words = ["--config-dir", "own", "-m", "data=mine", "lr=0.01,0.1", "epochs=2", *limits, "hydra.sweep.dir=s"]
    ran = holdfast(*words)
    assert ran.code == 0, ran.out
    folder = SweepFolder(tmp_path / "s")
    assert folder.page.exists(), ran.out
    page = folder.page.read_text()
    assert json.loads(folder.selection.read_text())["winner"] is not None
    notes = [f" Training rows: {train}.", f" Validation rows: {val}."] if train else ["", ""]
    assert f"<figcaption>What was fitted, over the rows.{notes[0]}{notes[1]}</figcaption>" in page
    assert f"and the way of each job down it.{notes[0]}</figcaption>" in page
    (doubt,) = (line for line in page.splitlines() if "Least squares, solved exactly" in line)
    assert f").{notes[0]}{notes[1]}</li>" in doubt
    if form == "big":
        code, said = command_line("report", "s", "--config-dir", "own")
        assert code == 0, said
        assert len(SEEN.data.train.dataset.asked) <= 10_000
        assert len(SEEN.data.val.dataset.asked) <= 10_000


def test_of_our_rows_those_that_were_trained_on_are_read_as_they_lie() -> None:
    config = compose(["lr=0.1", "batch_size=7"], CONF)
    read = Table(config)
    rows = Line(outliers={0: 0.0, "50:55": 20.0}).draw("train")
    assert torch.equal(read.x("train"), rows.x)
    assert torch.equal(read.y("train"), rows.y)
    assert read.note("train", "val") == ""
