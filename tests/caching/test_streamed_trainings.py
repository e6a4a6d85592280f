"""Trainings on streamed tables: as in memory, bit for bit, where a buffer holds all rows; nearly as good elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast.caching import cached_table, sources
from holdfast.data.blocks import BlockFile
from holdfast.data.order import BatchIndices
from holdfast.store.folders import RunFolder, SweepFolder
from tests.conftest import command_line
from tests.data.on_disk import blocks_of
from tests.full import some

BLOCK = 100
TABLE = ["data=table", "data.path=t.csv", "data.target=y", "data.cache_dir=cache", "report=false", "epochs=3"]
ALL_ROWS, SEVERAL = "data.buffer_rows=100000", "data.buffer_rows=300"


def write(path: str, rows: int, seed: int = 0, *, sort: bool = False) -> None:
    """A table with numbers, texts, a class `k` and two targets, which may be sorted by the first one."""
    draw = np.random.default_rng(seed)
    a, b, level = draw.normal(size=rows), draw.integers(0, 9, rows), draw.integers(0, 5, rows)
    y = 2 * a - 0.3 * b + draw.normal(size=rows) * 0.5
    z, noise = a - b + draw.normal(size=rows), draw.normal(size=rows)
    order = np.argsort(y) if sort else np.arange(rows)
    k = np.where(a + noise > 0, "yes", "no")
    lines = [f"{a[i]:.4f},{b[i]},level {level[i]},{k[i]},{y[i]:.3f},{z[i]:.3f}" for i in order]
    Path(path).write_text("\n".join(["a,b,c,k,y,z", *lines]) + "\n")


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    write("t.csv", 2000)
    with blocks_of(BLOCK, 2):
        yield


def given(words: Sequence[str]) -> list[str]:
    """Overrides, of which the last one for a key counts."""
    return list({word.partition("=")[0]: word for word in words}.values())


def run(folder: str, *words: str) -> str:
    code, said = command_line(*given([*TABLE, "data.drop=[k,z]", *words]), f"hydra.run.dir={folder}")
    assert code == 0, said
    return said


def swept(folder: str, *words: str) -> dict[int, Any]:
    """The results of all jobs of a sweep."""
    code, said = command_line("-m", *given([*TABLE, "data.drop=[k,z]", *words]), f"hydra.sweep.dir={folder}")
    assert code == 0, said
    results = SweepFolder(Path(folder)).read_results()
    return {number: (result.best, result.last, result.status) for number, result in results.items()}


def weights(folder: str) -> dict[str, bytes]:
    loaded = torch.load(RunFolder(Path(folder)).weights, weights_only=True)
    return {name: value.numpy().tobytes() for name, value in loaded.items()}


SWEEPS = {
    "rates": ("lr=0.01,0.1",),
    "seeds and batch sizes": ("seed=0,1", "batch_size=50,full"),
    "columns": ("data.columns=[a,b],[a,c],null", "lr=0.01"),
    "standardised or not": ("data.standardise=true,false", "lr=0.001,0.01"),
    "seeds of the split": ("data.seed=0,1",),
    "classes": ("data.target=k", "data.drop=[y,z]", "model=mlp", "lr=0.1,0.2"),
    "two targets": ("data.target=[y,z]", "data.drop=[k]", "lr=0.1,0.2"),
    "jobs alone, dropout": ("hydra/launcher=basic", "model=mlp", "model.dropout=0.3", "lr=0.1,0.2"),
    "not shuffled": ("data.shuffle=false,true", "optimizer=adam"),
}


@pytest.mark.parametrize("name", some(SWEEPS, 3))
def test_a_buffer_of_all_rows_trains_as_rows_in_memory(name: str) -> None:
    assert repr(swept("disk", *SWEEPS[name], ALL_ROWS)) == repr(swept("memory", *SWEEPS[name]))
    if Path("memory/model.pth").exists():  # jobs on other rows have no winner
        assert weights("disk") == weights("memory")


@pytest.mark.parametrize("name", some([*SWEEPS][:4], 3))
def test_a_stack_agrees_with_jobs_alone_where_there_are_several_buffers(name: str) -> None:
    words = (*SWEEPS[name], SEVERAL, "precision=64-true")
    words = tuple(word.replace("batch_size=50,full", "batch_size=50,70") for word in words)
    stack, alone = swept("stack", *words), swept("alone", *words, "hydra/launcher=basic")
    assert stack.keys() == alone.keys()
    for number, (best, last, status) in stack.items():
        assert status == alone[number][2] == "completed"
        for mine, yours in ((best, alone[number][0]), (last, alone[number][1])):
            assert mine == pytest.approx(yours, rel=1e-9)


def test_commands_after_a_training_do_not_know_where_its_rows_were() -> None:
    write("new.csv", 60, seed=9)
    said = []
    for folder, words in (("memory", []), ("disk", [ALL_ROWS])):
        run(folder, "test=true", *words)
        commands = (["predict", folder, "new.csv"], ["test", folder, "new.csv"], ["export", folder, "-o", "m.pt2"])
        said.append([command_line(*command) for command in commands])
        assert all(code == 0 for code, _ in said[-1]), said
    assert said[0] == said[1]
    assert weights("memory") == weights("disk")


def test_a_report_shows_the_same_figures() -> None:
    for folder, words in (("memory", []), ("disk", [ALL_ROWS])):
        run(folder, "report=true", *words)
    memory, disk = (sorted(Path(folder, "figures").rglob("*")) for folder in ("memory", "disk"))
    assert [path.name for path in memory] == [path.name for path in disk] != []
    for one, other in zip(memory, disk, strict=True):
        assert one.read_bytes() == other.read_bytes(), one


def limited(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Let this process have some bytes of memory."""
    sources._sources.clear()
    for module in (sources, cached_table):
        monkeypatch.setattr(module, "memory_limit", lambda: size)


def stopping(monkeypatch: pytest.MonkeyPatch, owner: type[Any], name: str, number: int) -> None:
    """Send SIGTERM before the n-th call of a method."""
    method: Callable[..., Any] = getattr(owner, name)
    calls = iter(range(1, 1 << 30))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)


SMALL, LARGE = 120_000, 1 << 40


@pytest.mark.parametrize("first", [SMALL, LARGE])
def test_another_memory_limit_changes_nothing_of_a_run_that_is_resumed(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose rows were in memory keeps them there, and one that has streamed them has buffers of the same size."""
    words = ["batch_size=50", "epochs=5"]
    limited(monkeypatch, first)
    assert ("read from disk" in run("whole", *words)) == (first == SMALL)
    with monkeypatch.context() as patch:
        owner, name, number = (BlockFile, "read", 11) if first == SMALL else (BatchIndices, "in_buffers", 4)
        stopping(patch, owner, name, number)
        code, said = command_line(*given([*TABLE, "data.drop=[k,z]", *words]), "hydra.run.dir=stopped")
        assert code == 143, said
    for other in (SMALL // 2, SMALL, LARGE):
        limited(monkeypatch, other)
        shutil.copytree("stopped", f"resumed{other}")
        code, said = command_line(f"resume=resumed{other}")
        assert code == 0, said
        assert weights(f"resumed{other}") == weights("whole"), other


def test_a_table_that_was_edited_is_not_trained_on_in_the_middle_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TABLE, "data.drop=[k,z]", SEVERAL, "batch_size=50", "hydra.run.dir=run"]
    with monkeypatch.context() as patch:
        stopping(patch, BlockFile, "read", 9)
        assert command_line(*words)[0] == 143
    write("t.csv", 2000, seed=1)
    code, said = command_line("resume=run")
    assert code == 1
    assert "the files of the table have changed since this run was begun" in said
    write("t.csv", 2000)
    assert command_line("cache", "clear", "--dir", "cache")[0] == 0
    assert command_line("resume=run", "retry_failed=true")[0] == 0  # converted anew
    run("whole", SEVERAL, "batch_size=50")
    assert weights("run") == weights("whole")


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_table_sorted_by_its_target_trains_nearly_as_well_as_one_that_is_shuffled(model: str) -> None:
    """Blocks are those of a table of millions of rows in small: 16 of 130 are in a buffer."""
    write("t.csv", 40_000, sort=True)
    words = ["seed=0,1,2,3", f"model={model}", "epochs=4", "batch_size=64", "lr=0.02"]
    with blocks_of(40_000 * 3 // 5 // 130, 16):
        memory, disk = swept("memory", *words), swept("disk", *words, "data.buffer_rows=1")
    for number, (_, last, _) in memory.items():
        for metric in ("train/loss", "val/loss"):
            assert disk[number][1][metric] == pytest.approx(last[metric], rel=0.02), number
