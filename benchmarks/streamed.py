"""python benchmarks/streamed.py: tables that do not fit into memory, relative to tables in memory.

It writes a CSV and a Parquet file of 1.5 GB, and takes about ten minutes. Two things are measured in turn, and the
median of their ratios is printed.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from holdfast.caching.cached_table import CachedTable
from holdfast.caching.sources import source_of
from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.job import JobSpec
from holdfast.data import Rows
from holdfast.data.split import Split
from holdfast.single.trainer import train_one
from holdfast.store.folders import RunFolder

COLUMNS, SIZE, PART, GROUP = 20, 1_500_000_000, 100_000, 500_000
TRAIN = [sys.executable, str(Path(__file__).resolve().parents[1] / "train.py"), "report=false"]
TABLE = ["data=table", "data.target=y", "data.buffer_rows=262144", "batch_size=1024"]
IMPORTS = [
    sys.executable,
    "-c",
    "from holdfast.single.startup import import_training; import_training(); "
    "import holdfast.caching.sources, pyarrow.csv, pyarrow.parquet",
]

PEAK = (
    "import os, subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL); "
    "_, status, usage = os.wait4(p.pid, 0); assert status == 0; print(usage.ru_maxrss)"
)


def write(csv: Path, parquet: Path) -> None:
    """A linear function of 20 columns and noise; row groups of Parquet have about 80 MB."""
    draw, names = np.random.default_rng(0), [*(f"x{column}" for column in range(COLUMNS)), "y"]
    weights, parts = draw.normal(size=COLUMNS), list[pa.Table]()
    schema = pa.schema([(name, pa.float64()) for name in names])
    with csv.open("wb") as file, pyarrow.parquet.ParquetWriter(parquet, schema) as writer:
        while file.tell() < SIZE:
            x = draw.normal(size=(PART, COLUMNS)).round(6)
            y = (x @ weights + draw.normal(size=PART)).round(6)
            parts.append(pa.table(dict(zip(names, [*x.T, y], strict=True))))
            pyarrow.csv.write_csv(parts[-1], file, pyarrow.csv.WriteOptions(include_header=file.tell() == 0))
            if len(parts) * PART >= GROUP:
                writer.write_table(pa.concat_tables(parts), row_group_size=GROUP)
                parts.clear()
        if parts:
            writer.write_table(pa.concat_tables(parts), row_group_size=GROUP)


def seconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def report(name: str, pairs: list[tuple[float, float]], baseline: str, target: float) -> None:
    """Print the median ratio of some pairs of seconds."""
    first, second = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"{name}: {first:.1f} s over {baseline} {second:.1f} s = {ratio:.2f} (target {target:g})", flush=True)


def read_alone(file: Path) -> None:
    """Let pyarrow read a CSV file, and keep nothing."""
    for _ in pyarrow.csv.open_csv(file):
        pass


def convert(file: Path, cache: Path) -> None:
    """Train nothing: a command that ends after the table is converted, and before it is trained on."""
    shutil.rmtree(cache, ignore_errors=True)
    code = (
        "import sys; from holdfast.caching.sources import source_of; from holdfast.compose.recompose import compose; "
        "from holdfast.cli.main import CONF; source_of(compose(sys.argv[1:], CONF).data)"
    )
    words = [*TABLE, f"data.path={file}", f"data.cache_dir={cache}"]
    subprocess.run([sys.executable, "-c", code, *words], check=True, stdout=subprocess.DEVNULL)


def peak(command: list[str], folder: Path) -> float:
    """The peak of a command's resident memory, in MB."""
    # a child's peak counts the memory of the process that has started it: a small one
    small = [sys.executable, "-c", PEAK, *command]
    return float(subprocess.run(small, cwd=folder, check=True, capture_output=True, text=True).stdout) / 1e3


@contextmanager
def in_memory() -> Iterator[None]:
    """Let tables on disk return rows that are held in memory."""
    original, held = CachedTable.rows_of, dict[str, Rows]()

    def rows_of(self: CachedTable, split: Split, buffer_rows: int | None = None) -> Rows:
        if split not in held:
            held[split] = Rows(*original(self, split, buffer_rows)[:])
        return held[split]

    with mock.patch.object(CachedTable, "rows_of", rows_of):
        yield


def epochs(file: Path, cache: Path, runs: int = 5) -> list[tuple[float, float]]:
    """An epoch of the Trainer from disk, and one in memory, with all that a run leaves behind."""
    words = [*TABLE, f"data.path={file}", f"data.cache_dir={cache}", "epochs=1", "report=false"]
    config = compose(words, CONF)
    source_of(config.data)

    def epoch() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train_one(JobSpec(0, (), config, ""), RunFolder(Path(folder)))

    pairs = []
    with in_memory():
        epoch()  # reads all rows
        held = mock.patch.object(CachedTable, "rows_of", CachedTable.rows_of)
    for _ in range(runs):
        streamed = seconds(epoch)
        with held:
            pairs.append((streamed, seconds(epoch)))
    return pairs


def main() -> None:
    """Print a line for each measure."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        csv, parquet, cache = folder / "table.csv", folder / "table.parquet", folder / "cache"
        write(csv, parquet)
        baseline = peak(IMPORTS, folder)
        pairs = [
            (
                seconds(lambda: convert(csv, cache)) - seconds(lambda: subprocess.run(IMPORTS, check=True)),
                seconds(lambda: read_alone(csv)),
            )
            for _ in range(3)
        ]
        report("converting a CSV file of 1.5 GB, without imports", pairs, "pyarrow.csv reading it", 2.5)
        for file in (csv, parquet):
            shutil.rmtree(cache, ignore_errors=True)
            command = [*TRAIN, *TABLE, f"data.path={file}", f"data.cache_dir={cache}", "epochs=1"]
            most = peak(command, folder) - baseline
            print(f"memory of a run that converts {file.suffix}: {most:.0f} MB above imports (target 500)", flush=True)
        report("an epoch from disk", epochs(parquet, cache), "in memory", 1.3)
        run = [*TRAIN, *TABLE, f"data.path={parquet}", f"data.cache_dir={cache}", "epochs=2"]
        sweep = [*run, "-m", "lr=logspace(1e-3,0.3,32)"]
        pairs = [(seconds(lambda: peak(sweep, folder)), seconds(lambda: peak(run, folder))) for _ in range(3)]
        report("32 rates in a stack", pairs, "one rate", 1.5)
        most = peak(sweep, folder) - baseline
        print(f"memory of the stack: {most:.0f} MB above imports", flush=True)


if __name__ == "__main__":
    main()
