"""A configuration is checked against the devices, strategies and classes that there are."""

from __future__ import annotations

import pytest

from holdfast.cli.main import CONF
from holdfast.compose.recompose import compose
from holdfast.errors import ConfigError, DeviceError
from holdfast.runtime.devices import Needs, check


@pytest.mark.parametrize(
    ("overrides", "error"),
    [
        (["devices=4096", "accelerator=cpu"], DeviceError),
        (["devices=[0]", "accelerator=cpu"], DeviceError),
        (["accelerator=tpu"], DeviceError),
        (["trainer.strategy=nope"], ConfigError),
        (["data._target_=nowhere.Data"], ConfigError),
        (["+data.colour=red", "data._target_=holdfast.data.DataModule"], ConfigError),
        (["model._target_=nowhere.Model"], ConfigError),
        (["optimizer._target_=torch.optim.Nope"], ConfigError),
        (["scheduler=cosine", "scheduler._target_=torch.optim.lr_scheduler.Nope"], ConfigError),
        (["+callbacks.mine={_target_:nowhere.Callback}"], ConfigError),
        (["+callbacks.mine={_target_:lightning.pytorch.callbacks.Timer,colour:red}"], ConfigError),
        (["+logger.mine={_target_:nowhere.Logger}"], ConfigError),
    ],
    ids=str,
)
def test_a_refused_job_and_an_accepted_job_have_different_needs(overrides: list[str], error: type[ConfigError]) -> None:
    refused, fine = compose(overrides, CONF), compose([], CONF)
    with pytest.raises(ConfigError) as raised:
        check(refused)
    assert type(raised.value) is error
    check(fine)
    assert Needs.of(refused) != Needs.of(fine)


def test_jobs_that_differ_only_in_values_have_equal_needs() -> None:
    assert Needs.of(compose(["lr=0.1", "seed=1"], CONF)) == Needs.of(compose(["lr=0.2", "model.weight=3"], CONF))
