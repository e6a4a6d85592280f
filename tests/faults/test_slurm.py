"""Elements of SLURM that die or are ended, and drivers that are killed meanwhile: see `docs/reliability.md`.

By default a sample; HOLDFAST_FAULTS=all, as in CI, tries everything.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.clusters import slurm_queue, slurm_submission
from holdfast.clusters.slurm_record import SlurmRecord
from holdfast.store.folders import SweepFolder
from holdfast.store.work_folder import WorkFolder
from holdfast.workers.bundle import Bundle, read_bundle
from tests.clusters.slurm_sweeps import (
    NEEDS_SLURM,
    SLURM,
    arrays,
    in_folder,
    resumed,
    resuming,
    scancel,
    started,
    states,
    swept,
    wait_for,
)
from tests.conftest import command_line
from tests.full import IN_FULL, some
from tests.workers.damages import alter, cut_the_list, tear
from tests.workers.swept import FLAGS, MODULES, same

pytestmark = NEEDS_SLURM

TO_RESUME = "Nothing was concluded; to resume: python train.py --config-dir my_conf -m resume="
_numbers = iter(range(10_000))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with in_folder(tmp_path_factory.mktemp("slurm_faults")) as path:
        yield path


class Sleeping:
    """A sweep of two jobs, of which the second sleeps in its second epoch, once."""

    def __init__(self, harm: str = "sleep") -> None:
        self.name = f"sweep_{next(_numbers)}"
        self.sweep, self.mark = SweepFolder(Path(self.name)), Path(f"{self.name}.sleeps")
        jobs = ["model=alone", "epochs=3", f"model.harm='',{harm}", f"model.once={self.mark}"]
        self.words = [*jobs, "sweep.stack=never"]

    @property
    def element(self) -> str:
        """The element of the job that sleeps."""
        return f"{arrays(self.sweep)[0]}_1"

    def sleeps(self) -> bool:
        """Whether the job sleeps."""
        return self.mark.exists()

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start the sweep in a process of its own."""
        return started(self.name, *self.words, SLURM, *words)

    def submit(self, *words: str) -> str:
        """Submit the sweep and leave; returns what was said."""
        code, said, _ = swept(self.name, *self.words, SLURM, "hydra.launcher.wait=false", *words)
        assert code == 0, said
        return said

    def is_whole(self) -> None:
        """Check that the sweep has the result of one that nothing happened to."""
        assert not (self.sweep.path / "works").exists()
        same(self.sweep, self.words)


def processes_of(element: str) -> list[int]:
    """The processes of an element."""
    array, _, number = element.partition("_")
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={number}".encode()} <= {*variables}:
            pids.append(int(path.parent.name))
    return pids


def kill(element: str) -> None:
    for pid in processes_of(element):
        os.kill(pid, signal.SIGKILL)


# ---------------------------------------------------------------- elements


def test_an_element_that_is_killed_is_tried_once_more(folder: Path) -> None:
    sleeping = Sleeping()
    sleeping.submit()
    wait_for(sleeping.sleeps)
    kill(sleeping.element)
    wait_for(lambda: states(sleeping.sweep)[sleeping.element] == "FAILED")
    code, said = resumed(sleeping.sweep)
    assert code == 0, said
    assert len(arrays(sleeping.sweep)) == 2
    sleeping.is_whole()


@IN_FULL
@pytest.mark.parametrize("times", [1, 2])
def test_an_element_that_is_killed_while_the_driver_waits(times: int, folder: Path) -> None:
    sleeping = Sleeping()
    driver = sleeping.start()
    wait_for(sleeping.sleeps)
    if times == 2:
        sleeping.mark.unlink()  # it sleeps again
    kill(sleeping.element)
    if times == 2:
        wait_for(lambda: len(arrays(sleeping.sweep)) == 2 and sleeping.sleeps(), 90)
        kill(f"{arrays(sleeping.sweep)[1]}_0")
    said, _ = driver.communicate(timeout=120)
    assert f"job 1: element {sleeping.element} died (signal 9); trying once more" in said
    if times == 1:
        assert driver.returncode == 0, said
    else:
        assert driver.returncode == 1, said
        second = f"{arrays(sleeping.sweep)[1]}_0"
        assert f"job 1 did not end: element {second} died (signal 9), as one before it died (signal 9)" in said
        assert f"{TO_RESUME}{sleeping.name}" in said
        assert sleeping.sweep.job(0).read().status == "completed"
        assert sleeping.sweep.job(1).read() is None
        code, said = resumed(sleeping.sweep)
        assert code == 0, said
    sleeping.is_whole()


@IN_FULL
@pytest.mark.parametrize(("harm", "how"), [("_exit", "exit code 7"), ("segfault", "signal 11")])
def test_a_job_that_ends_its_process_twice_fails_by_name(harm: str, how: str, folder: Path) -> None:
    name = f"crashed_{harm}"
    code, said, sweep = swept(name, "model=alone", "epochs=3", f"model.harm='',{harm}", "sweep.stack=never", SLURM)
    assert code == 1
    assert f"died ({how}); trying once more" in said
    assert sweep.job(0).read().status == "completed"
    assert sweep.job(1).read().error == f"its element of a SLURM array died ({how}), twice"
    assert not (sweep.path / "works").exists()
    again = resumed(sweep)
    assert (again[0], "nothing was done" in again[1]) == (1, True)


def cancel_one(sleeping: Sleeping) -> str:
    scancel(sleeping.element)
    return "was cancelled"


def cancel_all(sleeping: Sleeping) -> str:
    scancel(*arrays(sleeping.sweep))
    return "was cancelled"


def terminate(sleeping: Sleeping) -> str:
    for pid in processes_of(sleeping.element):
        os.kill(pid, signal.SIGTERM)
    return "ended early: stopped by SIGTERM"


def time_out(sleeping: Sleeping) -> str:
    subprocess.run(["scontrol", "update", f"jobid={sleeping.element}", "timelimit=0:01"], check=True)
    return "reached its time limit (hydra.launcher.time)"


def preempt(sleeping: Sleeping) -> str:
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"]
    subprocess.run(urgent, check=True, capture_output=True)
    return "was preempted"


ENDS = [cancel_one, cancel_all, terminate, time_out, preempt]


@pytest.mark.parametrize("end", some(ENDS, len(ENDS)), ids=lambda end: end.__name__)
def test_an_element_that_is_ended_stops_the_sweep_which_resumes(end: Callable[[Sleeping], str], folder: Path) -> None:
    sleeping = Sleeping()
    driver = sleeping.start()
    wait_for(sleeping.sleeps)
    if end is not cancel_all:
        wait_for(sleeping.sweep.job(0).result.exists)
    reason = end(sleeping)
    said, _ = driver.communicate(timeout=150)
    assert driver.returncode == 1, said
    assert f"job 1 did not end: element {sleeping.element} {reason}" in said
    assert f"{TO_RESUME}{sleeping.name}" in said
    assert "Traceback" not in said
    assert "failed" not in said
    assert "trying once more" not in said
    left = WorkFolder.of(sleeping.sweep, 1).job(1)
    assert left.last.exists()  # it was written when SIGTERM came
    assert not left.result.exists()
    code, said = resumed(sleeping.sweep)
    assert code == 0, said
    sleeping.is_whole()


@IN_FULL
def test_an_element_that_is_requeued_is_waited_for(folder: Path) -> None:
    sleeping = Sleeping()
    driver = sleeping.start()
    wait_for(sleeping.sleeps)
    subprocess.run(["scontrol", "requeue", sleeping.element], check=True)
    said, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, said
    assert len(arrays(sleeping.sweep)) == 1
    sleeping.is_whole()


@IN_FULL
def test_elements_that_cannot_begin_stop_the_sweep(folder: Path) -> None:
    words = ["model=alone", "lr=0.01,0.1", "epochs=2"]
    code, said, sweep = swept("broken", *words, SLURM, "hydra.launcher.setup=['exit 3']")
    assert code == 1
    assert said.count("did not begin (exit code 3); trying once more") == 2
    assert "failed" not in said
    assert f"{TO_RESUME}broken" in said
    code, said = resumed(sweep)
    assert code == 0, said
    same(sweep, words)


@IN_FULL
def test_an_assignment_that_was_altered_is_not_believed(folder: Path) -> None:
    sleeping = Sleeping()
    driver = sleeping.start("+hydra.launcher.additional.begin=now+6")
    wait_for(lambda: arrays(sleeping.sweep))
    file = WorkFolder.of(sleeping.sweep, 1).assignment
    content = file.read_text().partition("\n")[2].replace('"threads": 1', '"threads": 2')
    file.write_text(f"{hashlib.sha256(content.encode()).hexdigest()}\n{content}")
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1, said
    assert "could not begin: the assignment of this element was altered since it was submitted" in said
    assert not sleeping.sleeps()
    assert sleeping.sweep.job(1).read() is None
    sleeping.mark.touch()
    code, said = resumed(sleeping.sweep)
    assert code == 0, said
    sleeping.is_whole()


# ---------------------------------------------------------------- submission


@pytest.mark.parametrize(
    ("key", "said_by_slurm"),
    some(
        [("partition=nowhere", "invalid partition specified: nowhere"), ("additional.nodelist=nowhere", "nowhere")], 2
    ),
)
def test_a_submission_that_is_refused_is_one_clear_error(key: str, said_by_slurm: str, folder: Path) -> None:
    name = f"refused_{next(_numbers)}"
    prefix = "+hydra.launcher." if key.startswith("additional") else "hydra.launcher."
    code, said, sweep = swept(name, "lr=0.01,0.1", "epochs=2", SLURM, f"{prefix}{key}")
    assert code == 1
    assert "SLURM refuses the jobs:\n  sbatch: error: " in said
    assert said_by_slurm in said
    assert "Traceback" not in said
    assert f"resume={name}" in said
    assert arrays(sweep) == []
    code, said = resumed(sweep)
    assert code == 0, said
    same(sweep, ["lr=0.01,0.1", "epochs=2"])


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and nothing more is written."""


@IN_FULL
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_driver_killed_right_before_or_after_it_submits(
    moment: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, name = ["model=alone", "lr=0.01,0.1", "epochs=2"], f"killed_{moment}"

    def die(*args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if moment == "before":
            patch.setattr(slurm_submission, "submit", die)
        else:
            patch.setattr(SlurmRecord, "set_number", die)
        with pytest.raises(Killed):
            command_line(*FLAGS, *words, "report=false", "sweep.verify=false", f"hydra.sweep.dir={name}", SLURM)
    sweep = SweepFolder(Path(name))
    (array,) = SlurmRecord(sweep).arrays
    assert array.number is None
    code, said = resumed(sweep)
    assert code == 0, said
    assert ("were submitted before go on, and are waited for" in said) == (moment == "after")
    submitted = subprocess.run(
        ["squeue", "--states=all", "--noheader", "--format=%F", f"--name={array.name}"], capture_output=True, text=True
    )
    assert len({*submitted.stdout.split()}) == (1 if moment == "after" else 0)
    assert len(arrays(sweep)) == 1
    same(sweep, words)


# ---------------------------------------------------------------- drivers


@IN_FULL
@pytest.mark.parametrize("how", ["resume", "the same command again"])
def test_a_driver_killed_while_elements_run_waits_for_them_later(how: str, folder: Path) -> None:
    sleeping = Sleeping()
    driver = sleeping.start()
    wait_for(sleeping.sleeps)
    driver.kill()
    driver.communicate()
    assert states(sleeping.sweep)[sleeping.element] == "RUNNING"
    again = sleeping.start() if how == "the same command again" else resuming(sleeping.name)
    wait_for(sleeping.sweep.job(0).result.exists)
    time.sleep(2)
    scancel(sleeping.element)  # it waits for this one, which it has not submitted
    said, _ = again.communicate(timeout=120)
    assert again.returncode == 1, said
    assert "1 element that were submitted before" in said or "2 elements that were submitted before" in said
    assert f"job 1 did not end: element {sleeping.element} was cancelled" in said
    assert len(arrays(sleeping.sweep)) == 1
    code, said = resumed(sleeping.sweep)
    assert code == 0, said
    sleeping.is_whole()


@IN_FULL
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_the_elements_to_slurm_and_says_so(number: int, code: int, folder: Path) -> None:
    sleeping = Sleeping()
    driver = sleeping.start("hydra.launcher.time=30")
    wait_for(sleeping.sleeps)
    wait_for(sleeping.sweep.job(0).result.exists)
    driver.send_signal(number)
    said, _ = driver.communicate(timeout=60)
    assert driver.returncode == code, said
    assert f"SLURM goes on with 1 element; to cancel: scancel {arrays(sleeping.sweep)[0]}" in said
    assert f"resume={sleeping.name} hydra.launcher.time=30" in said
    assert states(sleeping.sweep)[sleeping.element] == "RUNNING"
    kill(sleeping.element)
    code, said = resumed(sleeping.sweep)
    assert code == 0, said
    sleeping.is_whole()


@pytest.mark.parametrize("moment", some(["before the end", "after the end"], 2))
def test_a_sweep_that_nobody_waits_for_is_gathered_later(moment: str, folder: Path) -> None:
    words, name = ["model=alone,failing", "epochs=2", "sweep.stack=never"], f"left_{next(_numbers)}"
    code, said, sweep = swept(name, *words, SLURM, "hydra.launcher.wait=false")
    assert code == 0, said
    (array,) = arrays(sweep)
    assert f"array {array}: 2 elements submitted to SLURM" in said
    assert f"SLURM goes on with 2 elements; to cancel: scancel {array}" in said
    assert f"{TO_RESUME}{name}" in said
    if moment == "after the end":
        wait_for(lambda: {*states(sweep).values()} == {"COMPLETED"})
    code, said = resumed(sweep)
    assert code == 1, said  # a job failed
    assert "job 1 (model=failing) failed: RuntimeError: as asked" in said
    assert ("are waited for" in said) == (moment == "before the end")
    assert arrays(sweep) == [array]
    assert not (sweep.path / "slurm").exists()
    same(sweep, words)


# ---------------------------------------------------------------- what elements hand back, and what they lack


@IN_FULL
@pytest.mark.parametrize("damage", [tear, alter, cut_the_list], ids=lambda damage: damage.__name__)
def test_a_bundle_that_cannot_be_believed_is_refused(
    damage: Callable[[WorkFolder, Bundle], None], folder: Path
) -> None:
    words, name = ["model=alone", "lr=0.01,0.1", "epochs=2"], f"damaged_{damage.__name__}"
    _, _, sweep = swept(name, *words, SLURM, "hydra.launcher.wait=false")
    wait_for(lambda: {*states(sweep).values()} == {"COMPLETED"})
    work = WorkFolder.of(sweep, 1)
    bundle = read_bundle(work)
    assert bundle is not None
    damage(work, bundle)
    code, said = resumed(sweep)
    assert code == 0, said
    assert damage is cut_the_list or "job 1: the element of an earlier driver handed back what was refused" in said
    assert len(arrays(sweep)) == 2
    same(sweep, words)


def write_module(name: str, folder: Path) -> Path:
    """Write a module of the user's, and a model of it, both of this name."""
    module, option = folder / f"{name}.py", (folder / "my_conf/model/alone.yaml").read_text()
    module.write_text(MODULES)
    (folder / f"my_conf/model/{name}.yaml").write_text(option.replace("swept_modules", name))
    return module


@IN_FULL
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_an_element_with_other_code_trains_nothing_with_it(how: str, folder: Path) -> None:
    name, module = f"other_{how}", write_module(f"other_{how}", folder)
    words = [f"model={name}", "lr=0.01,0.1", "epochs=2", "sweep.stack=never"]
    _, _, sweep = swept(name, *words, SLURM, "hydra.launcher.wait=false", "+hydra.launcher.additional.begin=now+4")
    if how == "changed":
        module.write_text(f"{MODULES}\n# another version\n")
    else:
        module.unlink()
    wait_for(lambda: {*states(sweep).values()} == {"COMPLETED"})
    module.write_text(MODULES)
    code, said = resumed(sweep)
    assert code == 0, said  # what the elements have refused is submitted anew
    assert len(arrays(sweep)) == 2
    same(sweep, words)


@IN_FULL
def test_a_module_that_changes_while_the_driver_waits_stops_the_sweep(folder: Path) -> None:
    module = write_module("edited", folder)
    words = ["model=edited", "lr=0.01,0.1", "epochs=2", "sweep.stack=never"]
    driver = started("edited", *words, SLURM, "+hydra.launcher.additional.begin=now+6")
    wait_for(lambda: arrays(SweepFolder(Path("edited"))))
    module.write_text(f"{MODULES}\n# another version\n")
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 1, said
    for number in (0, 1):
        assert f"job {number}: element" in said
        assert SweepFolder(Path("edited")).job(number).read() is None
    assert "could not begin: the worker has another version of the module edited" in said
    assert "failed" not in said
    refused = resumed(SweepFolder(Path("edited")))
    assert (refused[0], "the module edited has changed since this sweep was started" in refused[1]) == (2, True)
    module.write_text(MODULES)
    code, said = resumed(SweepFolder(Path("edited")))
    assert code == 0, said
    same(SweepFolder(Path("edited")), words)


# ---------------------------------------------------------------- SLURM itself


@IN_FULL
@pytest.mark.parametrize("lasts", [False, True], ids=["for a while", "for good"])
def test_a_squeue_that_does_not_answer(lasts: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails, run = iter(range(10**9 if lasts else 4)), slurm_queue._run

    def failing(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        if command[0] == "squeue" and next(fails, None) is not None:
            return subprocess.CompletedProcess(command, 1, "", "slurm_load_jobs error: Unable to contact controller")
        return run(command, text)

    monkeypatch.setattr(slurm_queue, "_run", failing)
    words, name = ["model=alone", "lr=0.01,0.1", "epochs=100000" if lasts else "epochs=2"], f"deaf_{lasts}"
    code, said, sweep = swept(name, *words, SLURM)
    assert said.count("squeue does not answer, and is asked again") == 1
    if not lasts:
        assert code == 0, said
        same(sweep, words)
        return
    assert code == 1
    assert "squeue has not answered for 5 s: slurm_load_jobs error: Unable to contact controller" in said
    assert f"{TO_RESUME}{name}" in said
    scancel(*arrays(sweep))


@IN_FULL
def test_a_stack_that_does_not_fit_into_memory_is_halved(folder: Path) -> None:
    # the stacked module raises what a full GPU raises, where more than two jobs come together
    (folder / "large.py").write_text(
        "import os\n"
        "import holdfast.workers.worker as worker\n"
        "from swept_modules import Ordinary\n"
        "if 'SLURM_ARRAY_TASK_ID' in os.environ:\n"
        "    train = worker.train_together\n"
        "    def short_of_memory(work, *rest):\n"
        "        if len(work.jobs) > 2:\n"
        "            raise MemoryError\n"
        "        return train(work, *rest)\n"
        "    worker.train_together = short_of_memory\n"
        "class Large(Ordinary):\n"
        "    pass\n"
    )
    words = ["model=ordinary", "model._target_=large.Large", "lr=0.01,0.02,0.03,0.04", "epochs=2", "sweep.stack=auto"]
    code, said, sweep = swept("halved", *words, SLURM)
    assert code == 0, said
    assert said.count("4 jobs do not fit into memory together, and are trained in two halves") == 1
    assert [len(array.works) for array in SlurmRecord(sweep).arrays] == [1, 2]
    assert all(sweep.job(number).read().status == "completed" for number in range(4))
