"""Creating the report of a run or a sweep: figures, an event file for TensorBoard, and the page of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.config.schema import Config
from holdfast.report import tensorboard
from holdfast.report.figures import ReportFigures
from holdfast.report.fitted import ConfigOf
from holdfast.report.page import Image, Page, Section
from holdfast.report.read import JobRecords
from holdfast.report.style import png
from holdfast.stacked.stored import StoredStacks
from holdfast.store.files import replacing
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.store.started import read_sweep
from holdfast.store.test_ledger import TestLedger
from holdfast.sweeps import resume
from holdfast.sweeps.ended import Job, run_command
from holdfast.sweeps.rank import Ranking, rank

MAX_DATA_SETS = 4
"""Data sets of a sweep that get their own figures."""


def report_run(folder: RunFolder, result: Result, config: Config | None) -> list[str]:
    """Draw the figures of a run.

    Args:
        folder: the folder of the run.
        result: its result.
        config: its configuration; None if it cannot be composed again.

    Returns:
        The paths of the figures inside the folder, then why others are missing.
    """
    job = Job(0, result.overrides, "", result)
    figures = ReportFigures(Ranking("", (job,), job, None), JobRecords(lambda number: folder), lambda number: config)
    images = _draw(figures, folder.figures)
    if folder.curves():
        texts = {"config": tensorboard.markdown_code(folder.config_text())}
        tensorboard.write_event_file(folder.report_events, {image.name: image.png for image in images}, texts)
    return [*(f"figures/{image.name}.png" for image in images), *figures.missing]


def report_sweep(folder: SweepFolder, jobs: Sequence[Job], config_of: ConfigOf, flags: Sequence[str] = ()) -> None:
    """Draw the figures of a sweep, and write its page.

    Args:
        folder: the folder of the sweep.
        jobs: all jobs with their results.
        config_of: returns the configuration of a job, given its number.
        flags: those that say where configurations lie, such as `--config-dir`, for the commands on the page.
    """
    sweep = read_sweep(folder)
    rankings = rank(jobs, sweep["mode"], _repeats(sweep))
    stacks = StoredStacks(folder, [entry["config_hash"] for entry in sweep["jobs"]], sweep.get("stacks"))
    sections = list(_sections(folder, rankings, config_of, stacks, sweep.get("searched", [])))
    winner = next((section.winner for section in sections if section.winner), None)
    page = Page(
        name=folder.path.absolute().name,
        command=run_command(["-m", *sweep.get("overrides", [])], flags),
        sections=sections,
        opened=TestLedger(folder.test_ledger).count(),
        why=_why_no_winner(folder, len(rankings)),
        versions=sweep.get("versions", {}),
        plan=_plan(sweep.get("plan", {})),
        config=folder.job(winner.number).config_text() if winner else "",
        flags=flags,
    )
    if any(folder.job(job.number).curves() for job in jobs):
        texts = {
            "leaderboard": "\n\n".join(tensorboard.markdown_table(section.leaderboard) for section in sections),
            "config": tensorboard.markdown_code(page.config),
        }
        images = {image.name: image.png for section in sections for image in section.images}
        tensorboard.write_event_file(folder.report_events, images, texts)
    with replacing(folder.page) as stream:
        stream.write(page.html().encode())


def _sections(
    folder: SweepFolder, rankings: Sequence[Ranking], config_of: ConfigOf, stacks: StoredStacks, drawn: Sequence[str]
) -> Iterator[Section]:
    """Draw the figures of each data set, and yield its section."""
    selections, records = resume.selections(folder) or [], JobRecords(folder.job, stacks)
    for index, ranking in enumerate(rankings):
        figures = ReportFigures(ranking, records, config_of, drawn)
        prefix = f"data{index + 1}_" if len(rankings) > 1 else ""
        images = _draw(figures, folder.figures, prefix) if index < MAX_DATA_SETS else []
        number = ranking.winner.number if ranking.winner else None
        selection = next((entry for entry in selections if entry.get("winner") == number), None)
        yield Section(ranking, selection, figures.least_squares(), images, figures.missing)


def _draw(figures: ReportFigures, folder: Path, prefix: str = "") -> list[Image]:
    """Draw all figures, and write them to a folder."""
    images = [Image(f"{prefix}{drawn.name}", drawn.caption, png(drawn.figure)) for drawn in figures.draw()]
    if images:
        folder.mkdir(exist_ok=True)
    for image in images:
        with replacing(folder / f"{image.name}.png") as stream:
            stream.write(image.png)
    return images


def _repeats(sweep: Mapping[str, Any]) -> list[str]:
    """The keys in which repeats of the same settings differ; a sweep of an earlier version has not recorded them."""
    return list(sweep["config"].get("sweep", {}).get("repeats", ["seed"]))


def _why_no_winner(folder: SweepFolder, data_sets: int) -> str | None:
    if not folder.selection.exists():
        return "the sweep is not finished"
    return "the data differ between jobs, which are compared on the same rows only" if data_sets > 1 else None


def _plan(plan: Mapping[str, Any]) -> list[str]:
    """Return sentences on how the jobs of a sweep were trained, from the plan in `sweep.json`."""
    stacks, alone = plan.get("stacks", []), plan.get("alone", {})
    sentences = []
    if stacks:
        sentences.append(
            f"{sum(map(len, stacks))} jobs were trained in {len(stacks)} stack{'s' if len(stacks) > 1 else ''}."
        )
    if alone:
        sentences.append(f"{len(alone)} jobs ran alone: {'; '.join(sorted(set(map(str, alone.values()))))}.")
    return sentences
