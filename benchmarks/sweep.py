"""python benchmarks/sweep.py: sweeps of 5 to 10,000 jobs relative to a single run, and the overhead of a job.

Whole processes in alternation. All files of all jobs are written, but of 10,000 jobs the ten best folders.
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
from holdfast.compose import Loader
from holdfast.compose.sweeping import Sweep

JOBS = 50
ROUNDS = 5
OVERRIDES = [f"lr=range(1,{JOBS + 1})", "batch_size=5", "epochs=1"]
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
"""The arguments of a sweep by its number of jobs; a negative number means one by one."""


def processes() -> None:
    """Print the wall time of each sweep, and its ratio to a single run."""
    train = Path(__file__).resolve().parents[1] / "train.py"
    times: dict[int, list[float]] = {jobs: [] for jobs in SWEEPS}
    # folders are removed at the end: after thousands are deleted, making folders is slow for a while
    with tempfile.TemporaryDirectory() as root:
        for number in range(PROCESSES):
            for jobs, arguments in SWEEPS.items():
                folder = Path(root, f"{jobs}_{number}")
                folder.mkdir()
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, train, *arguments, "report=false"],
                    cwd=folder,
                    stdout=subprocess.DEVNULL,
                    check=True,
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
    """Do nothing: the task of an empty job."""


def prepared(loader_class: Callable[[ConfigSearchPath], ConfigLoaderImpl], sweeper: str) -> tuple[Hydra, DictConfig]:
    """Set up Hydra with a config loader and a sweeper; return it and the configuration of the sweep."""
    GlobalHydra.instance().clear()
    hydra = Hydra("train", loader_class(create_config_search_path(f"file://{CONF}")))
    GlobalHydra.instance().initialize(hydra)
    overrides = [
        *OVERRIDES,
        f"hydra/sweeper={sweeper}",
        "hydra/launcher=basic",
        "hydra.sweep.dir=sweep",
        "hydra.mode=MULTIRUN",
    ]
    return hydra, hydra.config_loader.load_configuration("config", overrides, RunMode.MULTIRUN)


def hydras_sweep() -> float:
    """Return Hydra's seconds per job: composed for the check, composed again for the run, run."""
    hydra, config = prepared(ConfigLoaderImpl, "basic")
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=empty, config=config)
    began = time.perf_counter()
    sweeper.sweep(list(config.hydra.overrides.task))
    return (time.perf_counter() - began) / JOBS


def our_sweep() -> float:
    """Return our seconds per job: checked, composed, run by the same launcher."""
    hydra, config = prepared(Loader, "holdfast")
    assert isinstance(hydra.config_loader, Loader)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks(config))
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=empty, config=config)
    began = time.perf_counter()
    sweep = Sweep(hydra.config_loader, config, None, list(config.hydra.overrides.task))
    launcher.launch(sweep.jobs, initial_job_idx=0)
    return (time.perf_counter() - began) / JOBS


def hydras_composing() -> float:
    """Return the seconds per job for composing twice, as Hydra does."""
    hydra, config = prepared(ConfigLoaderImpl, "basic")
    began = time.perf_counter()
    for job in range(1, JOBS + 1):
        for _ in range(2):
            hydra.config_loader.load_sweep_config(config, [f"lr={job}", *OVERRIDES[1:]])
    return (time.perf_counter() - began) / JOBS


def our_composing() -> float:
    """Return the seconds per job for checking and composing, including the first composition of the groups."""
    hydra, config = prepared(Loader, "holdfast")
    assert isinstance(hydra.config_loader, Loader)
    began = time.perf_counter()
    sweep = Sweep(hydra.config_loader, config, None, list(config.hydra.overrides.task))
    for overrides in sweep.jobs:
        hydra.config_loader.load_sweep_config(config, overrides)
    return (time.perf_counter() - began) / JOBS


def main() -> None:
    """Print the times of sweeps, then milliseconds per job of composing and launching, and the ratios."""
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
    for kind, name in (("sweep", "an empty job"), ("composing", "checking and composing a job")):
        ours, theirs = ms[f"our_{kind}"], ms[f"hydras_{kind}"]
        print(f"{name:<30} {ours:6.1f} ms over Hydra's {theirs:6.1f} ms = {ours / theirs:.2f}")
    print(f"target for composing: at most 3 ms per job; {JOBS} jobs, medians of {ROUNDS}")


if __name__ == "__main__":
    main()
