"""python benchmarks/search.py: searches over a single run, and over Optuna's own loop around Lightning, in turn.

An MLP on the diabetes table, 16 epochs, over the learning rate, momentum and weight decay; whole processes without a
report. What a further trial costs is measured between 256 and 1,024 trials here, and between 4 and 12 in a loop that
trains one trial after another, with the same table, network and epochs.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
TRAIN = [sys.executable, str(Path(__file__).resolve().parents[1] / "train.py"), "report=false"]
NETWORK = ["experiment=diabetes", "model=mlp", "model.hidden=[16]", "batch_size=32", "epochs=16"]
SPACE = [
    "lr=loginterval(1e-4,1e-1)",
    "optimizer.momentum=interval(0,0.95)",
    "optimizer.weight_decay=loginterval(1e-6,1)",
]
FEW, MANY = 4, 12

ONE_BY_ONE = """
import sys, warnings, logging
warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
import lightning.pytorch as pl, optuna, torch
from torch.utils.data import DataLoader
from holdfast.compose.recompose import compose
from holdfast.cli.main import CONF
from holdfast.single.build import build_data
optuna.logging.set_verbosity(optuna.logging.WARNING)
config = compose(["experiment=diabetes", "batch_size=32"], CONF)
config.data["buffer_rows"] = None
data = build_data(config.data)
data.setup("fit")
x, y = data.train.x, data.train.y

class Net(pl.LightningModule):
    def __init__(self, **settings):
        super().__init__()
        self.settings = settings
        self.net = torch.nn.Sequential(torch.nn.Linear(x.shape[1], 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])
    def validation_step(self, batch, index):
        self.log("val", torch.nn.functional.mse_loss(self.net(batch[0]), batch[1]))
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), **self.settings)

def objective(trial):
    net = Net(lr=trial.suggest_float("lr", 1e-4, 1e-1, log=True), momentum=trial.suggest_float("momentum", 0, 0.95),
              weight_decay=trial.suggest_float("weight_decay", 1e-6, 1, log=True))
    trainer = pl.Trainer(max_epochs=16, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(net, DataLoader(data.train, 32, shuffle=True), DataLoader(data.val, 1024))
    value = float(trainer.callback_metrics["val"])
    return value if value == value else float("inf")

study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
study.optimize(objective, n_trials=int(sys.argv[1]))
"""


def seconds(command: list[str]) -> float:
    """Wall time of a command in an empty folder; it has to succeed."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        return time.perf_counter() - began


def search(trials: int, *words: str) -> list[str]:
    """The command of a search."""
    return [*TRAIN, "-m", *NETWORK, *SPACE, f"sweep.trials={trials}", *words]


def asking(trials: int) -> float:
    """Milliseconds that TPE takes to draw a trial, over a search of so many."""
    code = f"""
import random, time
from holdfast.search.rounds import ROUNDS, Trial
draw, trials, total = random.Random(0), [], 0.0
while len(trials) < {trials}:
    if not trials:
        points = [[draw.random() for _ in range(3)] for _ in range(64)]
    else:
        began = time.perf_counter()
        points = ROUNDS["tpe"].ask(trials, 0, ROUNDS["tpe"].size({trials}, len(trials)))
        total += time.perf_counter() - began
    trials += [Trial(point, sum((each - 0.3) ** 2 for each in point)) for point in points]
print(1000 * total / len(trials))
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print one line per search."""
    cases = {
        "256 trials": (search(256), 2.0),
        "256 trials, 5 folds": (search(256, "sweep.folds=5"), 4.0),
        "1,024 trials": (search(1024), 4.0),
    }
    single = [*TRAIN, *NETWORK]
    loop = [sys.executable, "-c", ONE_BY_ONE]
    commands = {
        "one": single,
        **{name: command for name, (command, _) in cases.items()},
        "few": [*loop, str(FEW)],
        "many": [*loop, str(MANY)],
    }
    taken = [{name: seconds(command) for name, command in commands.items()} for _ in range(ROUNDS + 1)][1:]
    for name, (_, target) in cases.items():
        ratio = statistics.median(each[name] / each["one"] for each in taken)
        took = statistics.median(each[name] for each in taken)
        print(f"{name:<20} {took:.2f} s = {ratio:.2f} of a run (target {target:g})", flush=True)
    ours = [(each["1,024 trials"] - each["256 trials"]) / 768 for each in taken]
    theirs = [(each["many"] - each["few"]) / (MANY - FEW) for each in taken]
    cheaper = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    print(
        f"a further trial      {1000 * statistics.median(ours):.1f} ms here, "
        f"{1000 * statistics.median(theirs):.0f} ms in Optuna's loop: {cheaper:.0f} times cheaper (target 50)"
    )
    print(f"TPE                  {asking(1024):.1f} ms to draw a trial, of 1,024 (target 30)")


if __name__ == "__main__":
    main()
