"""Every bad word, through the command line, for one run and for a sweep: told, and nothing done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.test_check import BAD
from tests.conftest import command_line

TOGETHER = {
    "seed=1 seed=2": "seed",
    "hydra.run.dir=": "must name a folder",
    "devices=4096 accelerator=cpu": "this machine has",
    "accelerator=tpu": "this machine has none",
    "accelerator=tpu trainer.strategy=nope": "2 problems",
    "data=linear data.rows=3 data.fractions=[0.9,0.05,0.05]": "leaves no",
    "data.start=0 data.stop=0": "must be above data.start",
    "optimizer.nesterov=true": "needs momentum",
    "model=linear model=mlp": "model",
    "optimizer=adam optimizer.momentum=0.9": "no such key",
    "lr=abc epochs=0 optimizer=adma": "3 problems",
    "resume=nowhere": "no run that was begun",
    "resume=": "must name one folder",
    "resume=a,b": "must name one folder",
    "retry_failed=perhaps": "true or false",
    "report=sometimes": "auto",
    "test_again=2": "true or false",
}
SINGLE = {**BAD, **TOGETHER}
MANY = {
    **{word: lesson for word, lesson in BAD.items() if "," not in word and word not in ("lr", "~lr")},
    "lr=0.1,0.2 lr=5": "given twice",
    "lr=0.1,abc": "lr=abc",
    "lr=0.1,nan": "lr=nan",
    "lrr=0.1,0.2": "did you mean lr?",
    "+lrr=0.1,0.2": "did you mean lr?",
    "++lrr=0.1,0.2": "did you mean lr?",
    "batch_size=1,0": "from 1 on",
    "optimizer=sgd,adma": "did you mean adam?",
    "seed=0,1 seed=2": "given twice",
    "epochs=0,1": "from 1 on",
    "test=true lr=0.1,0.2": "leave test out",
    "resume= lr=0.1,0.2": "must name one folder",
    "trainer.strategy=auto,nope": "no such strategy",
    "trainer.strategy=nope,auto": "no such strategy",
    "trainer.strategy=auto,ddp_spawn": "use trainer.strategy=ddp ",
    "accelerator=tpu,cpu trainer.strategy=auto,nope": "no such strategy",
    "accelerator=tpu trainer.strategy=auto,nope": "2 problems",
    "metric=val/loss,val/mae": "must have the same value in every job",
    "mode=min,max": "must have the same value in every job",
    "sweep.keep=1,2": "must have the same value in every job",
    "lr=interval(0,1)": "add sweep.trials=N",
    "hydra.sweep.dir= lr=0.1,0.2": "must name a folder",
    "hydra.sweep.subdir=x lr=0.1,0.2": "numbered",
    "sweep.keep=0": "from 1 on",
    "resume=nowhere": "no sweep that was begun",
    "retry_failed=perhaps": "true or false",
}


def refused(words: list[str], lesson: str, folder: Path) -> None:
    code, said = command_line(*words)
    assert code == 2, said
    assert lesson in said
    assert "Traceback" not in said
    assert said.count("nothing was run") <= 1
    assert list(folder.iterdir()) == []


def test_there_are_more_than_sixty() -> None:
    assert len(SINGLE) >= 60
    assert len(MANY) >= 60


@pytest.mark.parametrize("words", SINGLE)
def test_a_run(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(words.split(), SINGLE[words], tmp_path)


@pytest.mark.parametrize("words", MANY)
def test_a_sweep(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(["-m", *words.split()], MANY[words], tmp_path)
