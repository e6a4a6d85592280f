"""Bundles: what comes back is what was written, and nothing else is believed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.errors import BundleError
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result
from holdfast.store.work_folder import WorkFolder
from holdfast.workers import bundle as bundles
from holdfast.workers.bundle import read_bundle, write_bundle
from holdfast.workers.packed import pack, unpack
from holdfast.workers.placing import adopt, place

CONFIG = compose([], CONF)
JOBS = [JobSpec(number, (f"lr={number}",), CONFIG, f"hash {number}") for number in (3, 4)]
PATHS = ("stacks/3.pt", "stacks/3.history", "3/best.ckpt", "3/result.json", "3/deep/er/file.txt", "4/train.log")
NAN_AND_ALL = {"val/loss": 0.1 + 0.2, "train/loss": float("nan"), "epoch": 3}


def result(job: JobSpec) -> Result:
    return Result("completed", list(job.overrides), job.config_hash, "val/loss", best=NAN_AND_ALL, epochs=4)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    (tmp_path / "sweep").mkdir()
    return SweepFolder(tmp_path / "sweep")


@pytest.fixture
def work(sweep: SweepFolder) -> WorkFolder:
    """The folder of a work that is done: job 3 has a result, job 4 an error."""
    folder = WorkFolder.of(sweep, 3)
    for path in (
        "stacks/3.pt",
        "stacks/3.history",
        "3/best.ckpt",
        "3/result.json",
        "3/deep/er/file.txt",
        "4/train.log",
    ):
        (folder.path / path).parent.mkdir(parents=True, exist_ok=True)
        (folder.path / path).write_bytes(path.encode() * 100)
    folder.lock.write_text("process 1")
    (folder.path / ".3.pt.77.part").write_text("half")
    write_bundle(folder, JOBS, {3: result(JOBS[0])}, {4: "out of luck"})
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def no_hydra_files(job: JobSpec) -> dict[str, bytes]:
    return {}


def test_a_bundle_says_what_was_written(work: WorkFolder) -> None:
    bundle = read_bundle(work)
    assert bundle is not None
    assert bundle.is_of(JOBS)
    assert not bundle.is_of(JOBS[:1])
    assert not bundle.is_of([JOBS[0], JOBS[1]._replace(config_hash="another")])
    assert repr(bundle.results[3]) == repr(result(JOBS[0]))  # NaN and the last bit among them
    assert bundle.errors == {4: "out of luck"}
    assert {file.path for file in bundle.files} == set(PATHS)


def test_files_are_placed_with_those_of_hydra_and_the_work_is_gone(work: WorkFolder, sweep: SweepFolder) -> None:
    bundle = read_bundle(work)
    assert bundle is not None
    before = files(work.path)
    place(work, bundle, sweep, [JOBS[1]], lambda job: {"train.log": b"", ".hydra/config.yaml": b"lr: 1"})
    assert not work.path.parent.exists()
    after = files(sweep.path)
    assert after.pop("4/.hydra/config.yaml") == b"lr: 1"
    assert after == {file.path: before[file.path] for file in bundle.files}


@pytest.mark.parametrize("moved", range(7))
def test_a_process_killed_while_it_places_is_followed_by_one_that_places_the_rest(
    moved: int, work: WorkFolder, sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = read_bundle(work)
    assert bundle is not None
    replace, left = os.replace, iter(range(moved))

    def killed(source: str, target: str) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt) if moved < 6 else nullcontext():
        place(work, bundle, sweep, [], no_hydra_files)
    monkeypatch.setattr(os, "replace", replace)
    if moved < 6:
        has_result = (sweep.path / "3/result.json").exists()
        assert not has_result
        again = read_bundle(work)
        assert again is not None
        place(work, again, sweep, [], no_hydra_files)
    assert set(files(sweep.path)) == {file.path for file in bundle.files}


def tear(work: WorkFolder) -> None:
    os.truncate(work.path / "stacks/3.pt", 10)


def alter(work: WorkFolder) -> None:
    content = bytearray((work.path / "3/best.ckpt").read_bytes())
    content[5] ^= 1
    (work.path / "3/best.ckpt").write_bytes(content)


def lose(work: WorkFolder) -> None:
    (work.path / "3/deep/er/file.txt").unlink()


def link(work: WorkFolder) -> None:
    target = work.path / "3/best.ckpt"
    elsewhere = work.path / "elsewhere"
    target.rename(elsewhere)
    target.symlink_to(elsewhere)


def link_folder(work: WorkFolder) -> None:
    (work.path / "3/deep").rename(work.path / "elsewhere")
    (work.path / "3/deep").symlink_to(work.path / "elsewhere")


@pytest.mark.parametrize("damage", [tear, alter, lose, link, link_folder], ids=lambda damage: damage.__name__)
def test_damaged_files_are_refused_and_nothing_is_placed(
    damage: Callable[[WorkFolder], None], work: WorkFolder, sweep: SweepFolder
) -> None:
    damage(work)
    bundle = read_bundle(work)
    assert bundle is not None
    with pytest.raises(BundleError, match=r"torn|altered|cannot be read|no ordinary file|is a link"):
        place(work, bundle, sweep, [], no_hydra_files)
    assert [path for path in sweep.path.rglob("*") if path.is_file() and work.path not in path.parents] == []


def edited(work: WorkFolder, edit: Callable[[dict[str, Any]], None]) -> None:
    told = json.loads(work.bundle.read_text())
    edit(told)
    work.bundle.write_text(json.dumps(told))


HOSTILE = [
    *("../../3/best.ckpt", "/etc/passwd", "3/../../x", "3//x", "3/./x", "", "3", "sweep.json", "works/3/x", "C:/x"),
    *("3/a\0b", "3\\x", ".lock", "stacks", "3/" + "x" * 2000, "\u0663/x"),
]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_outside_is_refused(path: str, work: WorkFolder) -> None:
    edited(work, lambda told: told["files"][0].update(path=path))
    with pytest.raises(BundleError, match="a file that it may not"):
        read_bundle(work)


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no files": lambda told: told.pop("files"),
    "another version": lambda told: told.update(version=2),
    "no result": lambda told: told["results"].clear(),
    "result and error": lambda told: told["errors"].update({"3": "x"}),
    "another result": lambda told: told["results"]["3"].update(config_hash="another"),
    "an unknown status": lambda told: told["results"]["3"].update(status="won"),
    "a result of text": lambda told: told["results"].update({"3": "text"}),
    "best of text": lambda told: told["results"]["3"].update(best="text"),
    "a size below zero": lambda told: told["files"][0].update(size=-1),
    "no digest": lambda told: told["files"][0].update(sha256="x"),
    "twice the same": lambda told: told["files"].append(told["files"][0]),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_altered_list_is_refused(name: str, work: WorkFolder) -> None:
    edited(work, EDITS[name])
    with pytest.raises(BundleError):
        read_bundle(work)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_a_list_that_is_none_is_refused(content: bytes, work: WorkFolder) -> None:
    work.bundle.write_bytes(content)
    with pytest.raises(BundleError, match="torn or altered"):
        read_bundle(work)
    work.bundle.unlink()
    assert read_bundle(work) is None


@pytest.mark.parametrize(("limit", "most"), [("MOST_FILES", 5), ("MOST_BYTES", 1000), ("MOST_LIST_BYTES", 50)])
def test_a_bundle_that_is_too_large_is_refused(
    limit: str, most: int, work: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, limit, most)
    with pytest.raises(BundleError, match="too large"):
        read_bundle(work)
    with pytest.raises(BundleError, match="too large"):
        write_bundle(work, JOBS, {3: result(JOBS[0])}, {4: ""})


def test_links_inside_become_files_and_others_are_left_out(work: WorkFolder, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("secret")
    (work.path / "3/inside.ckpt").symlink_to("best.ckpt")
    (work.path / "3/outside.txt").symlink_to(tmp_path / "outside.txt")
    (work.path / "3/nowhere").symlink_to("nowhere at all")
    (work.path / "3/folder").symlink_to(work.path / "stacks")
    os.mkfifo(work.path / "3/pipe")
    bundle = write_bundle(work, JOBS, {3: result(JOBS[0])}, {4: ""})
    paths = {file.path: file for file in bundle.files}
    assert paths["3/inside.ckpt"].sha256 == paths["3/best.ckpt"].sha256
    assert not {"3/outside.txt", "3/nowhere", "3/pipe", "3/folder/3.pt"} & paths.keys()


@pytest.mark.parametrize("size", [None, 1, 7, 4096])
def test_a_bundle_comes_back_from_bytes(size: int | None, work: WorkFolder, tmp_path: Path) -> None:
    whole = b"".join(pack(work))
    pieces = [whole] if size is None else [whole[at : at + size] for at in range(0, len(whole), size)]
    other = WorkFolder(tmp_path / "other" / "3")
    assert repr(unpack(pieces, other)) == repr(read_bundle(work))
    listed = {*files(work.path)} - {".lock", ".3.pt.77.part"}
    assert files(other.path) == {path: files(work.path)[path] for path in listed}


def test_bytes_that_are_torn_altered_or_too_many_are_refused(work: WorkFolder, tmp_path: Path) -> None:
    whole = b"".join(pack(work))
    broken = [whole[:cut] for cut in (0, 5, 20, 200, len(whole) - 1)] + [whole + b"x", b"x" + whole, whole[:-1] + b"?"]
    for number, content in enumerate(broken):
        other = WorkFolder(tmp_path / "other" / str(number))
        with pytest.raises(BundleError):
            unpack([content], other)
        assert read_bundle(other) is None
    other.path.mkdir(exist_ok=True)
    with pytest.raises(BundleError, match="exists already"):
        unpack([whole], other)


def test_a_work_goes_on_from_what_another_launcher_has_left(sweep: SweepFolder) -> None:
    (sweep.path / "3").mkdir()
    (sweep.path / "3/last.ckpt").write_text("last")
    sweep.stacks.mkdir()
    for file in sweep.stack(4):
        file.write_text(file.name)
    alone, stack = WorkFolder.of(sweep, 3), WorkFolder.of(sweep, 4)
    adopt(alone, sweep, JOBS[:1], stacked=False)
    adopt(stack, sweep, JOBS[1:], stacked=True)
    assert files(sweep.path) == {
        "works/3/3/last.ckpt": b"last",
        "works/4/stacks/4.pt": b"4.pt",
        "works/4/stacks/4.history": b"4.history",
    }
    (sweep.path / "3").mkdir()
    adopt(alone, sweep, JOBS[:1], stacked=False)
    assert (sweep.path / "3").exists()  # the folder of the work knows more
