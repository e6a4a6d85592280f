"""python benchmarks/sweep.py: sweeps of 5 to 10,000 jobs over a single run, and what a job costs beside its training.

Whole processes, in turn, all files of all jobs written, but for 10,000 jobs, of which the ten best folders are kept.
"""

from __future__ import annotations

import os
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
    10000: ["-m", "lr=logspace(1e-4,1,500)", BATCHES, "seed=range(5)", "sweep.keep=10"],
}
"""The words of a sweep, by its number of jobs; below zero one by one."""


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
    targets = {1000: ", target 1.5", 10000: ", target 3; the ten best folders kept"}
    for jobs, value in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times[jobs], times[1], strict=True))
        name = f"{abs(jobs)} jobs" + (" one by one" if jobs < 0 else "")
        print(f"{name:>18}: {value:5.2f} s, {ratio:.2f} times a single run{targets.get(jobs, '')}")
    each = (seconds[-20] - seconds[1]) / 19
    print(
        f"a further job: {(seconds[1000] - seconds[20]) / 980 * 1e3:.2f} ms (target 1); one by one {each * 1e3:.0f} ms"
    )


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
