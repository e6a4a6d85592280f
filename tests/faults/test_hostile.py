"""Files that want to run something, and files that are not what they say: nothing is executed, nothing is believed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from holdfast.errors import CheckpointError
from holdfast.record.checkpoint import load
from holdfast.store.folders import RunFolder, SweepFolder
from tests.conftest import Ran, command_line

Run = Callable[..., Ran]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def payloads(mark: Path) -> list[Any]:
    """Ten things that, if they were executed, would leave a mark."""
    touch = f"touch {mark}"
    code = f"open({str(mark)!r}, 'w').close()"
    evil = [
        Payload(os.system, touch),
        Payload(eval, code),
        Payload(exec, code),
        Payload(__import__("subprocess").call, ["touch", str(mark)]),
        Payload(os.mkdir, str(mark)),
        Payload(__import__("shutil").copyfile, __file__, str(mark)),
        Payload(__import__("torch").save, {}, str(mark)),
        Payload(__import__("runpy").run_path, str(mark.with_suffix(".py"))),
        Payload(Path.touch, mark),
        Payload(__import__("numpy").savetxt, str(mark), [1.0]),
    ]
    mark.with_suffix(".py").write_text(code)
    return evil


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("forced", [False, True])
def test_no_payload_is_executed(number: int, forced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "mark"
    evil = payloads(mark)[number]
    torch.save({"state_dict": {"a": evil}, "holdfast": evil}, tmp_path / "zip.ckpt")
    torch.save(evil, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(evil))
    for name in ("zip.ckpt", "old.ckpt", "plain.ckpt"):
        with pytest.raises(CheckpointError, match=name):
            load(tmp_path / name)
    assert not mark.exists()


@pytest.mark.parametrize("number", range(10))
def test_no_command_that_loads_executes_a_payload(number: int, holdfast: Run, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    ran = holdfast("lr=0.01", "epochs=2", "report=false")
    ran.folder.result.unlink()
    evil = payloads(mark)[number]
    for file in (ran.folder.last, ran.folder.best, ran.folder.weights):
        torch.save({"state_dict": {}, "holdfast": evil, "epoch": evil}, file)
    again = command_line(f"resume={ran.folder.path}")
    assert again[0] == 1
    assert "could run anything" in again[1]
    swept = holdfast("-m", "lr=0.01,0.1", "epochs=2", "hydra.sweep.dir=sweep", "report=false")
    assert swept.code == 0
    sweep = SweepFolder(Path("sweep"))
    for job in (sweep.job(0), sweep.job(1)):
        torch.save(evil, job.weights)
        torch.save(evil, job.best)
    sweep.selection.unlink()
    sweep.test_ledger.unlink()
    command_line("report", "sweep")
    command_line("-m", "resume=sweep")
    assert not mark.exists()


HOSTILE = [
    ["data._target_=os.system"],
    ["model._target_=subprocess.call"],
    ["optimizer._target_=os.popen"],
    ["scheduler._target_=shutil.copyfile"],
    ["+callbacks.x={_target_: os.system}"],
    ["+callbacks.x={_target_: subprocess.call, args: [touch, mark]}"],
    ["+callbacks.x={a: {b: [{_target_: os.system}]}}"],
    ["+logger.x={_target_: os.mkdir, path: mark}"],
    ["++data={_target_: os.mkdir, path: mark}"],
    ["lr=${oc.env:HOME}"],
    ["lr=${oc.decode:0.1}"],
    ["data.noise=${hydra:runtime.cwd}"],
    ["hydra.searchpath=[file:///tmp]"],
    ["hydra.run.dir=elsewhere"],
    ["+hydra.callbacks.x={_target_: os.system}"],
    ["hydra/launcher=joblib"],
    ["hydra/sweeper=basic"],
    ["~model", "+model={_target_: os.system}"],
    ["experiment=../../../tmp/evil"],
    ["data=/etc/passwd"],
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_nothing_recorded_in_a_folder_is_executed(number: int, holdfast: Run, tmp_path: Path) -> None:
    evil = HOSTILE[number]
    ran = holdfast("lr=0.01", "epochs=2", "report=false")
    before = sorted(path.name for path in tmp_path.iterdir())
    for file in (ran.folder.started, ran.folder.result):
        told = json.loads(file.read_text())
        file.write_text(json.dumps({**told, "overrides": ["epochs=2", *evil]}))
    for name in ("overrides.yaml", "config.yaml", "hydra.yaml"):
        path = ran.folder.path / ".hydra" / name
        path.write_text(yaml.safe_dump(["epochs=2", *evil]) + "\n# !!python/object/apply:os.system [touch mark]\n")
    again = command_line(f"resume={ran.folder.path}")
    assert again[0] == 2, again
    assert "Traceback" not in again[1]
    assert command_line("report", str(ran.folder.path))[0] == 0
    shutil.rmtree(ran.folder.path / "figures", ignore_errors=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not list(tmp_path.rglob("mark"))


def saved(folder: Path) -> Path:
    path = folder / "a.ckpt"
    torch.save({"state_dict": {"w": torch.arange(40.0), "b": torch.ones(3)}, "epoch": 3}, path)
    return path


def test_every_flipped_byte_of_a_tensor_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as parts:
        places = [place for part in parts.infolist() if "/data/" in part.filename for place in _bytes_of(whole, part)]
    assert len(places) == 4 * 43
    for place in places:
        for bit in range(8):
            flipped = bytearray(whole)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError, match="altered"):
                load(path)


def _bytes_of(whole: bytes, part: zipfile.ZipInfo) -> range:
    name, extra = (
        int.from_bytes(whole[part.header_offset + at : part.header_offset + at + 2], "little") for at in (26, 28)
    )
    first = part.header_offset + 30 + name + extra
    return range(first, first + part.file_size)


BROKEN: dict[str, tuple[Callable[[bytes], bytes | None], str]] = {
    "missing": (lambda whole: None, "No such file"),
    "empty": (lambda whole: b"", "it is empty"),
    "garbage": (lambda whole: b"garbage" * 100, "incomplete, or was not written by torch.save"),
    "truncated": (lambda whole: whole[: len(whole) // 2], "incomplete, or was not written by torch.save"),
    "cut at its end": (lambda whole: whole[:-10], "incomplete, or was not written by torch.save"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_named_with_what_is_wrong(how: str, tmp_path: Path) -> None:
    path = saved(tmp_path)
    breaking, why = BROKEN[how]
    content = breaking(path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=why) as error:
        load(path)
    assert str(path) in str(error.value)


def test_a_foreign_checkpoint_and_an_address_are_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="holds a list"):
        load(tmp_path / "list.ckpt")
    with pytest.raises(CheckpointError, match="download it first"):
        load("http://127.0.0.1/a.ckpt")
    with pytest.raises(CheckpointError, match="its digest differs"):
        load(saved(tmp_path), sha256="0" * 64)


@pytest.mark.parametrize("how", [name for name in BROKEN if name != "missing"])
def test_a_run_with_a_broken_checkpoint_says_so(how: str, holdfast: Run) -> None:
    ran = holdfast("lr=0.01", "epochs=2")
    ran.folder.result.unlink()
    content = BROKEN[how][0](ran.folder.last.read_bytes())
    assert content is not None
    ran.folder.last.write_bytes(content)
    code, said = command_line(f"resume={ran.folder.path}")
    assert (code, "Traceback" in said) == (1, False)
    assert "last.ckpt cannot be read" in said
    assert not RunFolder(ran.folder.path).result.exists()


# a module of the standard library that Python itself imports before it runs `-m holdfast` is out of our reach
MODULES = ("lightning", "torch", "jinja2", "matplotlib", "tensorflow", "logging", "typing", "gc", "signal", "hydra")


@pytest.fixture(scope="module")
def left_behind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's folder with modules in it that leave a mark when they are imported."""
    folder = tmp_path_factory.mktemp("left") / "sweep"
    swept = command_line("-m", "lr=0.01", "epochs=1", "report=false", f"hydra.sweep.dir={folder}")
    assert swept[0] == 0, swept
    deep = folder / "figures"  # which may hold a project, too
    for name in ("conf/model", "conf/data"):
        (deep / name).mkdir(parents=True)
    (deep / "conf/project.yaml").write_text("defaults: [config, {override model: mine}]\n")
    (deep / "conf/model/mine.yaml").write_text("_target_: evil.Mine\n")
    for path in (folder, folder / "0", deep):
        for name in (*MODULES, "evil"):
            (path / f"{name}.py").write_text(f"open({str(folder.parent / 'executed')!r}, 'w')")
    return folder


SAFE_PATH = pytest.mark.skipif(sys.version_info < (3, 11), reason="python -P came with 3.11")
STARTS = {
    "holdfast": [str(Path(sys.executable).with_name("holdfast"))],
    "python -m holdfast": [sys.executable, "-m", "holdfast"],
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("inside", "named"), [(".", "."), (".", "0"), ("0", "."), ("figures", "..")])
def test_modules_in_a_folder_that_was_left_behind_are_not_imported(
    start: str, inside: str, named: str, left_behind: Path
) -> None:
    executed = left_behind.parent / "executed"
    executed.unlink(missing_ok=True)
    done = subprocess.run([*STARTS[start], "report", named], cwd=left_behind / inside, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not executed.exists()


@pytest.mark.parametrize("start", STARTS)
def test_modules_of_the_users_own_are_found_but_not_in_the_place_of_a_library(start: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from holdfast.model import Linear\nclass Mine(Linear): pass")
    (tmp_path / "typing.py").write_text("raise RuntimeError('imported in the place of the library')")
    words = ["epochs=1", "model._target_=mine.Mine", "hydra.run.dir=run"]
    done = subprocess.run([*STARTS[start], *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("flags", [[], pytest.param(["-P"], marks=SAFE_PATH)])
def test_a_folder_that_the_user_put_on_the_path_stays_there(flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise RuntimeError('from PYTHONPATH')")
    command = [sys.executable, *flags, "-m", "holdfast", "--help"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "from PYTHONPATH" in done.stderr
