from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import lightning.pytorch as pl
import pytest
import yaml
from hydra.utils import get_object

from holdfast.caching.sources import TABLE_KEYS
from holdfast.cli.main import CONF
from holdfast.config.fold import FOLD
from holdfast.config.options import OPTIONS, TABLE
from holdfast.config.schema import Callbacks, Config, Logger, Trainer
from holdfast.data import synthetic
from holdfast.single.build import HOLDFAST_KEYS
from holdfast.tables import Table

FILES = sorted(path for path in CONF.rglob("*.yaml") if path.parent.name in ("data", "model", "optimizer", "scheduler"))


def keys(cls: Any) -> set[str]:
    return {field.name for field in fields(cls)} - {"extras"}


def required(cls: Any) -> set[str]:
    return {field.name for field in fields(cls) if field.default is MISSING} & keys(cls)


def test_the_list_of_files_is_not_empty() -> None:
    assert len(FILES) >= 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_gives_each_key_of_its_schema_a_value(path: Any) -> None:
    values = yaml.safe_load(path.read_text())
    values = values.get(path.parent.name, values)  # a file may set keys at the top too
    if values["_target_"] is not None:
        assert required(OPTIONS[values["_target_"]]) <= set(values) - {"_target_"} <= keys(OPTIONS[values["_target_"]])


@pytest.mark.parametrize("target", OPTIONS)
def test_every_key_is_an_argument_of_the_class_it_configures(target: str) -> None:
    if target == TABLE:  # one argument takes what only its source reads
        assert keys(OPTIONS[target]) - set(inspect.signature(Table).parameters) == {
            *TABLE_KEYS,
            "features",
            "buffer_rows",
            "cache_dir",
            FOLD,
        }
        return
    taken = set(inspect.signature(get_object(target)).parameters)
    if target.startswith("holdfast.data."):
        taken |= set(inspect.signature(getattr(synthetic, target.rpartition(".")[2].lower())).parameters)
    assert keys(OPTIONS[target]) - {FOLD} <= taken  # a fold is of the rows of any class


def test_trainer_keys_are_arguments_of_lightnings_trainer() -> None:
    assert keys(Trainer) - HOLDFAST_KEYS <= set(inspect.signature(pl.Trainer).parameters)


@pytest.mark.parametrize(("group", "cls"), [("callbacks", Callbacks), ("trainer", Trainer), ("logger", Logger)])
def test_every_key_of_the_other_groups_has_a_value(group: str, cls: Any) -> None:
    for path in (CONF / group).glob("*.yaml"):
        assert required(cls) <= set(yaml.safe_load(path.read_text()))


def test_every_top_level_key_has_a_value() -> None:
    values = yaml.safe_load((CONF / "config.yaml").read_text())
    groups = {name for entry in values["defaults"] if isinstance(entry, dict) for name in entry}
    assert keys(Config) <= set(values) | groups


def test_every_field_says_what_it_means() -> None:
    for cls in (*OPTIONS.values(), Trainer, Logger):
        assert all(field.metadata["meaning"] for field in fields(cls) if field.name != "extras")
