"""python benchmarks/sweep.py: sweeps of 5 to 100,000 jobs over a single run, and what a job costs beside its training.

Whole processes, in turn, without a report. `python benchmarks/sweep.py large` adds the 100,000 jobs, and their memory.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from holdfast.cli.main import CONF
from holdfast.compose.loader import Loader
from holdfast.compose.sweep import Multirun, sweep_spec

JOBS = 50
ROUNDS = 5
WORDS = [f"lr=range(1,{JOBS + 1})", "batch_size=5", "epochs=1"]


PROCESSES = 5
BATCHES = "batch_size=1,5,20,full"
SWEEPS = {
    1: ["lr=0.01"],
    -20: ["-m", "hydra/launcher=basic", "lr=logspace(1e-4,1,5)", BATCHES],
    5: ["-m", "lr=0.0001,0.001,0.01,0.1,1"],
    20: ["-m", "lr=logspace(1e-4,1,5)", BATCHES],
    100: ["-m", "lr=logspace(1e-4,1,5)", BATCHES, "seed=range(5)"],
    1000: ["-m", "experiment=stacked_1000"],
    -1000: ["-m", "experiment=stacked_1000", "sweep.keep=all"],
    10_000: ["-m", "lr=logspace(1e-4,1,500)", BATCHES, "seed=range(5)"],
}
"""The words of a sweep, by its number of jobs; -20 one by one, -1000 with the folders of all jobs."""

LARGE = ["-m", "lr=logspace(1e-4,1,5000)", BATCHES, "seed=range(5)"]


def processes() -> None:
    """Print the wall time of each sweep, and its ratio to a single run."""
    train = Path(__file__).resolve().parents[1] / "train.py"
    times: dict[int, list[float]] = {jobs: [] for jobs in SWEEPS}
    # nothing is removed until the end: making folders is slow for a while after thousands were deleted
    with tempfile.TemporaryDirectory() as root:
        for number in range(PROCESSES):
            for jobs, words in SWEEPS.items():
                folder = Path(root, f"{jobs}_{number}")
                folder.mkdir()
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, train, *words, "report=false"], cwd=folder, stdout=subprocess.DEVNULL, check=True
                )
                times[jobs].append(time.perf_counter() - began)
    seconds = {jobs: statistics.median(values) for jobs, values in times.items()}
    targets = {1000: ", target 1.15", -1000: ", target 2.0", 10_000: ", target 1.5"}
    notes = {-20: " one by one", -1000: " with all folders"}
    for jobs, value in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times[jobs], times[1], strict=True))
        name = f"{abs(jobs)} jobs{notes.get(jobs, '')}"
        print(f"{name:>26}: {value:5.2f} s, {ratio:.2f} times a single run{targets.get(jobs, '')}")
    each = (seconds[-20] - seconds[1]) / 19
    print(
        f"a further job: {(seconds[1000] - seconds[20]) / 980 * 1e3:.2f} ms (target 1); one by one {each * 1e3:.0f} ms"
    )


def large() -> None:
    """Print the time and the memory of 100,000 jobs, over a single run."""
    train = Path(__file__).resolve().parents[1] / "train.py"
    seconds = []
    with tempfile.TemporaryDirectory() as root:
        for words in (["lr=0.01"], LARGE):
            began = time.perf_counter()
            command = [sys.executable, str(train), *words, "report=false"]
            subprocess.run(command, cwd=root, stdout=subprocess.DEVNULL, check=True)
            seconds.append(time.perf_counter() - began)
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    print(f"100000 jobs: {seconds[1]:.1f} s, {seconds[1] / seconds[0]:.1f} times a single run, target 10; ", end="")
    print(f"{gigabytes:.2f} GB, target 2")


def snapshots() -> None:
    """Print what a snapshot of a stack of 1,000 networks costs, over the minute between two of them."""
    from holdfast.compose.recompose import compose
    from holdfast.record.archive import StackArchive
    from holdfast.runtime.isolation import isolated
    from holdfast.stacked.formula_engine import FormulaEngine
    from holdfast.stacked.inputs import StackInputs
    from holdfast.stacked.loop import Stack
    from holdfast.store.folders import SweepFolder

    words = ["model=mlp", "optimizer=adam", "batch_size=full", "epochs=20", "accelerator=cpu"]
    configs = [compose([*words, f"seed={seed}", "lr=0.01"], CONF) for seed in range(40)] * 25
    seconds: dict[float, list[float]] = {0.0: [], 1e9: []}
    for _ in range(3):
        for between, times in seconds.items():
            with tempfile.TemporaryDirectory() as root:
                archive = StackArchive(SweepFolder(Path(root)).stack(0), range(1000), ["h"] * 1000, between)
                with isolated():
                    stack = Stack(FormulaEngine(StackInputs(configs)), archive)
                    began = time.perf_counter()
                    stack.train()
                    times.append(time.perf_counter() - began)
    with_snapshots, without = (statistics.median(times) for times in seconds.values())
    each = (with_snapshots - without) / 19
    print(f"a snapshot of 1,000 networks: {each * 1e3:.1f} ms, {each / 60:.2%} of a minute, target 2%")


def empty(config: DictConfig) -> None:
    """The task."""


def prepared(loader_class: Callable[[ConfigSearchPath], ConfigLoaderImpl], sweeper: str) -> tuple[Hydra, DictConfig]:
    """Hydra with one loader or the other, and the configuration of the sweep."""
    GlobalHydra.instance().clear()
    hydra = Hydra("train", loader_class(create_config_search_path(f"file://{CONF}")))
    GlobalHydra.instance().initialize(hydra)
    words = [*WORDS, f"hydra/sweeper={sweeper}", "hydra/launcher=basic", "hydra.sweep.dir=sweep", "hydra.mode=MULTIRUN"]
    return hydra, hydra.config_loader.load_configuration("config", words, RunMode.MULTIRUN)


def hydras_sweep() -> float:
    """Seconds a job: composed for checking, composed again for running, run."""
    hydra, config = prepared(ConfigLoaderImpl, "basic")
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=empty, config=config)
    began = time.perf_counter()
    sweeper.sweep(list(config.hydra.overrides.task))
    return (time.perf_counter() - began) / JOBS


def our_sweep() -> float:
    """Seconds a job: checked, composed, run by the same launcher."""
    hydra, config = prepared(Loader, "holdfast")
    assert isinstance(hydra.config_loader, Loader)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=empty, config=config)
    began = time.perf_counter()
    spec = sweep_spec(Multirun(context, config, launcher, None, list(config.hydra.overrides.task)))
    launcher.launch([list(job.overrides) for job in spec.jobs], initial_job_idx=0)
    return (time.perf_counter() - began) / JOBS


def hydras_composing() -> float:
    """Seconds a job for composing twice, as Hydra does."""
    hydra, config = prepared(ConfigLoaderImpl, "basic")
    began = time.perf_counter()
    for job in range(1, JOBS + 1):
        for _ in range(2):
            hydra.config_loader.load_sweep_config(config, [f"lr={job}", *WORDS[1:]])
    return (time.perf_counter() - began) / JOBS


def our_composing() -> float:
    """Seconds a job for checking and composing, the first composition of the groups among them."""
    hydra, config = prepared(Loader, "holdfast")
    assert isinstance(hydra.config_loader, Loader)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=empty, config=config)
    began = time.perf_counter()
    for job in sweep_spec(Multirun(context, config, launcher, None, list(config.hydra.overrides.task))).jobs:
        hydra.config_loader.load_sweep_config(config, list(job.overrides))
    return (time.perf_counter() - began) / JOBS


def main() -> None:
    """Print the table of sweeps, then milliseconds a job of each part, alternating, and the ratios."""
    processes()
    snapshots()
    if sys.argv[1:] == ["large"]:
        large()
    version.setbase("1.3")
    cases = (hydras_sweep, our_sweep, hydras_composing, our_composing)
    times: dict[str, list[float]] = {case.__name__: [] for case in cases}
    for _ in range(ROUNDS):
        for case in cases:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                times[case.__name__].append(case())
                os.chdir(CONF)
    ms = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    for kind, whole in (("sweep", "an empty job, whole"), ("composing", "of it, composing and checking")):
        ours, theirs = ms[f"our_{kind}"], ms[f"hydras_{kind}"]
        print(f"{whole:<30} {ours:6.1f} ms over Hydra's {theirs:6.1f} ms = {ours / theirs:.2f}")
    print(f"target for composing: at most 3 ms a job; {JOBS} jobs, medians of {ROUNDS}")


if __name__ == "__main__":
    main()
