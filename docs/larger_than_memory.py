"""python docs/larger_than_memory.py: the pictures of the lesson on data that do not fit in memory, measured.

docs/course/sorted_batches.png shows the batches of an epoch on a sorted file, docs/course/sorted_memory.png the memory
of a run over time. Needs Linux, whose /proc holds the memory of a process, and the packages of ".[table]".
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from holdfast.data import buffered
from holdfast.report import read
from holdfast.report.style import COLOURS, new_figure, png, set_labels, styled
from holdfast.store.folders import RunFolder
from holdfast.tables import Table

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "docs" / "course.md"
BATCHES, MEMORY = "sorted_batches.png", "sorted_memory.png"
TABLE = ("data=table", "data.path=sorted.csv", "data.target=y")
STREAMED = "data.buffer_rows=65536"
EPOCHS = 3
TIMES = 10
"""The table whose memory is measured has so many times the rows of that of the page."""

_SECONDS = 0.02
"""Time between two samples of the memory."""

_RUN = "from holdfast.cli.main import main; import sys; main(sys.argv[1:])"
_MARKED = f"""
import os, sys
def mark(event, arguments):
    if event == "open" and str(arguments[0]).endswith("sorted.csv"):
        os.write(1, b"opened\\n")
sys.addaudithook(mark)
{_RUN}
"""
"""Runs a command, and prints a line whenever the table is opened."""


class Order(NamedTuple):
    """An order of the rows of an epoch.

    Attributes:
        title: of its panel.
        words: of the command line.
        blocks: the least blocks of a buffer, for which there is no key.
    """

    title: str
    words: tuple[str, ...]
    blocks: int = buffered.LEAST_BLOCKS


ORDERS = (
    Order("order of the file", (STREAMED, "data.shuffle=false")),
    Order("a buffer of 1 block", ("data.buffer_rows=1",), 1),
    Order("a buffer of 16 blocks", (STREAMED,)),
    Order("all rows in memory", ()),
)


class Sampled(NamedTuple):
    """The memory of a run.

    Attributes:
        seconds: since the process began, of each sample.
        megabytes: resident memory of each sample.
        opened: seconds until the table was first opened.
        read: seconds until all of the table was read, or converted.
    """

    seconds: list[float]
    megabytes: list[float]
    opened: float
    read: float


def source() -> str:
    """The lines of Python on the page that write the table."""
    (lines,) = re.findall(r"`make_table\.py`:\n\n```python\n(.*?)```", COURSE.read_text(encoding="utf-8"), re.DOTALL)
    return str(lines)


def make_table(folder: Path, times: float = 1) -> None:
    """Write the table of the page, or one of so many times its rows, into a folder."""
    lines = re.sub(r"rows = ([\d_]+)", lambda match: f"rows = {int(int(match[1]) * times)}", source())
    subprocess.run([sys.executable, "-c", lines], cwd=folder, check=True)


def commands() -> list[str]:
    """The commands of the lesson: one writes the table, one trains on it."""
    blocks = COURSE.read_text(encoding="utf-8").split("```bash\n")[1:]
    (lesson,) = (block for block in blocks if block.startswith("python make_table.py"))
    return lesson.partition("\n```")[0].splitlines()


def train(folder: Path, order: Order) -> list[float]:
    """The validation losses of the epochs in an order."""
    code = f"from holdfast.data import buffered; buffered.LEAST_BLOCKS = {order.blocks}; {_RUN}"
    words = [*TABLE, *order.words, f"epochs={EPOCHS}", f"hydra.run.dir={order.title}"]
    subprocess.run([sys.executable, "-c", code, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return validation_losses(RunFolder(folder / order.title))


def validation_losses(run: RunFolder) -> list[float]:
    """The validation losses of the epochs of a run."""
    _, losses = read.JobRecords(lambda number: run).curves([0], ["val/loss"])[0]["val/loss"]
    return [float(loss) for loss in losses]


def mean_targets(folder: Path, order: Order) -> list[float]:
    """The mean of the target in each batch of the first epoch in an order."""
    keys = yaml.safe_load((ROOT / "conf" / "data" / "table.yaml").read_text())["data"]
    words = dict(word.removeprefix("data.").split("=") for word in order.words)
    keys |= {"path": str(folder / "sorted.csv"), "target": "y", "cache_dir": str(folder / "outputs" / "cache")}
    keys |= {key: yaml.safe_load(value) for key, value in words.items()} | {"batch_size": 256, "order_seed": 0}
    del keys["_target_"]
    buffered.LEAST_BLOCKS = order.blocks
    data = Table(**keys)
    data.setup("fit")
    target = data.source.encoding.targets[0]
    return [float(y.mean()) * target.scale + target.mean for _, y in data.train_dataloader()]


def sampled(folder: Path, *words: str) -> Sampled:
    """Train two epochs in a process, and sample its memory."""
    began = time.monotonic()
    command = [sys.executable, "-c", _MARKED, *TABLE, *words, "epochs=2"]
    lines, seconds, megabytes = dict[str, float](), list[float](), list[float]()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        listener = threading.Thread(target=_listen, args=(process.stdout, began, lines))
        listener.start()
        memory = Path("/proc", str(process.pid), "statm")
        while process.poll() is None:
            pages = int(memory.read_text().split()[1])
            if pages:  # a process that has just ended has none
                seconds.append(time.monotonic() - began)
                megabytes.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)
            time.sleep(_SECONDS)
        listener.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Sampled(seconds, megabytes, lines["opened"], lines["table:"])


def _listen(stream: IO[str], began: float, lines: dict[str, float]) -> None:
    """Note when a line with a first word is first printed."""
    for line in stream:
        lines.setdefault(line.split(" ")[0].strip(), time.monotonic() - began)


@styled
def draw_batches(
    orders: Sequence[Order], means: Sequence[Sequence[float]], losses: Sequence[Sequence[float]]
) -> Figure:
    """The mean target of each batch, a panel for each order."""
    figure, panels = new_figure(len(orders), 9.6, 2.9)
    for axes, order, each, loss in zip(panels, orders, means, losses, strict=True):
        axes.plot(each, ".", markersize=2.0, color=COLOURS[0])
        axes.set_ylim(-14, 14)
        set_labels(axes, "iteration", "mean of y in the batch" if order is orders[0] else "")
        axes.set_title(f"{order.title}\nval/loss {loss[0]:.4g}")
    return figure


@styled
def draw_memory(runs: Sequence[tuple[str, str, Sampled]], size: float) -> Figure:
    """Resident memory over time, a panel for each run.

    Args:
        runs: the title of each, what it does with the table before it trains, and its memory.
        size: megabytes of the table.
    """
    figure, panels = new_figure(len(runs), 9.6, 3.2)
    top = 1.3 * max(max(run.megabytes) for _, _, run in runs)
    for axes, (title, reading, run) in zip(panels, runs, strict=True):
        axes.plot(run.seconds, run.megabytes, color=COLOURS[0])
        axes.axhline(size, color="#999999", linestyle="--", linewidth=1.0, label=f"size of the file, {size:.0f} MB")
        axes.set(ylim=(0, top), xlim=(0, run.seconds[-1]))
        _mark(axes, (0.0, run.opened, run.read, run.seconds[-1]), ("imports", reading, "two epochs"))
        set_labels(axes, "seconds", "resident memory in MB")
        axes.set_title(title)
    panels[-1].legend(loc="center right")
    return figure


def _mark(axes: Axes, times: Sequence[float], names: Sequence[str]) -> None:
    """Shade the phases of a run, and write their names above the curve."""
    for index, name in enumerate(names):
        axes.axvspan(times[index], times[index + 1], color=COLOURS[4], alpha=0.08 + 0.12 * (index % 2), linewidth=0)
        left = times[index] + 0.01 * times[-1]
        axes.text(left, 0.97 * axes.get_ylim()[1], name, rotation=90, ha="left", va="top", fontsize=8.0)


def main() -> None:
    """Measure, print and draw."""
    pictures = COURSE.parent / "course"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_table(folder)
        losses = [train(folder, order) for order in ORDERS]
        means = [mean_targets(folder, order) for order in ORDERS]
        for order, loss, each in zip(ORDERS, losses, means, strict=True):
            shown = ", ".join(f"{value:.4g}" for value in loss)
            print(f"{order.title}: val/loss {shown}; means of y from {min(each):.2f} to {max(each):.2f}")
        (pictures / BATCHES).write_bytes(png(draw_batches(ORDERS, means, losses)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_table(folder, TIMES)
        size = (folder / "sorted.csv").stat().st_size / 1e6
        runs = [("read whole", "reading", sampled(folder)), (STREAMED, "conversion", sampled(folder, STREAMED))]
        for title, _, run in runs:
            before = np.interp(run.opened, run.seconds, run.megabytes)
            print(f"{title}: {before:.0f} MB after the imports, at most {max(run.megabytes):.0f} MB")
        (pictures / MEMORY).write_bytes(png(draw_memory(runs, size)))


if __name__ == "__main__":
    main()
