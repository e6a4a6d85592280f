"""The leaderboard of a sweep as a table of text: its jobs, or its settings with the means over their repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from holdfast.sweeps.ended import Job, swept_keys
from holdfast.sweeps.finish import row, with_error
from holdfast.sweeps.rank import Ranking, varied_keys

ALL_SHOWN = 20
"""Largest number of jobs of which all are shown."""

BEST_SHOWN = 10
"""Rows shown when there are more than `ALL_SHOWN` jobs."""

_NOT_SHOWN = ("status", "iterations", "seconds")  # columns of the leaderboard that the table has no room for


def leaderboard_table(rankings: Sequence[Ranking], jobs: Sequence[Job]) -> list[str]:
    """The jobs in aligned columns, best first, with the winners marked; of many jobs only the best."""
    keys = swept_keys(jobs)
    if any(ranking.has_repeats for ranking in rankings):
        return _table_of_settings(rankings, keys)
    shown = [(ranking, position, job) for ranking in rankings for position, job in enumerate(ranking.jobs, start=1)]
    rest = 0
    if len(shown) > ALL_SHOWN:
        best = [entry for entry in shown if entry[1] <= BEST_SHOWN and entry[2].value is not None]
        shown, rest = best, len(shown) - len(best)
    lines: list[list[str]] = []
    for ranking, position, job in shown:
        cells = {name: value for name, value in row(job, keys).items() if name not in _NOT_SHOWN}
        if not lines:
            lines.append(["", "rank", *cells, "status"])
        mark, rank = ("*" if job is ranking.winner else ""), (str(position) if job.value is not None else "-")
        status = job.result.status if job.result.status != "diverged" else str(job.result.error).partition(":")[0]
        lines.append([mark, rank, *map(_cell, cells.values()), status])
    text = _aligned(lines)
    if rest:
        counts = Counter(job.result.status for job in jobs)
        summed = ", ".join(f"{number} {status}" for status, number in counts.items())
        text.append(f"... and {rest} more in leaderboard.csv ({summed})")
    return text


def _table_of_settings(rankings: Sequence[Ranking], keys: Sequence[str]) -> list[str]:
    """The settings in aligned columns, with the means over their repeats, best first; of many only the best."""
    shown = [(ranking, position, each) for ranking in rankings for position, each in enumerate(ranking.settings, 1)]
    rest = [entry for entry in shown if len(shown) > ALL_SHOWN and entry[1] > BEST_SHOWN]
    varied = set().union(*map(varied_keys, rankings))
    own = [key for key in keys if key not in varied]
    metric = next(iter(shown[0][2].jobs.values())).result.metric
    lines = [["", "rank", *own, f"mean {metric}", "repeats", "behind the first"]]
    for ranking, position, each in shown:
        if (ranking, position, each) in rest:
            continue
        best, first = ranking.settings[0], next(iter(each.jobs.values()))
        difference = each.difference(best) if each is not best else None
        apart = "" if difference is None or each.is_told_apart(best) else ", not told apart"
        lines.append(
            [
                "*" if each is best and ranking.winner is not None else "",
                str(position) if each.estimate is not None else "-",
                *(_cell(first.given.get(key)) for key in own),
                with_error(each.estimate),
                f"{each.completed} of {len(each.jobs)}",
                with_error(difference) + apart,
            ]
        )
    return [*_aligned(lines), *([f"... and {len(rest)} more settings in leaderboard.csv"] if rest else [])]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _cell(value: Any) -> str:
    return "-" if value is None else number(value) if isinstance(value, float) else str(value)


def number(value: float | None) -> str:
    """A number with six digits.

    >>> number(0.123456789), number(None)
    ('0.123457', 'nan')
    """
    return "nan" if value is None else f"{value:.6g}"
