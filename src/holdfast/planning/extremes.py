"""Which jobs a trial trains: those with the extreme values of every key that is swept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from holdfast.config.schema import Config

_MOST_NAMED_VALUES = 4
"""Values of a key, if they are not numbers, that are each in the trial."""


def extremes(configs: Sequence[Config]) -> list[int]:
    """Choose few jobs that cover the smallest and the largest value of every key in which jobs differ.

    Of values that are not numbers, each of the first `_MOST_NAMED_VALUES` is covered.

    Args:
        configs: configurations of jobs.

    Returns:
        Indexes of the chosen jobs, ascending; at least two if there are two jobs.

    >>> from types import SimpleNamespace
    >>> groups = {"data": {}, "model": {}, "optimizer": {}, "scheduler": {}}
    >>> jobs = [SimpleNamespace(lr=lr, seed=seed, **groups) for lr in (0.1, 0.2, 0.3) for seed in (0, 1)]
    >>> extremes(jobs)
    [0, 5]
    """
    values = [_values(config) for config in configs]
    missing: set[tuple[str, str]] = set()  # keys and values, as text, that no chosen job has
    for key in dict.fromkeys(key for each in values for key in each):
        different: dict[str, Any] = {repr(each.get(key)): each.get(key) for each in values}
        if len(different) > 1:
            numbers = [text for text, value in different.items() if _is_number(value)]
            numbers.sort(key=lambda text: different[text])
            named = [text for text in different if text not in numbers][:_MOST_NAMED_VALUES]
            missing |= {(key, text) for text in (*numbers[:1], *numbers[-1:], *named)}
    covered = [{(key, text) for key, text in missing if repr(each.get(key)) == text} for each in values]
    chosen: list[int] = []
    while missing:
        best = max(range(len(configs)), key=lambda index: len(covered[index] & missing))
        chosen.append(best)
        missing -= covered[best]
    others = [index for index in range(len(configs)) if index not in chosen]
    return sorted(chosen + others[: max(0, 2 - len(chosen))])


def _values(config: Config) -> dict[str, Any]:
    """The values of all keys in which the jobs of a stack may differ."""
    keys = ("lr", "seed", "data", "model", "optimizer", "scheduler")
    return dict(leaf for key in keys for leaf in _leaves(key, getattr(config, key)))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}[{index}]", item)
    else:
        yield path, value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
