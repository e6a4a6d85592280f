"""Event files for TensorBoard's Images and Text tabs: figures, leaderboard, configuration."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from holdfast.record import events
from holdfast.store.files import replacing
from holdfast.store.folders import RunFolder

MAX_ROWS = 100
"""Rows of the leaderboard in the Text tab; `leaderboard.csv` has all rows."""


def write_event_file(path: Path, images: Mapping[str, bytes], texts: Mapping[str, str]) -> None:
    """Write an event file with images and texts, replacing an earlier one.

    Args:
        path: the file.
        images: PNG files by name.
        texts: markdown by name.
    """
    now = time.time()
    records = [events.version(now)]
    records += [events.text(name, text, now) for name, text in texts.items()]
    records += [events.image(f"figures/{name}", png, now) for name, png in images.items()]
    with replacing(path) as stream:
        stream.write(b"".join(records))


def write_config(folder: RunFolder) -> None:
    """Write the event file of a run without figures: its configuration, for the Text tab."""
    write_event_file(folder.report_events, {}, {"config": markdown_code(folder.config_text())})


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows with the same keys as a markdown table, with escaped cells.

    >>> print(markdown_table([{"job": 0, "lr": "0.1|<b>"}]))
    | job | lr |
    |---|---|
    | 0 | 0.1&#124;&lt;b&gt; |
    """
    if not rows:
        return "no jobs"
    cells = [list(rows[0]), *(list(row.values()) for row in rows[:MAX_ROWS])]
    head, *lines = ["| " + " | ".join(map(_cell, line)) + " |" for line in cells]
    more = [f"\n... and {len(rows) - MAX_ROWS} more"] if len(rows) > MAX_ROWS else []
    return "\n".join([head, "|" + "---|" * len(rows[0]), *lines, *more])


def markdown_code(text: str) -> str:
    """Return text as a markdown code block, which is indented by four spaces.

    >>> markdown_code("lr: 0.1")
    '    lr: 0.1'
    """
    return "\n".join(f"    {line}" for line in text.splitlines())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return html.escape(text).replace("|", "&#124;").replace("\n", " ")
