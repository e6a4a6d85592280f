"""The grid of a sweep: which overrides list several values, and what those values are."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.config.keys import key_of
from holdfast.errors import ConfigError, Problem

_LOG_INTERVAL = re.compile(r"loginterval(\([^()]*\))")
_SPACED = re.compile(r"(?P<kind>log|lin)space\((?P<arguments>[^()]*)\)")


def spell_out(override: str) -> str:
    """Replace `logspace(first, last, count)` or `linspace(first, last, count)` by the list of its values.

    `loginterval(low, high)` becomes `tag(log,interval(low, high))`, which Hydra's grammar knows.

    `logspace` is given the ends themselves, not their exponents, and its values have equal ratios; those of `linspace`
    have equal differences. Both ends are among the values, exactly.

    Args:
        override: a key and its value, such as `lr=logspace(1e-4, 1e-2, 3)`; any other is returned unchanged.

    Raises:
        ConfigError: the arguments are not two numbers and a count.

    >>> spell_out("lr=logspace(1e-4, 1e-2, 3)"), spell_out("data.noise=linspace(0, 1, 5)")
    ('lr=0.0001,0.001,0.01', 'data.noise=0.0,0.25,0.5,0.75,1.0')
    >>> spell_out("lr=loginterval(1e-5,1)")
    'lr=tag(log,interval(1e-5,1))'
    """
    key, equals, value = override.partition("=")
    value = _LOG_INTERVAL.sub(r"tag(log,interval\1)", value)
    override = key + equals + value
    match = _SPACED.fullmatch(value.strip())
    if not match:
        return override
    kind = match["kind"]
    try:
        first, last, count = match["arguments"].split(",")
        ends, number = (float(first), float(last)), int(count)
    except ValueError:
        raise ConfigError([Problem(override, f"must be {kind}space(first, last, count)")]) from None
    if number < 2 or not all(map(math.isfinite, ends)) or (kind == "log" and min(ends) <= 0):
        raise ConfigError([Problem(override, "needs finite ends, above 0 for logspace, and a count from 2 on")])
    values = _spaced(*ends, number, logarithmic=kind == "log")
    return key + equals + ",".join(map(repr, values))


def overrides_of(params: Mapping[str, Any] | None, typed: Sequence[str]) -> list[str]:
    """The overrides of a sweep: those of `hydra.sweeper.params`, unless typed again, and those that were typed.

    Args:
        params: `hydra.sweeper.params`.
        typed: the overrides of the command line.

    >>> overrides_of({"lr": "0.1,0.2", "seed": 1}, ["lr=5"])
    ['seed=1', 'lr=5']
    """
    kept = [f"{key}={_as_text((params or {})[key])}" for key in unlisted(params, typed)]
    return [spell_out(override) for override in (*kept, *typed)]


def unlisted(params: Mapping[str, Any] | None, typed: Sequence[str]) -> list[str]:
    """The keys of `hydra.sweeper.params` without a typed override; if there are any, the command needs `-m`.

    >>> unlisted({"lr": "0.1,0.2", "seed": 1}, ["lr=5"])
    ['seed']
    """
    again = {key_of(override) for override in typed}
    return [key for key in params or {} if key_of(key) not in again]


def _spaced(first: float, last: float, count: int, *, logarithmic: bool) -> list[float]:
    shares = [step / (count - 1) for step in range(count)]
    if logarithmic:
        values = [first ** (1 - share) * last**share for share in shares]
    else:
        values = [first * (1 - share) + last * share for share in shares]
    # twelve digits: 0.001, not 0.0010000000000000002
    return [first, *(float(f"{value:.12g}") for value in values[1:-1]), last]


def _as_text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
