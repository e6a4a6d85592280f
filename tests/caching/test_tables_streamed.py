"""The tests of tables in memory, with the same tables read from disk: a part of them, in CI all.

The functions are those of `tests/tables`. Here they run with a `holdfast` and a `command_line` that stream every table.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import Ran, command_line
from tests.full import ALL, some
from tests.tables import test_adversary, test_answers, test_bad_tables, test_good_tables

IN_MEMORY_ALONE = {
    "test_one_message_says_what_to_do": "it is replaced by a comparison of messages below",
    "test_there_are_enough": "it counts what runs here",
    "test_jobs_on_a_table_that_changes_meanwhile_are_not_compared": "it patches the table in memory",
}
OTHER_MESSAGE = {
    "a line too short below a quoted line break": "the line is found before the target that is missing",
}
SLOW = ("test_a_stack_agrees_with_jobs_trained_alone",)
CONVERSION = ("rows converted in", "rows are read from disk, buffer by buffer")
"""Lines that are printed of streamed tables alone."""


def streaming(words: tuple[str, ...]) -> list[str]:
    """Words that train on a table, with a buffer of all rows."""
    if "data=table" not in words or any(word.startswith("data.buffer_rows=") for word in words):
        return list(words)
    return [*words, "data.buffer_rows=1000"]  # blocks are larger than these tables, so that all rows are in one buffer


def _of(module: ModuleType, step: int) -> dict[str, Callable[..., Any]]:
    named = {name: value for name, value in vars(module).items() if name.startswith("test_") and callable(value)}
    chosen = some([name for name in named if name not in IN_MEMORY_ALONE and (ALL or name not in SLOW)], step)
    return {name: named[name] for name in chosen}


globals().update(_of(test_good_tables, 6))
globals().update(_of(test_answers, 6))
globals().update(_of(test_adversary, 6))
globals().update(_of(test_bad_tables, 3))
train = test_good_tables.train


@pytest.fixture(autouse=True)
def _streamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for module in (test_bad_tables, test_adversary, test_answers):
        if hasattr(module, "command_line"):
            monkeypatch.setattr(module, "command_line", lambda *words: command_line(*streaming(words)))


@pytest.fixture
def holdfast(holdfast: Callable[..., Ran]) -> Callable[..., Ran]:
    """Run `python train.py WORDS`, with every table streamed."""

    def run(*words: str) -> Ran:
        ran = holdfast(*streaming(words))
        lines = [line for line in ran.out.splitlines(keepends=True) if not any(part in line for part in CONVERSION)]
        return dataclasses.replace(ran, out="".join(lines))

    return run


@pytest.mark.parametrize("name", some([name for name in test_bad_tables.BAD if name not in OTHER_MESSAGE], 9))
def test_a_bad_table_has_the_same_message(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = []
    for folder, run in (("memory", command_line), ("disk", test_bad_tables.command_line)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setattr(test_bad_tables, "command_line", run)
        texts.append(test_bad_tables.refused(test_bad_tables.BAD[name], tmp_path / folder))
    assert texts[0] == texts[1]


def test_the_tables_are_streamed(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(test_good_tables.SIMPLE)
    holdfast(*test_good_tables.QUICK, "data.path=t.csv", "data.target=y", "epochs=1")
    assert list(tmp_path.glob("outputs/cache/*/train.rows"))
    assert len([name for name in globals() if name.startswith("test_") and inspect.isfunction(globals()[name])]) >= 12
