"""The end of a sweep, from the files of its jobs: leaderboard, the one opening of the test rows, selection."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.config.commands import resume_command
from holdfast.errors import HoldfastError, in_a_line
from holdfast.store.files import digest, replacing, write_json
from holdfast.store.folders import SweepFolder
from holdfast.store.result import Result
from holdfast.store.test_ledger import TestLedger
from holdfast.sweeps.effects import identical, without_effect
from holdfast.sweeps.ended import Job, swept_keys
from holdfast.sweeps.rank import Ranking
from holdfast.sweeps.refit import Final
from holdfast.sweeps.repeats import Estimate, Settings

Keep = Callable[[Sequence[Ranking]], None]
"""Keeps the folders of some of the ranked jobs, and removes those of the others."""


FinalOf = Callable[[Ranking, int | None], Final]
"""Returns the run that is tested, of a ranking with a winner; the number of the winner where there are several."""


@dataclass(frozen=True)
class Finished:
    """A finished sweep.

    Attributes:
        rankings: the ranked jobs of each data set.
        selections: the content of `selection.json` for each data set that has a winner.
    """

    rankings: list[Ranking]
    selections: list[dict[str, Any]]

    @property
    def exit_code(self) -> int:
        """0 if no job failed and every winner was tested, otherwise 1."""
        failed = any(job.result.status == "failed" for ranking in self.rankings for job in ranking.jobs)
        tested = not any("test_error" in entry for entry in self.selections)
        return 0 if self.selections and tested and not failed else 1


def finish(
    folder: SweepFolder,
    rankings: list[Ranking],
    keep: Keep,
    final_of: FinalOf,
    verified: Mapping[str, Any],
    *,
    again: bool = False,
) -> Finished:
    """Keep the folders of some jobs, test the winner, and write the leaderboard and the selection.

    The number of the winner and the digest of its weights are on disk before the test rows are read; `selection.json`
    is written last. Where the data differ between jobs, there is a winner, and an opening, for each data set.

    Args:
        folder: folder of the sweep.
        rankings: the ranked jobs of each data set.
        keep: keeps the folders of some jobs, and removes the others.
        final_of: returns the run that is tested.
        verified: what `selection.json` says of the verification.
        again: whether test rows that were opened before are opened again.

    Raises:
        HoldfastError: a winner's files could not be written; no test rows were opened for it.
    """
    _write_leaderboard(folder, rankings)
    keep(rankings)
    selections, finals = _test_winners(folder, rankings, final_of, again=again)
    selections = [{**entry, **verified} for entry in selections]
    _write_selection(folder, rankings, selections, finals)
    return Finished(rankings, selections)


def _test_winners(
    folder: SweepFolder, rankings: Sequence[Ranking], final_of: FinalOf, *, again: bool
) -> tuple[list[dict[str, Any]], list[Final]]:
    """Evaluate the winner of each data set on the test rows; returns their entries in `selection.json`."""
    ledger = TestLedger(folder.test_ledger, again=again)
    selections, finals = [], []
    for ranking in rankings:
        if (winner := ranking.winner) is None:
            continue
        final = final_of(ranking, winner.number if len(rankings) > 1 else None)
        if not final.run.best.exists():
            raise HoldfastError(
                f"{winner.name} won, but its files could not be kept; no test rows were opened for it.\n"
                f"To train it again: {resume_command(folder.path, sweep=True)}"
            )
        entry = {**_selected(ranking, winner), **_refit(final.refitted), "test": None}
        try:
            entry["test"] = _test(ledger, ranking.data, winner.number, final)
        except Exception as error:  # a winner that cannot be tested is the winner all the same
            entry["test_error"] = in_a_line(error)
        selections.append({**entry, "test_opened": ledger.count(ranking.data)})
        finals.append(final)
    return selections, finals


def _write_selection(
    folder: SweepFolder, rankings: Sequence[Ranking], selections: list[dict[str, Any]], finals: Sequence[Final]
) -> None:
    if len(rankings) == 1 and selections:
        folder.copy_winner(finals[0].run)
        selections[0]["sha256"] = folder.digests()
        write_json(folder.selection, selections[0])
        return
    varied = f"the sweep varies the data: {len(rankings)} data sets, never compared"
    why = varied if selections else "no job completed"
    write_json(folder.selection, {"winner": None, "why": why, "data_sets": selections})


def _test(ledger: TestLedger, data: str, winner: int, final: Final) -> dict[str, float] | None:
    """The test metrics of a winner: those on record, or else of the test rows, which are opened for it."""
    from holdfast.single.trainer import test_best

    weights = digest(final.run.best)
    recorded = ledger.metrics(weights, data)
    if recorded is not None:
        return recorded
    ledger.check(data)
    metrics = test_best(final.config, final.run, lambda: ledger.open(weights, data=data, winner=winner))
    ledger.add_metrics(weights, data, metrics)
    return metrics


def _selected(ranking: Ranking, winner: Job) -> dict[str, Any]:
    """The entry of a winner in `selection.json`, without its test metrics."""
    metric, best = winner.result.metric, ranking.settings[0]
    return {
        "winner": winner.number,
        "overrides": winner.overrides,
        "metric": metric,
        "value": estimate.mean if best.folds and (estimate := best.estimate) else winner.value,
        "margin": ranking.margin,
        "why": _why(ranking, metric),
        **({"repeats": repeats_of(best)} if len(best.jobs) > 1 else {}),
        **({"epoch": best.epoch} if best.folds else {}),
        "data": ranking.data,
        "without_effect": without_effect(ranking.jobs),
        "identical": identical(ranking.jobs),
    }


def _refit(refitted: Result | None) -> dict[str, Any]:
    """What `selection.json` says of a winner that was trained once more."""
    return {} if refitted is None else {"refit": True, "refit_overrides": refitted.overrides}


def _why(ranking: Ranking, metric: str) -> str:
    """Why the winner won, and by how much."""
    best, *others = ranking.settings
    if not ranking.has_repeats:
        runner_up = ""
        if ranking.margin is not None:
            ahead = f"{ranking.margin:.6g} ahead of" if ranking.margin else "the same as that of"
            runner_up = f", {ahead} job {ranking.jobs[1].number}"
        completed = sum(job.value is not None for job in ranking.jobs)
        return f"best {metric} of {completed} completed job{'s' if completed > 1 else ''}{runner_up}"
    ranked = sum(each.estimate is not None for each in ranking.settings)
    over = f"over {len(best.jobs)} {best.kind}" + ("" if best.epoch is None else f" in epoch {best.epoch}")
    text = f"best mean {metric} of {ranked} settings, {with_error(best.estimate)} {over}"
    if ranking.margin is None:
        return text
    first = next(iter(best.jobs.values()))
    differing = " ".join(item for item in others[0].overrides if item not in first.overrides)
    if not ranking.margin:
        return f"{text}, the same as that of {differing}"
    apart = "" if others[0].is_told_apart(best) else ", which is not told apart"
    return f"{text}, {ranking.margin:.6g} ahead of {differing}{apart}"


def with_error(found: Estimate | None) -> str:
    """A mean and its standard error, such as `2.3 ± 0.1`.

    >>> with_error(Estimate(2756.123, 118.2))
    '2756.12 ± 120'
    """
    if found is None:
        return "-"
    error = "" if found.standard_error is None else f" ± {float(f'{found.standard_error:.2g}'):g}"
    return f"{found.mean:.6g}{error}"


def repeats_of(settings: Settings) -> dict[str, Any]:
    """The statistics of some settings, as in `selection.json`."""
    found = settings.estimate
    return {
        "mean": None if found is None else found.mean,
        "standard_error": None if found is None else found.standard_error,
        "completed": settings.completed,
    }


def row(job: Job, keys: Sequence[str]) -> dict[str, Any]:
    """One row of the leaderboard, without its rank.

    Args:
        job: the job of this row.
        keys: the swept keys, which have a column each.
    """
    best = job.result.best or {}
    metrics = dict.fromkeys(("val/loss", "train/loss", job.result.metric))
    return {
        "job": job.number,
        "status": job.result.status,
        **{key: job.given.get(key) for key in keys},
        **{name: best.get(name) for name in metrics},
        "best_epoch": best.get("epoch"),
        "iterations": job.result.iterations,
        "seconds": round(job.result.seconds, 3),
    }


def settings_columns(settings: Settings, best: Settings) -> dict[str, Any]:
    """The columns of the leaderboard that compare settings by their repeats.

    Args:
        settings: of the row.
        best: the first of the ranking.
    """
    difference = settings.difference(best) if settings is not best else None
    return {
        **repeats_of(settings),
        "difference": None if difference is None else difference.mean,
        "difference_standard_error": None if difference is None else difference.standard_error,
    }


def _write_leaderboard(folder: SweepFolder, rankings: Sequence[Ranking]) -> None:
    keys = swept_keys([job for ranking in rankings for job in ranking.jobs])
    has_repeats = any(ranking.has_repeats for ranking in rankings)
    lines = []
    for ranking in rankings:
        settings = {job.number: each for each in ranking.settings for job in each.jobs.values()}
        for position, job in enumerate(ranking.jobs, start=1):
            own = settings[job.number]
            rank_of_job = position if own.estimate is not None else None
            statistics = settings_columns(own, ranking.settings[0]) if has_repeats else {}
            lines.append({"rank": rank_of_job, **row(job, keys), **statistics})
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    with replacing(folder.leaderboard) as stream:
        stream.write(text.getvalue().encode())
