"""python benchmarks/distributed.py: worker processes against this process, in turn, with the targets.

Measured are 20 jobs that run alone for 5 s each, on two workers over one by one; 1,000 jobs in four stacks, in workers
over here, and on Ray over here, once Ray and its workers have started; what a further worker costs that has
nothing to do; and how many bundles the driver receives and places in a second.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
TRAIN = Path(__file__).resolve().parents[1] / "train.py"
SLEEPER = """
import time
import lightning.pytorch as pl


class Busy(pl.Callback):
    '''Keeps one core busy for some seconds.'''

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_fit_start(self, trainer, pl_module):
        began, total = time.process_time(), 0
        while time.process_time() - began < self.seconds:
            total += 1
"""
SECONDS = 5.0
PROCESSES = "hydra/launcher=processes"
ALONE = ["-m", "--config-dir", "my_conf", "callbacks=busy", "seed=range(20)", "epochs=1"]
STACKS = ["-m", "experiment=stacked_1000"]


ON_RAY = """
import sys, time
from holdfast.clusters import ray_pool, ray_starter
began, begun = [], []
make, start = ray_pool.RayPool.__init__, ray_starter.RayStarter.start

def making(*args, **keys):
    began.append(time.perf_counter())
    make(*args, **keys)

def starting(starter, gpu, count):
    worker = start(starter, gpu, count)
    if worker is not None and not begun:
        ray_starter.ready(list(starter._waiting), 600.0, most=len(starter._waiting))
        begun.append(time.perf_counter())
    return worker

ray_pool.RayPool.__init__, ray_starter.RayStarter.start = making, starting
from holdfast.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("started after", begun[0] - began[0])
"""
"""Runs a command line, and prints how long it took to join Ray and to start all workers."""


def seconds_on_ray(words: list[str]) -> float:
    """The wall time of a command line, without the start of its workers on Ray."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "-c", ON_RAY, *words, "report=false", "hydra.sweep.dir=sweep"]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        passed = time.perf_counter() - began
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        return passed - float(done.stdout.rpartition("started after ")[2])


def placed_per_second(count: int = 200) -> float:
    """How many bundles of one job, as large as those of a linear model, are received and placed in a second."""
    from holdfast.clusters.ray_parcel import finished, receive
    from holdfast.store.folders import SweepFolder
    from holdfast.store.work_folder import WorkFolder
    from holdfast.workers.bundle import write_bundle
    from holdfast.workers.placing import place

    with tempfile.TemporaryDirectory() as root:
        sweep, parcels = SweepFolder(Path(root, "sweep")), []
        sweep.path.mkdir()
        for number in range(count):
            folder = WorkFolder(Path(root, "worker", str(number)))
            folder.job(number).path.mkdir(parents=True)
            for name in ("a.ckpt", "b.ckpt", "c.pth", "d.events", "e.log", "f.json"):
                (folder.job(number).path / name).write_bytes(bytes(4000))
            write_bundle(folder, [], {}, {})
            parcels.append(list(finished(folder)))
        began = time.perf_counter()
        for number, parcel in enumerate(parcels):
            folder = WorkFolder.of(sweep, number)
            bundle = receive(parcel, folder)
            place(folder, bundle, sweep, [], lambda job: {})
        return count / (time.perf_counter() - began)


def seconds(words: list[str]) -> float:
    """The wall time of a command line, in a folder of its own."""
    with tempfile.TemporaryDirectory() as root:
        options = Path(root, "my_conf", "callbacks")
        options.mkdir(parents=True)
        Path(root, "busy.py").write_text(SLEEPER)
        (options / "busy.yaml").write_text(f"defaults: [default]\nbusy: {{_target_: busy.Busy, seconds: {SECONDS}}}\n")
        began = time.perf_counter()
        command = [sys.executable, str(TRAIN), *words, "report=false", "hydra.sweep.dir=sweep"]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        return time.perf_counter() - began


def alternating(one: list[str], other: list[str], rounds: int = ROUNDS) -> list[tuple[float, float]]:
    """The seconds of two command lines, in turn."""
    return [(seconds(one), seconds(other)) for _ in range(rounds)]


def main() -> None:
    """Print the measurements."""
    print(f"bundles of one job: {placed_per_second():.0f} received and placed per second", flush=True)
    if importlib.util.find_spec("ray"):
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
        on_ray = ["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}", "hydra.launcher.workers=2"]
        times = [(seconds_on_ray([*STACKS, *on_ray]), seconds(STACKS)) for _ in range(ROUNDS)]
        cluster.shutdown()
        ratios = " ".join(f"{there / here:.2f}" for there, here in times)
        ratio = statistics.median(there / here for there, here in times)
        print(f"1,000 jobs in four stacks on Ray, of here: {ratios}, median {ratio:.2f}, target 1.20", flush=True)
    pairs = alternating([*STACKS, PROCESSES], STACKS)
    here, there = (statistics.median(times) for times in zip(*((b, a) for a, b in pairs), strict=True))
    more = statistics.median(a - b for a, b in pairs)
    print(
        f"1,000 jobs in four stacks: {there:.1f} s in workers, {here:.1f} s here: {more:+.1f} s, target +3 s",
        flush=True,
    )
    few = ["-m", "lr=0.01,0.1", "batch_size=1,5,20,full", "epochs=1", PROCESSES]
    pairs = alternating([*few, "hydra.launcher.workers=4"], [*few, "hydra.launcher.workers=1"])
    each = statistics.median((a - b) / 3 for a, b in pairs)
    print(f"a further worker: {each * 1e3:.0f} ms, if it is forked from the server that has imported torch", flush=True)
    pairs = alternating([*ALONE, PROCESSES, "hydra.launcher.workers=2"], ALONE, rounds=1)
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"20 jobs alone of {SECONDS:.0f} s, two workers: {ratio:.2f} of one by one, target 0.65", flush=True)


if __name__ == "__main__":
    main()
