from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.config.keys import as_override, did_you_mean, key_of
from holdfast.errors import ConfigError

BAD = {
    "lr=abc": "number above 0",
    "lr=0": "above 0",
    "lr=-1": "above 0",
    "lr=nan": "above 0",
    "lr=inf": "above 0",
    "lr=": "number above 0",
    "lr=true": "number above 0",
    "lr=null": "number above 0",
    "lr=[1]": "number above 0",
    f"lr={10**400}": "number above 0",
    "lr=0.1,0.2": "add -m",
    "lrr=1": "did you mean lr?",
    "+lrr=1": "did you mean lr?",
    "++lrr=1": "did you mean lr?",
    "momentum=0.9": "did you mean optimizer.momentum?",
    "+momentum=0.9": "did you mean optimizer.momentum?",
    "~lr": "cannot be left out",
    "lr": "key=value",
    "epochs=0": "from 1 on",
    "epochs=1.5": "whole number",
    "epochs=true": "whole number",
    "batch_size=0": "from 1 on or full",
    "batch_size=ful": "did you mean full?",
    "seed=-1": "from 0 on",
    "seed=a": "whole number",
    "accelerator=gpuu": "did you mean gpu?",
    "devices=0": "from 1 on",
    "devices=[0,0]": "different devices",
    "devices=[]": "different devices",
    "precision=64": "did you mean 64-true?",
    "mode=minimum": "did you mean min?",
    "metric=3": "text",
    "test=maybe": "true or false",
    "data.noise=-1": "from 0 on",
    "data.step=0": "above 0",
    "data.stop=-4": "above data.start",
    "data.outliers={a:1}": "not a row",
    "data.outliers={5\\:5:1}": "not a row",
    "data.outliers={60:1}": "beyond the 60 training rows",
    "data.outliers={0:a}": "mapping",
    "data.outliers=3": "mapping",
    "data.slop=1": "did you mean data.slope?",
    "data=lines": "did you mean line?",
    "model=linaer": "did you mean linear?",
    "model.weight=a": "number or null",
    "model.features=0": "from 1 on",
    "optimizer=adma": "did you mean adam?",
    "optimizer.nesterov=true": "needs momentum",
    "optimizer.momentum=-0.1": "from 0 on",
    "optimizer.momentun=1": "did you mean optimizer.momentum?",
    "scheduler=cosin": "did you mean cosine?",
    "callbacks.divergence.threshold=0": "above 0",
    "callbacks.divergence=3": "callbacks.divergence.threshold",
    "callbacks.early_stopping.patience=0": "from 1 on",
    "trainer.gradient_clip_val=0": "above 0",
    "trainer.gradient_clip_algorithm=l2": "norm or value",
    "trainer.max_epochs=3": "is a key at the top: epochs=N",
    "trainer.max_steps=0": "1 or more",
    "trainer.strategy=ddp_fork": "use trainer.strategy=ddp ",
    "trainer.strategy=ddp_notebook": "use trainer.strategy=ddp ",
    "trainer.strategy=ddp_spawn_find_unused_parameters_true": "use trainer.strategy=ddp_find_unused_parameters_true ",
    "trainer.max_time=abc": "DD:HH:MM:SS",
    "trainer.limit_train_batches=1.5": "share up to 1.0",
    "data=null": "cannot be left out",
    "=3": "key=value",
    "logger.tensorboard=yep": "true or false",
    "logger=tensorbord": "did you mean tensorboard?",
    "experiment=sgdd": "did you mean sgd?",
    "hydra.run.dir=": "must name a folder",
}


@pytest.mark.parametrize("bad", BAD)
def test_an_invalid_override_is_reported_with_what_is_allowed(bad: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([bad], CONF)
    text = str(error.value)
    assert text.startswith("1 problem in the configuration; nothing was run."), text
    assert bad.lstrip("+~").partition("=")[0] in text, text
    assert BAD[bad] in text, text


@pytest.mark.parametrize(
    ("overrides", "lesson"),
    [
        (["data=linear", "data.fractions=[0.5,0.5,0.5]"], "sum to 1"),
        (["data=linear", "data.rows=4"], "no validation rows"),
        (["data=linear", "data.outlier_fraction=1.5"], "from 0 to 1"),
        (["model=mlp", "model.hidden=[0]"], "1 or more"),
        (["model=mlp", "model.hidden=3"], "list of whole numbers"),
        (["model=mlp", "model.dropout=2"], "from 0 to 1"),
        (["optimizer=adam", "optimizer.betas=[1,0.9]"], "in [0, 1)"),
        (["optimizer=adam", "optimizer.momentum=0.9"], "no such key"),
        (["scheduler=step", "scheduler.step_size=0"], "from 1 on"),
        (["optimizer.nesterov=true", "optimizer.momentum=0.9", "optimizer.dampening=0.1"], "dampening=0"),
        (["lr=0.1", "lr=0.2"], "given twice"),
        (["seed=1", "seed=1"], "given twice"),
    ],
)
def test_overrides_that_cannot_work_together(overrides: list[str], lesson: str) -> None:
    with pytest.raises(ConfigError, match="1 problem") as error:
        compose(overrides, CONF)
    assert lesson in str(error.value)


def test_all_problems_are_reported_together_and_each_once() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["lrr=1", "lr=abc", "epochs=0", "optimizer=adma", "optimizer.momentun=1", "++foo.bar=2"], CONF)
    keys = sorted(key_of(problem.override) for problem in error.value.problems)
    # optimizer.lr and data's batch_size follow top-level keys: the mistake in lr is reported once
    assert keys == ["epochs", "foo", "lr", "lrr", "optimizer", "optimizer.momentun"]


@settings(max_examples=25, deadline=None)
@given(st.floats(min_value=1e-12, max_value=1e12), st.integers(1, 10**9), st.integers(0, 2**62))
def test_values_in_range_keep_their_value(lr: float, batch_size: int, seed: int) -> None:
    config = compose([f"lr={lr!r}", f"batch_size={batch_size}", f"seed={seed}"], CONF)
    assert (config.lr, config.batch_size, config.seed) == (lr, batch_size, seed)
    assert math.isclose(config.optimizer["lr"], lr)
    assert config.data["order_seed"] == seed


def test_whole_numbers_become_floats_where_the_schema_has_floats() -> None:
    config = compose(["lr=1", "model.weight=-15"], CONF)
    assert [(type(value), value) for value in (config.lr, config.model["weight"])] == [(float, 1.0), (float, -15.0)]


def test_mappings_are_replaced_and_not_merged() -> None:
    assert compose(["data.outliers={}"], CONF).data["outliers"] == {}
    assert compose(["data.outliers={3:1}"], CONF).data["outliers"] == {3: 1.0}


@pytest.mark.parametrize(("value", "shown"), [(None, "null"), (True, "true"), (0, "0"), (0.5, "0.5"), ([1], "[1]")])
def test_values_are_shown_as_overrides(value: object, shown: str) -> None:
    assert as_override("key", value) == f"key={shown}"


def test_did_you_mean_lists_all_names_where_none_is_near() -> None:
    assert did_you_mean("zzz", ["b", "a"], "x.") == "there is a, b"


@pytest.mark.parametrize("metric", ["val/accuracy", "val/r2", "val/f1", "val_acc", "valid/AUROC"])
def test_a_metric_that_is_better_when_higher_is_not_minimised(metric: str) -> None:
    with pytest.raises(ConfigError, match="add mode=max"):
        compose([f"metric={metric}"], CONF)
    assert compose([f"metric={metric}", "mode=max"], CONF).metric == metric
    assert compose(["metric=val/accuracy_loss"], CONF).mode == "min"
