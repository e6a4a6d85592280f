"""python benchmarks/tables.py: a run and a sweep on a CSV of 10,000 rows and 20 columns, over a run on generated rows.

Whole processes, in turn, without a report.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from alternate import ratio

ROWS, COLUMNS = 10_000, 20
TRAIN = [sys.executable, str(Path(__file__).resolve().parents[1] / "train.py"), "report=false"]
BASELINE = [*TRAIN, "lr=0.01"]


def write(file: Path) -> None:
    """A linear function of 20 columns and noise, as CSV."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(ROWS, COLUMNS)) * draw.lognormal(size=COLUMNS)
    y = x @ draw.normal(size=COLUMNS) + draw.normal(size=ROWS)
    names = ",".join([*(f"x{column}" for column in range(COLUMNS)), "y"])
    np.savetxt(file, np.column_stack([x, y]), delimiter=",", header=names, comments="")


def main() -> None:
    """Print one line per command."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "table.csv")
        write(file)
        table = [*TRAIN, "data=table", f"data.path={file}", "data.target=y", "epochs=10"]
        cases = (
            ("a run on a table", table, 1.5),
            ("100 rates on a table", [*table, "-m", "lr=logspace(1e-4,1,100)"], 2.5),
        )
        for name, command, target in cases:
            measured, seconds, base_seconds = ratio(command, BASELINE)
            print(
                f"{name:<20} {seconds:.2f} s over python train.py lr=0.01 {base_seconds:.2f} s = {measured:.2f} "
                f"(target {target:g})"
            )


if __name__ == "__main__":
    main()
