"""The options of the groups that ship with Holdfast: their keys, types, ranges and meanings.

An option is a class, named by its `_target_`. A `_target_` that is not in `OPTIONS` names a class of the user's, which
may take any keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, Literal, TypeVar

from holdfast.config import rules
from holdfast.config.fold import check_fold

Check = Callable[[Any], "str | None"]
T = TypeVar("T")

OPTIONS: dict[str, type] = {}
"""The dataclass of each `_target_` that ships with Holdfast."""


def setting(
    meaning: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    check: Check | None = None,
    default: Any = MISSING,
) -> Any:
    """A field of the schema.

    Args:
        meaning: what the value is, with its unit.
        above: the value must be greater than this.
        least: the smallest value allowed.
        most: the largest value allowed.
        check: returns what is wrong with a value, or None.
        default: the value where no YAML file gives one; without a default, the key has to be given.
    """
    metadata = {"meaning": meaning, "above": above, "least": least, "most": most, "check": check}
    return field(default=default, metadata=metadata)


def option(target: str) -> Callable[[type[T]], type[T]]:
    """Register a dataclass as the keys of the option with this `_target_`."""

    def register(cls: type[T]) -> type[T]:
        OPTIONS[target] = cls
        return cls

    return register


# ---------------------------------------------------------------------------------------------------- data


@dataclass(kw_only=True)
class _Rows:
    """Keys of every data module that ships with Holdfast."""

    batch_size: int | Literal["full"] = setting("rows per iteration; follows the top-level batch_size", least=1)
    order_seed: int = setting("seed of the row order; follows the top-level seed", least=0)
    seed: int = setting("seed of the rows and the split", least=0)
    shuffle: bool = setting("new row order every epoch")
    fold: str | None = setting(
        "validate on one fold of the training and validation rows, train on the others: 0/5 is the first of five; "
        "all/5 trains on all rows",
        check=check_fold,
        default=None,
    )
    num_workers: int = setting("processes that load batches; 0 loads in the main process", least=0)


@option("holdfast.data.Line")
@dataclass(kw_only=True)
class LineData(_Rows):
    """Points on a line with noise, and outliers among the training rows."""

    start: float = setting("first x")
    stop: float = setting("end of x, exclusive")
    step: float = setting("distance between neighbouring x", above=0)
    slope: float = setting("true slope")
    intercept: float = setting("true intercept")
    noise: float = setting("standard deviation of the noise, in units of y", least=0)
    outliers: dict[int | str, float] | None = setting("training rows to replace, and their y", check=rules.outliers)


@option("holdfast.data.Linear")
@dataclass(kw_only=True)
class LinearData(_Rows):
    """A random linear function of many features, split at random."""

    rows: int = setting("rows in all, before the split", least=3)
    features: int = setting("columns of x", least=1)
    fractions: list[float] = setting("share of train, validation and test rows", check=rules.fractions)
    noise: float = setting("standard deviation of the noise, in units of y", least=0)
    outlier_fraction: float = setting("share of training rows whose y is replaced", least=0, most=1)


TABLE = "holdfast.tables.Table"
"""The `_target_` of `data=table`."""


@option(TABLE)
@dataclass(kw_only=True)
class TableData(_Rows):
    """CSV or Parquet files."""

    path: str | None = setting("the table: a CSV file, which may be compressed (.gz), a Parquet file, or a glob")
    target: str | list[str] | None = setting("the column, or columns, to predict")
    columns: list[str] | None = setting("columns to predict from; null takes all that can be used")
    drop: list[str] = setting("columns to leave out")
    task: Literal["auto", "regression", "classification"] = setting("auto: texts and booleans are classes")
    split: str | None = setting("column that names the split of each row: train, val, test")
    val_path: str | None = setting("files with the validation rows")
    test_path: str | None = setting("files with the test rows")
    group: str | None = setting("column whose equal values stay in one split")
    time: str | None = setting("column of times: the last rows are test rows")
    fractions: list[float] = setting("share of train, validation and test rows", check=rules.fractions)
    delimiter: str | None = setting("character between the columns of a CSV file; null finds it")
    decimal: Literal[".", ","] | None = setting("decimal sign; null finds it")
    standardise: bool = setting("give numbers mean 0 and standard deviation 1, by the training rows")
    buffer_rows: int | Literal["auto"] = setting(
        "rows in memory at a time; auto: all, or where they do not fit, as many as fill a quarter of the memory",
        least=1,
    )
    cache_dir: str = setting("folder of the tables that are read from disk, buffer by buffer")
    features: int | None = setting("columns of x; found from the table", default=None)


ORDER = frozenset({"batch_size", "order_seed", "shuffle", "num_workers"})
"""Keys of a data group that set the order in which rows are visited, not which rows there are."""

UNKNOWN_ROWS = "unknown rows of "
"""Prefix of the digest of validation rows where the data module raised an exception."""


def source(data: Mapping[str, Any]) -> str:
    """A text that is equal for two data groups exactly when their keys describe the same rows, in any order.

    >>> source({"noise": 0.1, "batch_size": 1}) == source({"batch_size": 5, "noise": 0.1})
    True
    """
    return repr(sorted((key, value) for key, value in data.items() if key not in ORDER))


# --------------------------------------------------------------------------------------------------- model


@option("holdfast.model.Linear")
@dataclass
class LinearModel:
    """y = w x + b."""

    features: int | None = setting("columns of x; null: those of the table", least=1)
    weight: float | None = setting("initial value of every weight; null draws them from the seed")
    bias: float | None = setting("initial bias; null draws it from the seed")


@option("holdfast.model.MLP")
@dataclass
class MLPModel:
    """A multi-layer perceptron."""

    features: int | None = setting("columns of x; null: those of the table", least=1)
    hidden: list[int] = setting("units of each hidden layer", check=rules.widths)
    activation: Literal["tanh", "relu"] = setting("nonlinearity after each hidden layer")
    dropout: float = setting("share of hidden units set to zero while training", least=0, most=1)


# ----------------------------------------------------------------------------------------------- optimizer


@dataclass(kw_only=True)
class _Optimizer:
    """Keys of every optimizer."""

    lr: float = setting("learning rate; follows the top-level lr", above=0)
    weight_decay: float = setting("L2 penalty on the parameters", least=0)
    maximize: bool = setting("raise the loss instead of lowering it", default=False)
    foreach: bool | None = setting("update all parameters in one operation; null lets torch decide", default=None)
    differentiable: bool = setting("let gradients flow through the update", default=False)


@option("torch.optim.SGD")
@dataclass(kw_only=True)
class SGD(_Optimizer):
    """Stochastic gradient descent."""

    momentum: float = setting("share of the last step kept in the next", least=0)
    dampening: float = setting("share of the gradient held back from the momentum", least=0)
    nesterov: bool = setting("look ahead along the momentum; needs momentum and no dampening")
    fused: bool | None = setting("update in one kernel; null lets torch decide", default=None)


@option("torch.optim.Adam")
@dataclass(kw_only=True)
class Adam(_Optimizer):
    """Adam."""

    betas: list[float] = setting("decay of the two running means", check=rules.betas)
    eps: float = setting("added to the denominator", above=0)
    amsgrad: bool = setting("use the AMSGrad variant")
    fused: bool | None = setting("update in one kernel; null lets torch decide", default=None)
    capturable: bool = setting("let the update be part of a CUDA graph", default=False)


@option("torch.optim.AdamW")
@dataclass(kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay."""


@option("torch.optim.RMSprop")
@dataclass(kw_only=True)
class RMSprop(_Optimizer):
    """RMSprop."""

    alpha: float = setting("decay of the running mean of squares", least=0, most=1)
    eps: float = setting("added to the denominator", above=0)
    momentum: float = setting("share of the last step kept in the next", least=0)
    centered: bool = setting("divide by the variance instead of the mean square")
    capturable: bool = setting("let the update be part of a CUDA graph", default=False)


# ----------------------------------------------------------------------------------------------- scheduler


@option("torch.optim.lr_scheduler.StepLR")
@dataclass
class StepLR:
    """Multiply lr by gamma every step_size epochs."""

    step_size: int = setting("epochs between two drops", least=1)
    gamma: float = setting("factor of each drop", above=0)


@option("torch.optim.lr_scheduler.ExponentialLR")
@dataclass
class ExponentialLR:
    """Multiply lr by gamma every epoch."""

    gamma: float = setting("factor per epoch", above=0)


@option("torch.optim.lr_scheduler.CosineAnnealingLR")
@dataclass
class CosineAnnealingLR:
    """Lower lr along half a cosine."""

    T_max: int = setting("epochs to the lowest lr; follows the top-level epochs", least=1)
    eta_min: float = setting("lowest lr", least=0)
