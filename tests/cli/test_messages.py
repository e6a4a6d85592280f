"""What the first hour's mistakes print: a lesson, the user's own lines, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran, command_line

MODULES = '''
import torch
from holdfast.model import Regression
from lightning.pytorch import LightningModule


class Wide(Regression):
    """Its layer takes more columns than the rows have."""

    def __init__(self):
        super().__init__(torch.nn.Linear(7, 1))

    def loss(self, batch):
        return helper(self, batch)


def helper(module, batch):
    return module.network(batch[0]).mean()


class Unbuilt(Regression):
    def __init__(self):
        raise KeyError("no such layer")


class Own(LightningModule):
    def __init__(self, net=None):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        return torch.nn.functional.mse_loss(self.line(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("val/loss", self.training_step(batch))
        self.log("train/loss", self.training_step(batch))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Silent(Own):
    def validation_step(self, batch):
        pass
'''


@pytest.fixture
def my_run(holdfast: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Train a module of `firsthour.py`."""
    (tmp_path / "firsthour.py").write_text(MODULES)
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    for name in ("Wide", "Unbuilt", "Own", "Silent"):
        (tmp_path / "my_conf" / "model" / f"{name.lower()}.yaml").write_text(f"_target_: firsthour.{name}\n")
    nested = "_target_: firsthour.Own\nnet: {_target_: firsthour.Unbuilt}\n"  # built by Hydra, inside of the model
    (tmp_path / "my_conf" / "model" / "nested.yaml").write_text(nested)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda *words: holdfast("--config-dir", "my_conf", "epochs=1", *words)


REFUSED = {
    "lr=1e308": "lr=1e+308  is beyond 3.4e+38, the largest number of precision=32-true",
    "lr=1e39 precision=16-mixed": "lr=1e+39  is beyond",
    "optimizer.lr=1e39": "optimizer.lr=1e+39  is beyond",
    "data.step=1e-320": "data.step=1e-320  makes more than 1,000,000,000 rows",
    "data=linear data.features=3 model.features=4": "model.features=4  does not fit the rows, whose x has 3 columns",
    "data=linear data.features=3 model=mlp model.features=2": "model.features=2  does not fit the rows",
    "trainer.max_epochs=3": "is a key at the top: epochs=N",
    "trainer.callbacks=x": "is a group at the top",
    "trainer.fast_dev_rum=true": "did you mean trainer.fast_dev_run?",
    "vars=3": "vars=3",
    "init_weights=nowhere.pt": "is not a file",
    "optimizer.fuse=true": "did you mean optimizer.fused?",
    "optimizer=rmsprop optimizer.fused=true": "no such key",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_work_is_a_lesson(words: str, holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    ran = holdfast(*words.split())
    assert ran.code == 2
    assert ran.err.startswith("1 problem in the configuration; nothing was run.")
    assert REFUSED[words] in ran.err
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


def test_the_largest_rate_of_double_precision_diverges(holdfast: Callable[..., Ran]) -> None:
    assert holdfast("lr=1e308", "precision=64-true", "epochs=1").result.status == "diverged"


def test_an_environment_variable_is_text_until_it_is_decoded(
    holdfast: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MYLR", "0.07")
    refused = holdfast("lr='${oc.env:MYLR,0.03}'", "epochs=1")
    assert (
        "'0.07' is a string, as all environment variables are: type '${oc.decode:${oc.env:MYLR,0.03}}'" in refused.err
    )
    ran = holdfast("lr='${oc.decode:${oc.env:MYLR,0.03}}'", "epochs=1")
    assert ran.code == 0
    assert ran.result.last is not None
    assert ran.result.last["train/lr"] == 0.07


def test_the_group_whose_file_is_broken_is_named_wherever_it_lies(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    folder = tmp_path / "data_optimizer_scheduler" / "model"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("_target_: [\n")
    (folder / "missing.yaml").write_text("defaults: [nowhere]\n_target_: x.Y\n")
    words = ["--config-dir", "data_optimizer_scheduler", "optimizer=adam", "data=line", "scheduler=step"]
    for name in ("broken", "missing"):
        ran = holdfast(*words, f"model={name}")
        assert ran.code == 2
        assert re.findall(r"^  (\S+)", ran.err, re.MULTILINE) == [f"model={name}"]


@pytest.mark.parametrize("subdir", ["x", "${hydra.job.override_dirname}", "${hydra.job.num}x"])
def test_a_folder_name_of_jobs_is_one_problem(subdir: str, holdfast: Callable[..., Ran]) -> None:
    code, said = command_line("-m", "lr=0.1,0.2", f"hydra.sweep.subdir='{subdir}'")
    assert code == 2
    assert said.startswith("1 problem in the configuration")
    assert "the folders of jobs are numbered" in said


def test_the_help_of_report_is_its_own(holdfast: Callable[..., Ran]) -> None:
    code, said = command_line("report", "--help")
    assert code == 0
    assert said.startswith("usage: holdfast report [-h] [--config-dir CONFIG_DIR] folder")
    assert "lr=" not in said


def test_a_misspelt_metric_never_leads_to_one_of_the_training_rows(my_run: Callable[..., Ran]) -> None:
    ran = my_run("model=own", "metric=loss")
    assert "metric=loss is not logged by Own: did you mean val/loss?" in ran.err
    ran = my_run("model=silent")
    assert 'metric=val/loss is not logged by Silent: log it in validation_step: self.log("val/loss", ...)' in ran.err
    assert "train/" not in ran.err


@pytest.mark.parametrize(
    ("model", "error", "line"),
    [
        ("wide", "RuntimeError: mat1 and mat2 shapes cannot be multiplied", "in helper"),
        ("unbuilt", "KeyError: 'no such layer'", "in __init__"),
        ("nested", "KeyError: 'no such layer'", "in __init__"),
    ],
)
def test_an_exception_of_the_users_shows_their_lines_and_the_log_shows_all(
    model: str, error: str, line: str, my_run: Callable[..., Ran]
) -> None:
    ran = my_run(f"model={model}")
    assert ran.code == 1
    assert ran.err.startswith(f"The run failed: {error}")
    files = [text.split('"')[1] for text in ran.err.splitlines() if text.startswith("  File ")]
    assert {Path(file).name for file in files} == {"firsthour.py"}
    assert line in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in ran.folder.log.read_text()
    assert ran.result.error is not None
    assert f"(firsthour.py, line {ran.err.split(', line ')[-1].split(',')[0]}, {line})" in ran.result.error
    code, said = command_line("-m", "--config-dir", "my_conf", f"model={model}", "lr=0.1,0.2", "hydra.sweep.dir=sweep")
    assert code == 1
    assert f"job 0 (lr=0.1): failed: {error}" in said
    assert said.count(f"{line})") == 4  # as each job ends, and below the table


def test_another_sweeper_with_stacks_is_refused(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    code, said = command_line("-m", "hydra/sweeper=basic", "lr=0.1,0.2")
    assert code == 2
    assert "hydra/sweeper=basic  stacks are planned by hydra/sweeper=holdfast" in said
    assert "hydra/launcher=basic" in said
    assert list(tmp_path.iterdir()) == []
    words = ["hydra/sweeper=basic", "hydra/launcher=basic", "lr=0.1,0.2", "epochs=1", "hydra.sweep.dir=sweep"]
    code, said = command_line("-m", *words)
    assert code == 0
    assert "sweep: trained by another sweeper; only hydra/sweeper=holdfast chooses a winner" in said
    for number in ("0", "1"):
        assert {"result.json", ".hydra", "best.ckpt"} <= {path.name for path in (tmp_path / "sweep" / number).iterdir()}


def test_jobs_and_the_winner_are_named_by_what_was_swept(holdfast: Callable[..., Ran]) -> None:
    _, said = command_line("-m", "epochs=1", "data=clean_line", "lr=0.1,0.2", "hydra.sweep.dir=sweep")
    assert said.startswith("plan: 2 jobs: 1 stack; 0 alone\njob 0 (lr=0.1): best val/loss")
    assert "\nwinner: job 0 (lr=0.1): best val/loss of 2" in said
    assert "\nalone:  python train.py epochs=1 data=clean_line lr=0.1\n" in said


def test_an_optimizer_for_a_module_that_brings_its_own_is_said_to_have_no_effect(my_run: Callable[..., Ran]) -> None:
    said = "optimizer=adam: no effect, since Own makes its own optimizer in configure_optimizers"
    assert my_run("model=own", "optimizer=adam").out.startswith(said)
    assert "no effect" not in my_run("model=own").out
    assert "no effect" not in my_run("model=linear", "optimizer=adam").out
    code, printed = command_line("-m", "--config-dir", "my_conf", "model=own", "optimizer=adam", "seed=1,2", "epochs=1")
    assert code == 0
    assert printed.count(said) == 1


def test_a_learning_rate_that_nothing_reads_has_no_effect(my_run: Callable[..., Ran], tmp_path: Path) -> None:
    said = "lr=0.5: no effect, since nothing refers to it, as lr: ${lr} in a file would"
    assert my_run("model=own", "lr=0.5").out.startswith(said)
    assert "no effect" not in my_run("model=linear", "lr=0.5").out
    assert my_run("model=linear", "lr=0.5", "optimizer.lr=0.1").out.startswith(said)
    (tmp_path / "my_conf" / "data").mkdir()
    (tmp_path / "my_conf" / "data" / "fixed.yaml").write_text("defaults: [line]\nbatch_size: 30\n")
    words = ["--config-dir", "my_conf", "model=own", "data=fixed", "lr=0.1,0.5", "batch_size=1,2", "epochs=1"]
    code, printed = command_line("-m", *words, "hydra.sweep.dir=sweep")
    assert code == 0, printed
    assert printed.splitlines()[0].startswith("lr=0.1: no effect, since nothing refers to it")
    assert printed.splitlines()[1].startswith("batch_size=1: no effect, since nothing refers to it")
    assert printed.count("since nothing refers") == 2


def test_free_keys_are_recorded_and_hashed(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "vars").mkdir(parents=True)
    (tmp_path / "my_conf" / "vars" / "mine.yaml").write_text("noise: 0.5\nplaces: {data: here}\n")
    words = ["--config-dir", "my_conf", "vars=mine", "data.noise=${vars.noise}", "epochs=1"]
    first = holdfast(*words)
    second = holdfast(*words, "vars.noise=1.5", "vars.places.more=[1,2]")
    assert (first.code, second.code) == (0, 0)
    assert first.result.config_hash != second.result.config_hash
    assert "noise: 1.5" in second.folder.config_text()
    assert first.result.best != second.result.best
    code, said = command_line("-m", *words, "vars.noise=0.5,1.5", "hydra.sweep.dir=sweep")
    assert (code, "plan: 2 jobs: 1 stack" in said) == (0, True)
    assert holdfast("vars.x=1").result.config_hash != holdfast("vars.x=2").result.config_hash


@pytest.mark.parametrize(("program", "starts"), [("holdfast", "holdfast"), ("train.py", "python train.py")])
def test_printed_commands_begin_as_the_one_that_was_typed(
    program: str, starts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [program])
    for words, printed in (
        (["--help"], f"{starts} -m key=value,value ...  "),
        (["-m", "lr=0.01,0.1", "epochs=2", "report=false"], f"alone:  {starts} lr=0.1 epochs=2"),
        (["nothing=1"], f"{starts} --help lists the keys"),
    ):
        said = command_line(*words)[1]
        assert printed in said
        assert ("python train.py" in said) == (program == "train.py")
