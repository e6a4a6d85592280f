"""python benchmarks/cold_run.py: wall time of commands from the shell, relative to the imports that they need."""

from __future__ import annotations

import sys
from pathlib import Path

from alternate import ratio

TRAIN = [sys.executable, str(Path(__file__).resolve().parents[1] / "train.py")]
IMPORTS = [sys.executable, "-c", "import torch, lightning.pytorch, hydra"]
HYDRA = [sys.executable, "-c", "import hydra"]

CASES = (
    ("python train.py lr=0.01", [*TRAIN, "lr=0.01"], "import torch, lightning.pytorch, hydra", IMPORTS, 0.9),
    ("python train.py --help", [*TRAIN, "--help"], "import hydra", HYDRA, 3.0),
    ("python train.py lrr=1 epochs=0", [*TRAIN, "lrr=1", "epochs=0"], "import hydra", HYDRA, 3.0),
)


def main() -> None:
    """Print one line per command."""
    for name, command, base, baseline, target in CASES:
        measured, seconds, base_seconds = ratio(command, baseline)
        print(f"{name:<32} {seconds:.2f} s over {base} {base_seconds:.2f} s = {measured:.2f} (target {target:g})")


if __name__ == "__main__":
    main()
