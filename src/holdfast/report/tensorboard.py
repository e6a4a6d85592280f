"""What TensorBoard shows beside the curves: figures in Images, leaderboard and configuration in Text."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.record import events
from holdfast.store.files import replacing
from holdfast.store.folders import RunFolder

SHOWN = 100
"""Rows of the leaderboard in Text; all of them are in the CSV file."""


def write(path: Path, images: Mapping[str, bytes], texts: Mapping[str, str]) -> None:
    """Write an event file of its own, in the place of an earlier one.

    Args:
        path: the file.
        images: PNG files by their names.
        texts: markdown by its names.
    """
    now = time.time()
    records = [events.version(now)]
    records += [events.text(name, text, now) for name, text in texts.items()]
    records += [events.image(f"figures/{name}", png, now) for name, png in images.items()]
    with replacing(path) as stream:
        stream.write(b"".join(records))


def write_config(folder: RunFolder) -> None:
    """Let TensorBoard's Text show the configuration of a run that nothing is drawn of."""
    write(folder.report_events, {}, {"config": code(folder.config_text())})


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a markdown table, what is in them escaped.

    >>> print(table([{"job": 0, "lr": "0.1|<b>"}]))
    | job | lr |
    |---|---|
    | 0 | 0.1&#124;&lt;b&gt; |
    """
    if not rows:
        return "no jobs"
    lines = [list(rows[0]), *(list(row.values()) for row in rows[:SHOWN])]
    texts = ["| " + " | ".join(map(_cell, line)) + " |" for line in lines]
    more = [f"\n... and {len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
    return "\n".join([texts[0], "|" + "---|" * len(rows[0]), *texts[1:], *more])


def code(text: str) -> str:
    """Text as it is, in markdown."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return html.escape(text).replace("|", "&#124;").replace("\n", " ")
