from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.errors import FolderError
from holdfast.store.files import finite, remove_partial, replacing
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.lock import claim
from holdfast.store.result import Result
from holdfast.sweeps.keep import remove_folders

RESULT = Result(status="completed", overrides=[], config_hash="abc", metric="val/loss")


def test_fifty_runs_started_in_the_same_second_get_fifty_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        claimed = list(pool.map(lambda _: claim(tmp_path / "a" / "now", chosen=False), range(50)))
    assert len(set(claimed)) == 50
    assert {path.name for path in claimed} == {"now", *(f"now_{number}" for number in range(2, 51))}


def test_a_chosen_folder_with_files_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FolderError, match="already holds files"):
        claim(tmp_path, chosen=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_chosen_folder_is_used(tmp_path: Path) -> None:
    assert claim(tmp_path, chosen=True) == tmp_path


def test_the_error_names_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="file"):
        claim(tmp_path / "file" / "run", chosen=False)


def test_a_failed_write_leaves_only_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_a_file_is_visible_only_when_it_is_complete(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as stream:
        stream.write(b"new")
        stream.flush()
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"


def finished(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.best.write_bytes(os.urandom(64))
    folder.last.write_bytes(os.urandom(64))
    folder.commit(RESULT)
    return folder


def test_a_run_is_finished_if_its_result_its_config_hash_and_all_digests_match(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    assert folder.finished("abc")
    assert not folder.finished("abd")
    result = folder.read()
    assert result is not None
    assert set(result.sha256) == {"best.ckpt", "last.ckpt"}
    assert replace(result, sha256={}) == RESULT


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", "result.json"])
def test_a_run_with_a_missing_or_cut_file_is_not_finished(name: str, tmp_path: Path) -> None:
    finished(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for content in (b"", whole[:-2]):
        (tmp_path / name).write_bytes(content)
        assert not RunFolder(tmp_path).finished("abc")
    (tmp_path / name).unlink()
    assert not RunFolder(tmp_path).finished("abc")


def test_every_flipped_bit_of_a_file_is_detected(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    whole = folder.best.read_bytes()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        folder.best.write_bytes(flipped)
        assert not folder.finished("abc")


def test_json_holds_no_nan() -> None:
    assert finite({"a": [float("nan"), 1.0, float("-inf")], "b": {"c": float("inf")}}) == {
        "a": [None, 1.0, None],
        "b": {"c": None},
    }


OURS = [
    "best.ckpt",
    "last.ckpt",
    "model.pth",
    "descent.npy",
    "result.json",
    "run.json",
    "train.log",
    RunFolder.events_name(1.0, "host.domain"),
    "events.out.tfevents.test",
    "events.out.tfevents.report",
    ".hydra/config.yaml",
    ".hydra/hydra.yaml",
    ".hydra/overrides.yaml",
    "figures/fit.png",
    "experiment/events.out.tfevents.1.host.2.0.holdfast",
    ".best.ckpt.7.part",
]
THEIRS = [
    "events.out.tfevents.1.host.2.0",
    "metrics.csv",
    "notes.txt",
    "mine.part",
    ".mine.part",
    ".hydra/notes.yaml",
    "figures/mine.png",
    "experiment/mine.txt",
    "experiment/events.out.tfevents.1.host.2.0",
    "mine/best.ckpt",
    ".mine.7.part/file",
]


def written(path: Path, names: list[str]) -> None:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)


def files_in(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}


def test_removing_a_run_keeps_the_files_of_the_user(tmp_path: Path) -> None:
    for number, names in enumerate((OURS, [*OURS, *THEIRS])):
        written(tmp_path / str(number), names)
    remove_folders(SweepFolder(tmp_path), range(3), (), events=True)
    assert not (tmp_path / "0").exists()
    assert files_in(tmp_path / "1") == set(THEIRS)


def test_clearing_a_run_keeps_the_files_of_the_user(tmp_path: Path) -> None:
    written(tmp_path, [*OURS, *THEIRS])
    RunFolder(tmp_path).clear()
    assert set(THEIRS) <= files_in(tmp_path)
    assert RunFolder(tmp_path).curves() == [tmp_path / "events.out.tfevents.1.host.2.0"]


def test_the_target_of_a_link_is_not_removed(tmp_path: Path) -> None:
    written(tmp_path / "elsewhere", ["config.yaml", "fit.png", "events.out.tfevents.1.host.2.0.holdfast"])
    (tmp_path / "0").mkdir()
    for name in (".hydra", "figures", "experiment"):
        (tmp_path / "0" / name).symlink_to(tmp_path / "elsewhere")
    RunFolder(tmp_path / "0").remove()
    assert len(files_in(tmp_path / "elsewhere")) == 3


def test_curves_are_in_our_event_files_and_in_older_folders_in_all(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    written(tmp_path, ["events.out.tfevents.1.host.2.0", "events.out.tfevents.test", "events.out.tfevents.report"])
    assert [file.name for file in folder.curves()] == ["events.out.tfevents.1.host.2.0"]
    ours = folder.events(2.0, "host")
    ours.touch()
    assert folder.curves() == [ours]


def test_only_what_we_left_half_written_is_removed(tmp_path: Path) -> None:
    ours = [".a.ckpt.12.part", "..hidden.1.part"]
    theirs = ["a.part", ".a.part", ".a.ckpt.part", ".download.x.part", ".name.3.part/file", ".3.part/file"]
    written(tmp_path, [*ours, *theirs])
    remove_partial(tmp_path)
    assert files_in(tmp_path) == set(theirs)
