"""Jobs of unequal length that note which GPU they could see, and from when to when: for tests on faked GPUs."""

from __future__ import annotations

from pathlib import Path

JOBS = 8
_NOTES = """
import os, pathlib, time
import lightning.pytorch as pl


class Notes(pl.Callback):
    def __init__(self, number):
        self.number = number

    def on_fit_start(self, trainer, pl_module):
        began = time.time()
        time.sleep(0.2 + 0.2 * (self.number % 3))
        node, gpu = os.environ.get("RAY_RAYLET_PID", "-"), os.environ.get("CUDA_VISIBLE_DEVICES", "unset") or "none"
        pathlib.Path(f"gpu_{self.number}.txt").write_text(f"{node} {gpu} {began} {time.time()}")
"""
WORDS = ["callbacks=gpus", f"seed=range({JOBS})", "epochs=1", "accelerator=cpu", "report=false"]


def write_notes(folder: Path) -> None:
    """Write the callback and its option into a folder."""
    (folder / "gpu_notes.py").write_text(_NOTES)
    (folder / "my_conf/callbacks").mkdir(parents=True, exist_ok=True)
    (folder / "my_conf/callbacks/gpus.yaml").write_text(
        "defaults: [default]\nnotes: {_target_: gpu_notes.Notes, number: '${hydra:job.num}'}\n"
    )


def times_by_gpu(folder: Path) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """When the jobs on each GPU began and ended, by the node and what the job could see."""
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for number in range(JOBS):
        node, gpu, began, ended = (folder / f"gpu_{number}.txt").read_text().split()
        times.setdefault((node, gpu), []).append((float(began), float(ended)))
    return times


def most_at_once(times: list[tuple[float, float]]) -> int:
    """The largest number of jobs on a GPU at a time."""
    return max(sum(began <= moment < ended for began, ended in times) for moment, _ in times)
