"""Full disks, files that change while they are read, damaged caches: a clear error, and nothing wrong is trained."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest
import torch

from holdfast.caching import cached_table, reading, sources
from holdfast.caching.cache_folder import CacheFolder
from holdfast.caching.encoded_rows import RowEncoder
from holdfast.caching.raw_columns import RawColumns
from holdfast.data.blocks import BlockFile, BlockWriter
from holdfast.store.folders import RunFolder
from holdfast.tables import chunks, reader
from tests.conftest import ROOT, command_line
from tests.data.on_disk import blocks_of
from tests.full import some

RUN = ["data=table", "data.target=y", "epochs=2", "report=false", "batch_size=50", "data.cache_dir=cache"]
STREAMED = [*RUN, "data.path=t.csv", "data.buffer_rows=400"]


def table(seed: int = 0, rows: int = 2000) -> str:
    draw = np.random.default_rng(seed)
    lines = ["a,b,c,y"]
    for a, b, c in zip(draw.normal(size=rows), draw.integers(0, 9, rows), draw.integers(0, 5, rows), strict=True):
        lines.append(f"{a:.4f},{b},level {c},{2 * a - 0.3 * b + draw.normal():.3f}")
    return "\n".join(lines) + "\n"


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table in an empty folder, of many pieces, blocks and buffers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "CHUNK", 3000)
    monkeypatch.setattr(reader, "_ROWS", 100)
    Path("t.csv").write_text(table())
    with blocks_of(100, 2):
        yield


def before_call(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, act: Callable[[], object]) -> None:
    """Do something once, before the n-th call of a method."""
    method, calls = getattr(owner, name), iter(range(1, 1 << 30))

    def changed(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            act()
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, changed)


def weights(folder: str) -> dict[str, bytes]:
    loaded = torch.load(RunFolder(Path(folder)).weights, weights_only=True)
    return {name: value.numpy().tobytes() for name, value in loaded.items()}


def given(words: Sequence[str]) -> list[str]:
    """Overrides, of which the last one for a key counts."""
    return list({word.partition("=")[0]: word for word in words}.values())


def trained(*words: str) -> str:
    """Train in a new folder; all that was printed."""
    number = len(list(Path().glob("run*")))
    code, said = command_line(*given(words), f"hydra.run.dir=run{number}")
    assert code == 0, said
    return said


def refused(*words: str) -> str:
    """A training that does not end well; its message. No result and no weights are left."""
    shutil.rmtree("bad", ignore_errors=True)
    code, said = command_line(*given(words), "hydra.run.dir=bad")
    assert code in (1, 2), said
    assert "Traceback" not in said
    result = RunFolder(Path("bad")).read()
    assert result is None or result.status == "failed"
    return said


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The weights of a training that nothing disturbs."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("expected")
    os.chdir(folder)
    try:
        Path("t.csv").write_text(table())
        with blocks_of(100, 2):
            trained(*STREAMED)
        return weights("run0")
    finally:
        os.chdir(before)


@contextmanager
def small_disk(kilobytes: int) -> Iterator[Path]:
    """A file system of a few kilobytes, in `disk`."""
    disk = Path("disk").resolve()
    disk.mkdir()
    if shutil.which("mount") is None or mount(disk, kilobytes).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def mount(disk: Path, kilobytes: int, *more: str) -> subprocess.CompletedProcess[bytes]:
    command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={kilobytes}k", *more]), "tmpfs", str(disk)]
    return subprocess.run(command, capture_output=True)


# The file of doubles takes 64 KB, the encoded rows take 90 KB.


def test_too_little_room_is_noticed_before_it_begins() -> None:
    with small_disk(40) as disk:
        said = refused(*STREAMED, f"data.cache_dir={disk}/cache")
        assert "to convert t.csv takes about 0.1 MB" in said
        assert f"holdfast cache list --dir {disk}/cache shows what can go" in said
        assert not list(disk.rglob("raw"))
        assert command_line("cache", "clear", "--dir", f"{disk}/cache")[0] == 0
        assert not list(disk.iterdir())


@pytest.mark.parametrize("kilobytes", some([16, 40, 76, 100, 140], 2))
def test_a_full_disk(kilobytes: int, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]) -> None:
    with small_disk(kilobytes) as disk:
        words = [*STREAMED, f"data.cache_dir={disk}/cache"]
        with monkeypatch.context() as patch:  # another process may take the room that was there
            patch.setattr(CacheFolder, "check_free", lambda *_: None)
            patch.setattr(reading, "_SECONDS", 0.0)
            said = refused(*words)
        assert "No space left on device" in said
        assert f"{disk}/cache" in said
        assert not list(disk.rglob("table.json"))
        assert "not complete" in command_line("cache", "list", "--dir", f"{disk}/cache")[1]
        assert mount(disk, 1000, "remount").returncode == 0
        assert "rows converted" in trained(*words)
        assert weights("run0") == expected


@pytest.mark.parametrize("kilobytes", some([1, 4, 30, 48, 60], 2))
def test_files_that_may_not_grow(kilobytes: int, expected: dict[str, bytes]) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes << 10, before[1]))
    try:
        said = refused(*STREAMED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written: File too large" in said
    trained(*STREAMED)
    assert weights("run0") == expected


def append() -> None:
    with Path("t.csv").open("a") as file:
        file.write("1,2,level 0,3\n")


def edit() -> None:
    content = Path("t.csv").read_text()
    Path("t.csv").write_text(content.replace("level 1", "level 0"))


def replace() -> None:
    Path("new.csv").write_text(table(1))
    Path("new.csv").replace("t.csv")


CHANGES: dict[str, Callable[[], object]] = {
    "longer": append,
    "edited": edit,
    "replaced": replace,
    "cut off": lambda: os.truncate("t.csv", 30_000),
    "cut in a line": lambda: os.truncate("t.csv", 30_003),
    "emptied": lambda: os.truncate("t.csv", 0),
    "gone": lambda: Path("t.csv").unlink(),
}
MOMENTS: dict[str, tuple[type[Any], str, int]] = {
    "reading": (RawColumns, "append", 4),
    "measuring": (RawColumns, "read", 5),
    "writing": (RowEncoder, "raw", 3),
    "finishing": (BlockWriter, "finish", 3),
}


@pytest.mark.parametrize(("change", "moment"), some(itertools.product(CHANGES, MOMENTS), 3))
def test_a_file_that_changes_while_it_is_converted(
    change: str, moment: str, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    owner, name, number = MOMENTS[moment]
    with monkeypatch.context() as patch:
        before_call(patch, owner, name, number, CHANGES[change])
        said = refused(*STREAMED)
    assert "t.csv" in said
    assert not Path("cache").exists()
    if moment != "reading":
        assert ("t.csv cannot be read" if change == "gone" else "t.csv has changed while it was read") in said
    Path("t.csv").write_text(table())
    assert "rows converted" in trained(*STREAMED)
    assert weights("run0") == expected


def test_a_file_that_was_another_one_when_its_conversion_was_killed(
    monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    """Half of the file is read, then another content, then the process dies, and the file is what it was before."""
    content, state = Path("t.csv").read_bytes(), Path("t.csv").stat()
    other = content.replace(b"level 1", b"level 0")
    assert len(other) == len(content)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_SECONDS", 0.0)
        before_call(patch, RawColumns, "append", 4, lambda: Path("t.csv").write_bytes(other))
        before_call(patch, RawColumns, "append", 12, lambda: os.kill(os.getpid(), 15))
        assert command_line(*STREAMED, "hydra.run.dir=killed")[0] == 143
    Path("t.csv").write_bytes(content)
    os.utime("t.csv", ns=(state.st_atime_ns, state.st_mtime_ns))
    trained(*STREAMED)
    assert weights("run0") == expected


@pytest.mark.parametrize(
    ("suffix", "change"), some(itertools.product([".csv.gz", ".parquet"], ["replaced", "cut off", "gone"]), 2)
)
def test_other_files_that_change(suffix: str, change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(f"t{suffix}")

    def write(seed: int) -> None:
        if suffix == ".parquet":
            Path("part.csv").write_text(table(seed))
            pq.write_table(pv.read_csv("part.csv"), path, row_group_size=300)
        else:
            path.write_bytes(gzip.compress(table(seed).encode()))

    write(0)
    changes = {"replaced": lambda: write(1), "cut off": lambda: os.truncate(path, 9000), "gone": path.unlink}
    before_call(monkeypatch, RawColumns, "append", 3, changes[change])
    said = refused(*RUN, "data.buffer_rows=400", f"data.path={path}")
    assert str(path) in said
    assert not Path("cache").exists()


def cached() -> Path:
    """The folder of the one table in the cache."""
    (about,) = Path("cache").glob("*/about.json")
    return about.parent


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path, at: int | None = None) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 4
    file.write_bytes(content)


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"more")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": cut,
    "a bit": flip,
    "longer": lengthen,
    "empty": lambda file: os.truncate(file, 0),
    "gone": Path.unlink,
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
}


@pytest.mark.parametrize(
    ("damage", "name"), some(itertools.product(DAMAGES, ["train.rows", "val.rows", "test.rows"]), 4)
)
def test_damaged_rows(damage: str, name: str, expected: dict[str, bytes]) -> None:
    trained(*STREAMED)
    DAMAGES[damage](cached() / name)
    sources._sources.clear()  # as another process
    said = refused(*STREAMED, "test=true")
    assert str(cached() / name) in said
    assert "holdfast cache clear" in said
    code, text = command_line("cache", "clear", "--dir", "cache")
    assert (code, "removed: " in text) == (0, True)
    sources._sources.clear()
    trained(*STREAMED, "test=true")
    assert weights("run1") == expected


@pytest.mark.parametrize("damage", some(["cut off", "empty", "zeros", "longer"], 2))
def test_a_damaged_description(damage: str) -> None:
    trained(*STREAMED)
    DAMAGES[damage](cached() / "table.json")
    sources._sources.clear()
    assert "holdfast cache clear" in refused(*STREAMED)
    assert command_line("cache", "clear", "--dir", "cache")[0] == 0
    assert not Path("cache").exists()


def test_a_description_that_is_gone(expected: dict[str, bytes]) -> None:
    trained(*STREAMED)
    (cached() / "table.json").unlink()
    sources._sources.clear()
    assert "rows converted" in trained(*STREAMED)
    assert weights("run1") == expected


def test_any_other_digit_in_a_description_is_noticed(expected: dict[str, bytes]) -> None:
    """A flipped bit may make another digit of one, such as in a mean that predictions are made with."""
    trained(*STREAMED)
    file = cached() / "table.json"
    content = file.read_bytes()
    places = [at for at, byte in enumerate(content) if chr(byte).isdigit()]
    wrong = []
    for at in places[:: max(1, len(places) // 25)]:
        file.write_bytes(content)
        flip(file, at)
        try:
            json.loads(file.read_bytes())
            keys = {**dict.fromkeys(sources.TABLE_KEYS), "path": "t.csv", "target": "y", "drop": []}
            keys.update({"fractions": [0.6, 0.2, 0.2], "task": "auto", "seed": 0, "standardise": True})
            table = cached_table.CachedTable(keys, "cache")
            for split in ("train", "val"):
                table.rows_of(split, 400)[:]
        except Exception:
            continue
        wrong.append((at, content[max(0, at - 20) : at + 10]))
    assert not wrong


@pytest.mark.parametrize(
    ("damage", "name"), some(itertools.product(["cut off", "a bit", "gone", "zeros"], ["train.rows", "val.rows"]), 3)
)
def test_rows_that_are_damaged_while_they_are_trained_on(
    damage: str, name: str, monkeypatch: pytest.MonkeyPatch, expected: dict[str, bytes]
) -> None:
    trained(*STREAMED)
    before_call(monkeypatch, BlockFile, "read", 20, lambda: DAMAGES[damage](cached() / name))
    said = refused(*STREAMED, "epochs=20")
    assert name in said
    assert "holdfast cache clear" in said


def test_a_cache_that_is_cleared_while_it_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before_call(monkeypatch, BlockFile, "read", 20, lambda: command_line("cache", "clear", "--dir", "cache"))
    assert "the file has vanished" in refused(*STREAMED, "epochs=20")


def test_two_processes_convert_a_table_at_once(expected: dict[str, bytes]) -> None:
    Path("t.csv").write_text(table(rows=100_000))
    words = [*RUN, "data.path=t.csv", "data.buffer_rows=65536", "batch_size=5000"]
    commands = [
        [sys.executable, str(ROOT / "train.py"), *given(words), f"hydra.run.dir=both{number}"] for number in range(2)
    ]

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        ran = list(pool.map(run, commands))
    assert [each.returncode for each in ran] == [0, 0], ran
    assert sum("rows converted" in each.stdout for each in ran) == 1
    assert weights("both0") == weights("both1")
    assert len(list(Path("cache").glob("*/table.json"))) == 1


def test_a_cache_that_cannot_be_written() -> None:
    Path("cache").write_text("a file")
    assert "cannot be made" in refused(*STREAMED)
    assert "cannot be made" in refused(*STREAMED, "data.cache_dir=t.csv/cache")


def test_a_cache_that_is_read_only(expected: dict[str, bytes]) -> None:
    with small_disk(1000) as disk:
        assert mount(disk, 1000, "remount", "ro").returncode == 0
        said = refused(*STREAMED, f"data.cache_dir={disk}/cache")
        assert "Read-only file system" in said
        assert mount(disk, 1000, "remount", "rw").returncode == 0
        trained(*STREAMED, f"data.cache_dir={disk}/cache")
        assert mount(disk, 1000, "remount", "ro").returncode == 0
        sources._sources.clear()
        assert "rows converted" not in trained(*STREAMED, f"data.cache_dir={disk}/cache")
        assert weights("run1") == expected


def test_what_is_converted_again() -> None:
    assert "rows converted" in trained(*STREAMED)
    assert "rows converted" not in trained(*STREAMED, "lr=0.05", "data.buffer_rows=700")
    sources._sources.clear()
    os.utime("t.csv")  # touched
    assert "rows converted" not in trained(*STREAMED)
    shutil.copy("t.csv", "copy.csv")
    assert "rows converted" not in trained(*STREAMED, "data.path=copy.csv")
    for words in (
        ["data.drop=[a]"],
        ["data.seed=1"],
        ["data.standardise=false"],
        ["data.target=b", "data.task=regression"],
    ):
        assert "rows converted" in trained(*STREAMED, *words)
        assert "rows converted" not in trained(*STREAMED, *words)
    Path("t.csv").write_text(table(1))
    assert "rows converted" in trained(*STREAMED)
    Path("t.csv").write_text(table())
    assert "rows converted" not in trained(*STREAMED)
    listed = command_line("cache", "list", "--dir", "cache")[1]
    assert len(listed.splitlines()) == 6
    assert listed.count("2,000 rows  t.csv") == 6


def test_an_edit_that_keeps_size_and_time() -> None:
    trained(*STREAMED)
    state = Path("t.csv").stat()
    content = Path("t.csv").read_text()
    Path("t.csv").write_text(content.replace("level 1", "level 0"))
    os.utime("t.csv", ns=(state.st_atime_ns, state.st_mtime_ns))
    sources._sources.clear()
    assert "rows converted" in trained(*STREAMED)


def test_damaged_digests_change_nothing(expected: dict[str, bytes]) -> None:
    trained(*STREAMED)
    for content in ("", "[]", "{}", '{"x": 3}', "null", json.dumps({str(Path("t.csv").resolve()): [None]})):
        Path("cache/digests.json").write_text(content)
        sources._sources.clear()
        trained(*STREAMED)
    assert weights("run6") == expected
