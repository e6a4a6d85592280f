"""Every opening of test rows is counted, on disk, before the rows are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from holdfast.errors import FolderError, HoldfastError
from holdfast.store.test_ledger import TestLedger


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "test.json"


def test_a_run_has_one_entry_with_the_weights_of_its_last_opening(file: Path) -> None:
    for number, weights in enumerate(("a", "a", "b"), start=1):
        ledger = TestLedger(file, again=True)
        ledger.check()
        ledger.open(weights)
        assert json.loads(file.read_text()) == {"sha256": weights, "count": number}
        assert TestLedger(file).count() == number
    with pytest.raises(HoldfastError, match="opened before; test_again=true"):
        TestLedger(file).check()


def test_a_sweep_has_an_entry_for_each_winner_with_its_metrics(file: Path) -> None:
    ledger = TestLedger(file)
    ledger.open("a", data="one", winner=1)
    first = {"winner": 1, "data": "one", "sha256": "a", "count": 1, "test": None}
    assert json.loads(file.read_text()) == first
    ledger.add_metrics("a", "one", {"test/loss": 0.5})
    assert json.loads(file.read_text()) == {**first, "test": {"test/loss": 0.5}}
    ledger.open("b", data="two", winner=3)
    assert [entry["winner"] for entry in json.loads(file.read_text())] == [1, 3]

    later, again = TestLedger(file), TestLedger(file, again=True)
    assert (later.count("one"), later.count("two"), later.count("three"), later.count()) == (1, 1, 0, 2)
    assert later.metrics("a", "one") == {"test/loss": 0.5}
    assert later.metrics("a", "two") is later.metrics("b", "two") is again.metrics("a", "one") is None
    later.check("three")
    again.check("two")
    with pytest.raises(HoldfastError, match="opened before, for job 3; test_again=true"):
        later.check("two")
    again.open("c", data="two", winner=4)
    assert again.count("two") == 2


def test_metrics_of_rows_that_were_not_opened_are_not_written(file: Path) -> None:
    TestLedger(file).add_metrics("a", "one", None)
    assert not file.exists()


def test_a_file_that_cannot_be_read_does_not_count_as_no_openings(file: Path) -> None:
    file.write_text("{")
    with pytest.raises(FolderError, match="cannot be read"):
        TestLedger(file)
