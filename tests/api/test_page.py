"""The examples of docs/python.md run, one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_readme import SOURCES

PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(SOURCES["mine.py"])
    assert len(BLOCKS) == 6
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "report.html" in printed
    assert str(names["run"]).startswith("<Run outputs/runs/")
    assert str(names["again"]).startswith("<Sweep outputs/sweeps/")
    assert re.search(r"plan: 6 jobs: 2 stacks .*; 0 alone", printed)


def test_the_tables_name_what_there_is() -> None:
    from holdfast.api.finished import Run, Sweep

    for cls, heading in ((Run, "of a `Run`"), (Sweep, "of a `Sweep`")):
        (table,) = re.findall(rf"\| {re.escape(heading)} \| what it is \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE)
        cells = [line.split("|")[1] for line in table.splitlines()]
        named = {name.partition("(")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
        source = Path(__import__("inspect").getsourcefile(cls)).read_text()  # type: ignore[arg-type]
        assert all(hasattr(cls, name) or f"self.{name}" in source for name in named)
        public = {name for name in vars(cls) if not name.startswith("_")}
        assert public <= named
