"""Where a search looks for values: the intervals of its keys."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

_TAGS = frozenset({"log", "int"})

_NO_NUMBERS = {
    "seed": "seeds are repeats of the same settings, not settings: list them, such as seed=range(5)",
    "data.seed": "seeds are repeats of the same settings, not settings: list them, such as data.seed=range(5)",
}
"""Keys that no interval can stand for, and what to type instead."""


@dataclass(frozen=True)
class Interval:
    """The values that a search may give to a key.

    Attributes:
        override: as it was typed.
        key: the key, with a `+` or `++` before it where that was typed.
        low, high: the ends, both included.
        tags: `log` for values that are spread evenly in their logarithm, `int` for whole numbers.
    """

    override: str
    key: str
    low: float
    high: float
    tags: frozenset[str] = frozenset()

    def lesson(self, groups: Collection[str]) -> str | None:
        """What is wrong with it; None if nothing is.

        Args:
            groups: the config groups, whose options have no order.

        >>> Interval("lr=interval(1,0)", "lr", 1, 0).lesson([])
        'has its ends reversed: interval(0,1)'
        """
        key, low, high = self.key.lstrip("+"), _text(self.low), _text(self.high)
        is_whole = float(self.low).is_integer() and float(self.high).is_integer()
        lessons = {
            "needs two finite ends": not all(map(math.isfinite, (self.low, self.high))),
            f"has its ends reversed: interval({high},{low})": self.low > self.high,
            f"holds one value: {self.key}={low}": self.low == self.high,
            "has a tag that is neither log nor int": bool(self.tags - _TAGS),
            f"needs ends above 0 under log, which {low} is not": "log" in self.tags and self.low <= 0,
            "needs whole numbers as its ends, since it draws whole numbers": "int" in self.tags and not is_whole,
            f"{key} is a config group: list its options, such as {key}=a,b": key in groups,
            _NO_NUMBERS.get(key, ""): key in _NO_NUMBERS,
        }
        return next((lesson for lesson, applies in lessons.items() if applies), None)

    @property
    def count(self) -> int:
        """How many values it has; 0 for fractions, which have no number."""
        return int(self.high - self.low) + 1 if "int" in self.tags else 0

    def value(self, share: float) -> str:
        """The value at a share of the way from one end to the other, as text with six digits.

        Args:
            share: from 0 to 1.

        >>> Interval("", "lr", 1e-4, 1.0, frozenset({"log"})).value(0.5)
        '0.01'
        >>> [Interval("", "n", 1, 3, frozenset({"int"})).value(share) for share in (0.0, 0.34, 0.99)]
        ['1', '2', '3']
        """
        # a whole number is what is nearest, so that each of them has an equal share
        margin = 0.5 if "int" in self.tags else 0.0
        low, high = self.low - margin, self.high + margin
        if "log" in self.tags:
            point = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            point = low + share * (high - low)
        if "int" in self.tags:
            return str(min(max(math.floor(point + 0.5), int(self.low)), int(self.high)))
        return _text(min(max(float(f"{point:.6g}"), self.low), self.high))

    def share(self, value: float) -> float:
        """Where a value lies on the way from one end to the other, from 0 to 1.

        >>> Interval("", "lr", 1e-4, 1.0, frozenset({"log"})).share(0.01)
        0.5
        """
        margin = 0.5 if "int" in self.tags else 0.0
        low, high = self.low - margin, self.high + margin
        if "log" in self.tags:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return min(max((value - low) / (high - low), 0.0), 1.0)


def _text(value: float) -> str:
    """A number as a user would type it."""
    return repr(float(value)).removesuffix(".0")
