"""The report of a run or a sweep: figures, TensorBoard's pictures and texts, and the page, written into its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.config.schema import Config
from holdfast.report import tensorboard
from holdfast.report.page import Page, Section, command
from holdfast.report.pictures import Pictures
from holdfast.report.read import ConfigOf
from holdfast.report.style import png
from holdfast.store.files import replacing
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.store.test_ledger import opened
from holdfast.sweeps import resume
from holdfast.sweeps.rank import Job, Ranking, rank

MOST_SETS = 4
"""Data sets of a sweep that get figures of their own."""

Images = list[tuple[str, str, bytes]]


def report_run(folder: RunFolder, result: Result, config: Config | None) -> list[str]:
    """Draw the figures of a run; returns their names, and why others are missing.

    Args:
        folder: the run's.
        result: how it ended.
        config: what it was trained with, if that is known.
    """
    job = Job(0, result.overrides, "", result)
    pictures = Pictures(Ranking("", (job,), job, None), lambda number: folder, lambda number: config)
    images = _images(pictures, folder.figures)
    if folder.curves():
        texts = {"config": tensorboard.code(folder.config_text())}
        tensorboard.write(folder.report_events, {name: data for name, _, data in images}, texts)
    return [*(f"figures/{name}.png" for name, _, _ in images), *pictures.missing]


def report_sweep(folder: SweepFolder, jobs: Sequence[Job], config_of: ConfigOf) -> None:
    """Draw the figures of a sweep and write its page.

    Args:
        folder: the sweep's.
        jobs: every job and how it ended.
        config_of: the configuration of a job, if that is known.
    """
    told = resume.read(folder)
    selections = resume.selections(folder) or []
    rankings = rank(jobs, told["mode"])
    sections, images = [], Images()
    for place, ranking in enumerate(rankings):
        pictures = Pictures(ranking, folder.job, config_of)
        prefix = f"data{place + 1}_" if len(rankings) > 1 else ""
        drawn = _images(pictures, folder.figures, prefix) if place < MOST_SETS else []
        images += drawn
        number = ranking.winner.number if ranking.winner else None
        selection = next((entry for entry in selections if entry.get("winner") == number), None)
        sections.append(Section(ranking, selection, pictures.least_squares(), drawn, pictures.missing))
    winner = next((ranking.winner for ranking in rankings if ranking.winner), None)
    config = folder.job(winner.number).config_text() if winner else ""
    page = Page(
        name=folder.path.absolute().name,
        command=command(told.get("overrides", [])),
        sections=sections,
        opened=opened(folder),
        why=_why(folder, rankings),
        versions=told.get("versions", {}),
        plan=_plan(told.get("plan", {})),
        config=config,
    )
    texts = {"leaderboard": "\n\n".join(tensorboard.table(section.rows) for section in sections)}
    if any(folder.job(job.number).curves() for job in jobs):
        texts["config"] = tensorboard.code(config)
        tensorboard.write(folder.report_events, {name: data for name, _, data in images}, texts)
    with replacing(folder.page) as stream:
        stream.write(page.html().encode())


def _images(pictures: Pictures, folder: Any, prefix: str = "") -> Images:
    """Draw every figure, and keep it as a file."""
    images = [(f"{prefix}{picture.name}", picture.caption, png(picture.figure)) for picture in pictures.all()]
    if images:
        folder.mkdir(exist_ok=True)
    for name, _, data in images:
        with replacing(folder / f"{name}.png") as stream:
            stream.write(data)
    return images


def _why(folder: SweepFolder, rankings: Sequence[Ranking]) -> str | None:
    if not folder.selection.exists():
        return "the sweep is not finished"
    return "the data differ between jobs, which are compared on the same rows only" if len(rankings) > 1 else None


def _plan(plan: dict[str, Any]) -> list[str]:
    stacks, alone = plan.get("stacks", []), plan.get("alone", {})
    reasons = sorted(set(map(str, alone.values())))
    told = [f"{sum(map(len, stacks))} jobs were trained in {len(stacks)} stacks."] if stacks else []
    return told + ([f"{len(alone)} jobs ran alone: {'; '.join(reasons)}."] if alone else [])
