"""Rules beyond the type and the range of a value, and rules about values that cannot work together.

A rule about one value returns what is wrong with it, or None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any


def fractions(value: list[float]) -> str | None:
    """Three shares of the rows: train, validation and test."""
    if len(value) == 3 and all(part > 0 for part in value) and abs(sum(value) - 1) < 1e-9:
        return None
    return "must be three positive numbers that sum to 1: train, validation and test"


def outliers(value: dict[int | str, float]) -> str | None:
    """Keys are row numbers, or ranges such as `50:55`."""
    for rows in value:
        first, colon, last = str(rows).partition(":")
        if not (first.isdecimal() and (not colon or (last.isdecimal() and int(first) < int(last)))):
            return f'{rows!r} is not a row: give a row number (0) or a range ("50:55"; on the command line, 50\\:55)'
    return None


def betas(value: list[float]) -> str | None:
    """Two decay rates."""
    if len(value) == 2 and all(0 <= beta < 1 for beta in value):
        return None
    return "must be two numbers in [0, 1)"


def widths(value: list[int]) -> str | None:
    """Every layer has a unit."""
    return None if all(width > 0 for width in value) else "must be whole numbers of 1 or more"


def devices(value: Any) -> str | None:
    """A list of devices names each device once."""
    if not isinstance(value, list):
        return None
    fits = value and all(number >= 0 for number in value) and len(set(value)) == len(value)
    return None if fits else "must name different devices, from 0 on"


def strategy(value: str | dict[str, Any]) -> str | None:
    """No strategy that forks or spawns processes: their results are lost when they end.

    >>> strategy("ddp_fork_find_unused_parameters_true")
    'trains in processes whose results are lost; use trainer.strategy=ddp_find_unused_parameters_true'
    """
    if isinstance(value, dict) or not (how := re.search(r"_(spawn|fork|notebook)(?=_|$)", value)):
        return None
    return f"trains in processes whose results are lost; use trainer.strategy={value.replace(how[0], '')}"


def file(value: str) -> str | None:
    """A file that exists."""
    return None if Path(value).is_file() else "is not a file: give the path of a checkpoint or of a model.pth"


def steps(value: int) -> str | None:
    """A positive number of iterations, or -1."""
    return None if value == -1 or value > 0 else "must be 1 or more, or -1 for no limit"


def share(value: float) -> str | None:
    """A share is at most 1."""
    return "must be a whole number, or a share up to 1.0" if isinstance(value, float) and value > 1 else None


def duration(value: str) -> str | None:
    """Days, hours, minutes and seconds, as DD:HH:MM:SS."""
    return None if re.fullmatch(r"\d\d:\d\d:\d\d:\d\d", value) else "must be DD:HH:MM:SS, as 00:01:30:00"


LARGEST_FLOAT32 = 3.4028234663852886e38

MOST_ROWS = 1_000_000_000
"""Rows of a line; more would not fit into memory."""


def count(start: float, stop: float, step: float) -> int:
    """Number of values of `torch.arange(start, stop, step)`: `ceil((stop - start) / step)`, free of rounding errors.

    >>> count(-3.0, 3.0, 0.1), count(-3.0, 3.0, 0.85)
    (60, 8)
    """
    return ceil(round((stop - start) / step, 9))  # 6 / 0.1 is 60.00000000000001


def conflicts(config: Mapping[str, Any]) -> dict[str, str]:
    """Keys whose values are valid alone but cannot work together.

    Args:
        config: a resolved configuration whose single values have been checked.

    Returns:
        What is wrong, by key.
    """
    lessons = _learning_rate(config) | _columns(config) | _direction(config)
    for group in ("optimizer", "data"):
        rule = _CONFLICTS.get(config[group]["_target_"])
        lessons |= rule(config[group]) if rule else {}
    return lessons


def _learning_rate(config: Mapping[str, Any]) -> dict[str, str]:
    rate, precision = config["optimizer"].get("lr"), config["precision"]
    if not isinstance(rate, (int, float)) or rate <= LARGEST_FLOAT32 or precision == "64-true":
        return {}
    key = "lr" if rate == config["lr"] else "optimizer.lr"
    return {key: f"is beyond {LARGEST_FLOAT32:.3g}, the largest number of precision={precision}: give a smaller one"}


def _direction(config: Mapping[str, Any]) -> dict[str, str]:
    """A metric that is better when it is higher is not minimised."""
    words = set(re.split(r"[^a-z0-9]+", str(config["metric"]).lower()))
    if config["mode"] != "min" or not words & _HIGHER_IS_BETTER or words & {"loss", "error"}:
        return {}
    return {"metric": "is better when it is higher, and mode=min chooses the lowest: add mode=max"}


_HIGHER_IS_BETTER = frozenset({"acc", "accuracy", "r2", "auc", "auroc", "f1", "precision", "recall", "iou", "dice"})


def _columns(config: Mapping[str, Any]) -> dict[str, str]:
    """A model that ships with Holdfast fits the rows that ship with it."""
    data, model = config["data"], config["model"]
    if not (data["_target_"].startswith("holdfast.data.") and model["_target_"].startswith("holdfast.model.")):
        return {}
    columns = data.get("features", 1)
    if model.get("features", columns) == columns:
        return {}
    return {
        "model.features": f"does not fit the rows, whose x has {columns} columns: leave it out, and it follows them"
    }


def _sgd(optimizer: Mapping[str, Any]) -> dict[str, str]:
    if not optimizer.get("nesterov"):
        return {}
    if not optimizer.get("momentum"):
        return {"optimizer.nesterov": "needs momentum: add optimizer.momentum=0.9"}
    return {"optimizer.nesterov": "needs optimizer.dampening=0"} if optimizer.get("dampening") else {}


def _line(data: Mapping[str, Any]) -> dict[str, str]:
    if (data["stop"] - data["start"]) / data["step"] > MOST_ROWS:
        return {"data.step": f"makes more than {MOST_ROWS:,} rows: give a larger one"}
    rows = count(data["start"], data["stop"], data["step"])
    if rows < 1:
        return {"data.stop": f"must be above data.start={data['start']:g} by at least data.step={data['step']:g}"}
    for key in data["outliers"] or ():
        if int(str(key).partition(":")[2] or int(key) + 1) > rows:
            return {
                "data.outliers": f"row {key} lies beyond the {rows} training rows, 0 to {rows - 1}; "
                "give others, or none with data.outliers={}"
            }
    return {}


def _table(data: Mapping[str, Any]) -> dict[str, str]:
    lessons = {}
    if data["features"] is not None:
        lessons["data.features"] = "follows from the table: leave it out"
    if data["delimiter"] is not None and len(data["delimiter"]) != 1:
        lessons["data.delimiter"] = "must be one character, such as ';'"
    return lessons


def _linear(data: Mapping[str, Any]) -> dict[str, str]:
    for split, fraction in zip(("train", "validation", "test"), data["fractions"], strict=True):
        if data["rows"] * fraction < 1:
            return {"data.fractions": f"leaves no {split} rows out of data.rows={data['rows']}"}
    return {}


_CONFLICTS = {
    "torch.optim.SGD": _sgd,
    "holdfast.data.Line": _line,
    "holdfast.data.Linear": _linear,
    "holdfast.tables.Table": _table,
}
"""The rule of each option whose values can contradict each other, by `_target_`."""
