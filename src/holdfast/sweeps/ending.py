"""The end of a sweep whose jobs have ended: folders are kept, the winner is tested, the report is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.config.job import in_folder
from holdfast.report import console
from holdfast.store.files import write_json
from holdfast.store.started import read_sweep
from holdfast.sweeps import resume
from holdfast.sweeps.keep import MOST_WITH_EVENTS, kept, remove_folders, stack_digests, write_folders
from holdfast.sweeps.rank import Ranking
from holdfast.sweeps.refit import Final, refit, refit_job
from holdfast.sweeps.spec import Tools
from holdfast.sweeps.underway import Underway


def end_if_finished(sweep: Underway) -> int | None:
    """Print the leaderboard of a sweep that has nothing left to do, and return its exit code; otherwise None."""
    from holdfast.sweeps.finish import Finished

    selections = resume.selections(sweep.folder)
    if len(sweep.results) < len(sweep.spec.jobs) or sweep.has_more_rounds() or sweep.spec.test_again:
        return None
    if selections is None or not resume.is_whole(sweep.folder, selections):
        return None
    finished = Finished(sweep.ranked(), selections)
    if not _has_all_folders(sweep, finished.rankings):
        return None
    print(console.leaderboard(sweep.folder, finished, sweep.spec.flags))
    print("this sweep is finished; nothing was done")
    if sweep.first.report is not False and not sweep.folder.page.exists():
        _report(sweep)
    return finished.exit_code


def end_sweep(sweep: Underway, tools: Tools, verified: Mapping[str, Any]) -> int:
    """Choose the winner, test it, report and print; returns the exit code.

    Args:
        sweep: all jobs of it have ended.
        tools: what it works with.
        verified: what `selection.json` says of the verification.
    """
    from holdfast.sweeps.finish import finish

    def keep(rankings: Sequence[Ranking]) -> None:
        _keep(sweep, tools, rankings)

    def final_of(ranking: Ranking, number: int | None) -> Final:
        return _final(sweep, tools, ranking, number)

    resume.check_tables(sweep.folder, sweep.recorded, sweep.spec.jobs)
    finished = finish(sweep.folder, sweep.ranked(), keep, final_of, verified, again=sweep.spec.test_again)
    if sweep.first.report is not False:
        _report(sweep)
    print(console.leaderboard(sweep.folder, finished, sweep.spec.flags))
    return finished.exit_code


def _has_all_folders(sweep: Underway, rankings: Sequence[Ranking]) -> bool:
    """Whether the folders that are kept are complete: those of stacks are written again from the archives."""
    numbers = kept(rankings, sweep.first.sweep.keep)
    completed = (number for number in numbers if sweep.results[number].status != "failed")
    refits = [sweep.folder.refit()] if len(rankings) == 1 and rankings[0].settings[0].folds else []
    has_refits = all((result := run.read()) and run.finished(result.config_hash) for run in refits)
    return has_refits and all(sweep.folder.job(number).finished(sweep.hashes[number]) for number in completed)


def _final(sweep: Underway, tools: Tools, ranking: Ranking, number: int | None) -> Final:
    """The run of a winner that is tested and exported: its job, or of folds the one on all of their rows."""
    assert ranking.winner is not None
    winner = sweep.spec.jobs[ranking.winner.number]
    if not ranking.settings[0].folds:
        run = sweep.folder.job(winner.number)
        return Final(run, in_folder(winner.config, run.path))
    job = refit_job(winner, ranking.settings[0], sweep.spec.compose)
    return refit(job, sweep.folder.refit(number), tools.train_apart)


def _keep(sweep: Underway, tools: Tools, rankings: Sequence[Ranking]) -> None:
    """Write the results of all jobs, and the folders of those that `sweep.keep` names; remove the others."""
    from holdfast.stacked.stored import StoredStacks

    folder, stacks = sweep.folder, StoredStacks(sweep.folder, sweep.hashes)
    numbers = kept(rankings, sweep.first.sweep.keep)
    jobs = [job for job in sweep.spec.jobs if job.number in numbers]
    sweep.results |= write_folders(folder, stacks, jobs, sweep.results, tools.hydra_files)
    # an executor may have added to the file what it needs to be resumed
    write_json(folder.sweep, {**read_sweep(folder), "stacks": stack_digests(folder)})
    folder.write_results(sweep.results)
    others = [number for number in sweep.configs if number not in numbers]
    remove_folders(folder, others, stacks, events=len(sweep.configs) > MOST_WITH_EVENTS)


def _report(sweep: Underway) -> None:
    """Draw the report; a sweep whose report cannot be drawn is finished all the same."""
    try:
        from holdfast.report.create import report_sweep

        report_sweep(sweep.folder, sweep.ended_jobs(), sweep.config_of, sweep.spec.flags)
    except Exception as error:
        print(console.report_failed(error, sweep.folder.path))
