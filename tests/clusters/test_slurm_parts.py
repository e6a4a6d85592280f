"""The parts of `hydra/launcher=slurm` that need no SLURM: keys, batch scripts, records, and how an end is judged."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from holdfast.clusters import slurm_keys
from holdfast.clusters.slurm_keys import SlurmKeys, check_installation, check_slurm_keys
from holdfast.clusters.slurm_note import Note, read_note
from holdfast.clusters.slurm_queue import Element, Shown, parse
from holdfast.clusters.slurm_record import SlurmRecord, WorkKey
from holdfast.clusters.slurm_script import ArrayJob, script
from holdfast.clusters.slurm_watch import judge
from holdfast.config.job import JobSpec
from holdfast.errors import FolderError, Stopped
from holdfast.execute.work import Work
from holdfast.store.files import write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.work_folder import WorkFolder
from tests.conftest import command_line

INVALID = {
    "partition": ["", 3, "a\nb"],
    "time": [0, -1, 1.5, "soon", "1:2:3:4", True],
    "gpus_per_task": [-1, "two", True],
    "cpus_per_task": [0, 1.5],
    "mem": ["8 gigs", 8, ""],
    "array_parallelism": [0, None, "all"],
    "setup": ["module load cuda", [1], ["a\nb"]],
    "wait": ["no", 1],
    "additional": [
        [1],
        {"array": "0-9"},
        {"job_name": "mine"},
        {"mem": "8GB"},
        {"Account": "x"},
        {"account": None},
        {"a": "b\nc"},
    ],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in INVALID.items() for value in values])
def test_a_key_that_cannot_work_is_a_short_lesson(name: str, value: object) -> None:
    (problem,) = check_slurm_keys(SlurmKeys(**{name: value}))
    assert problem.override.startswith(f"hydra.launcher.{name}")
    assert problem.lesson


def test_keys_that_can_work_pass() -> None:
    for time in (None, 5, "30", "2:00:00", "1-12:00:00"):
        keys = SlurmKeys("gpu", time, 1, 4, "8GB", 16, ["module load cuda"], {"account": "me", "exclusive": True})
        assert check_slurm_keys(keys) == []


def test_without_submitit_or_without_slurm_nothing_is_begun(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(slurm_keys.importlib.util, "find_spec", lambda name: None)
    missing, no_slurm = check_installation()
    assert "pip install 'holdfast[slurm]'" in missing.lesson
    code, said = command_line("-m", "hydra/launcher=slurm", "lr=0.1,-1", "hydra.sweep.dir=no")
    assert code == 2
    assert "there is no sbatch and no squeue here" in said
    assert no_slurm.lesson in said
    assert "lr=-1" in said
    assert not (tmp_path / "no").exists()


def test_the_script_asks_for_what_the_keys_say(tmp_path: Path) -> None:
    keys = SlurmKeys("gpu", "1-0", 2, 4, "8GB", 3, ["module load cuda"], {"account": "me", "exclusive": True})
    job = ArrayJob("holdfast-a-0", tmp_path / "wo rks", tmp_path / "logs", [(0, "aa"), (12, "bb")])
    lines = script(keys, job).splitlines()
    options = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert options == {
        *("--account=me", "--exclusive", "--partition=gpu", "--time=1-0", "--gpus-per-task=2", "--cpus-per-task=4"),
        *("--mem=8GB", "--array=0-1%2", "--job-name=holdfast-a-0", "--nodes=1", "--ntasks-per-node=1"),
        *(f"--output={tmp_path}/logs/%A_%a.log", "--open-mode=append"),
    }
    assert lines.index("export OMP_NUM_THREADS=1") < lines.index("module load cuda")
    words = shlex.split("\n".join(lines[lines.index("module load cuda") :]), comments=True)
    assert words[-3:] == [str(tmp_path / "wo rks"), "0:aa", "12:bb"]
    assert "srun" not in words


def test_several_processes_are_tasks_of_slurm(tmp_path: Path) -> None:
    job = ArrayJob("holdfast-a-0", tmp_path, tmp_path, [(0, "aa")], tasks=2)
    text = script(SlurmKeys(gpus_per_task=1, cpus_per_task=3), job)
    assert "#SBATCH --ntasks-per-node=2" in text
    assert "#SBATCH --gpus-per-node=2" in text
    assert "exec srun --unbuffered --kill-on-bad-exit=1 --cpus-per-task=3 --gpu-bind=none " in text


def test_what_squeue_prints_is_read() -> None:
    text = (
        "holdfast-a-0|7|0|RUNNING|0|None|\nholdfast-a-0|7|1|FAILED|9|None|\nholdfast-a-0|7|2|FAILED|35072|None|\n\nx\n"
    )
    shown = parse(text)
    assert shown[Element("holdfast-a-0", 0)].is_alive
    assert [each.exit_code for each in shown.values()] == [0, -9, -9]  # 137 is how srun tells of a signal


STOPPED = Note("stopped", "stopped by SIGTERM")


@pytest.mark.parametrize(
    ("state", "code", "note", "kind"),
    [
        ("CANCELLED", 15, STOPPED, "stopped"),
        ("TIMEOUT", 0, None, "stopped"),
        ("PREEMPTED", 0, STOPPED, "stopped"),
        ("FAILED", 143, STOPPED, "stopped"),
        ("FAILED", -9, None, "died"),
        ("FAILED", -11, None, "crashed"),
        ("FAILED", 7, None, "crashed"),
        ("OUT_OF_MEMORY", -9, None, "died"),
        ("NODE_FAIL", 0, None, "died"),
        ("COMPLETED", 0, None, "died"),
        (None, 0, None, "died"),
        (None, 0, STOPPED, "stopped"),
    ],
)
def test_how_an_end_without_a_result_is_judged(state: str | None, code: int, note: Note | None, kind: str) -> None:
    shown = None if state is None else Shown("7", state, code, "None")
    assert judge(shown, note).kind == kind


def test_an_element_that_did_not_begin_has_not_crashed() -> None:
    ending = judge(Shown("7", "FAILED", 127, "NonZeroExitCode"), None, began=False)
    assert (ending.kind, ending.reason) == ("died", "did not begin (exit code 127)")


def test_a_pending_element_names_what_keeps_it_from_starting() -> None:
    assert Shown("7", "PENDING", 0, "PartitionTimeLimit").obstacle == "PartitionTimeLimit"
    assert Shown("7", "PENDING", 0, "Priority").obstacle is None
    assert Shown("7", "RUNNING", 0, "None").obstacle is None


def test_a_note_is_written_once_and_read_with_care(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path)
    assert read_note(folder) is None
    Note.of(MemoryError()).write(folder)
    Note.of(Stopped(15)).write(folder)  # another process of the element, later
    note = read_note(folder)
    assert note is not None
    assert note.kind == "memory"
    assert isinstance(note.as_error(), MemoryError)
    for content in (b"", b"[]", b'{"kind": "worse", "error": ""}', b'{"kind": "other"}', b"\xff"):
        folder.failure.write_bytes(content)
        assert read_note(folder) is None
    assert Note.of(Stopped(15)) == Note("stopped", "stopped by SIGTERM")
    assert Note.of(FolderError("in use")).kind == "stopped"


# ---------------------------------------------------------------- what sweep.json records


def jobs(*numbers: int) -> tuple[JobSpec, ...]:
    nothing: Any = None  # a record asks for numbers only
    return tuple(JobSpec(number, (f"lr={number}",), nothing, "h") for number in numbers)


@pytest.fixture
def sweep(tmp_path: Path) -> SweepFolder:
    folder = SweepFolder(tmp_path)
    job = {"overrides": [], "config_hash": "h", "data": "d"}
    record = {"overrides": [], "config": {}, "mode": "min", "metric": "val/loss", "jobs": [job]}
    write_json(folder.sweep, {**record, "plan": {"launcher": "slurm"}})
    return folder


def test_arrays_are_recorded_before_they_have_a_number(sweep: SweepFolder) -> None:
    record = SlurmRecord(sweep)
    stack, alone = Work("stack", jobs(0, 1, 2)), Work("alone", jobs(3))
    first = record.add([stack, alone])
    assert SlurmRecord(sweep).arrays == [first]
    assert first.number is None
    record.set_number(first, "12")
    second = record.add([alone])
    again = SlurmRecord(sweep)
    assert [array.number for array in again.arrays] == ["12", None]
    assert again.elements() == {WorkKey.of(stack): Element(first.name, 0), WorkKey.of(alone): Element(second.name, 0)}
    record.remove(second)
    assert [array.number for array in SlurmRecord(sweep).arrays] == ["12"]
    assert json.loads(sweep.sweep.read_text())["plan"] == {"launcher": "slurm"}


def test_a_stack_that_was_given_up_is_waited_for_as_it_was_submitted_last(sweep: SweepFolder) -> None:
    record = SlurmRecord(sweep)
    stack = Work("stack", jobs(0, 1, 2, 3), by_steps=True)
    assert record.as_submitted(stack) == [stack]
    record.add([stack])
    assert record.as_submitted(stack) == [stack]
    halves = [stack._replace(jobs=jobs(0, 1)), stack._replace(jobs=jobs(2, 3))]
    record.add(halves)
    assert record.as_submitted(stack) == halves
    alone = [Work("alone", jobs(number)) for number in (2, 3)]
    record.add(alone)
    assert record.as_submitted(stack) == [halves[0], *alone]
    assert record.as_submitted(Work("alone", jobs(0))) == [Work("alone", jobs(0))]  # it is in no stack any more


@pytest.mark.parametrize(
    "entries",
    [
        [{}],
        [3],
        [{"name": "--help", "array": None, "works": []}],
        [{"name": "holdfast-0123456789ab-0", "array": "1; reboot", "works": []}],
        [{"name": "holdfast-0123456789ab-0", "array": "1", "works": [{"kind": "other", "jobs": [0]}]}],
        [{"name": "holdfast-0123456789ab-0", "array": "1", "works": [{"kind": "alone", "jobs": "x"}]}],
    ],
)
def test_a_record_that_holdfast_has_not_written_is_refused(sweep: SweepFolder, entries: list[object]) -> None:
    write_json(sweep.sweep, {**json.loads(sweep.sweep.read_text()), "slurm": entries})
    with pytest.raises(FolderError, match=r"sweep\.json cannot be read"):
        SlurmRecord(sweep)
