"""What MkDocs shows beside the pages of docs/: README, CONTRIBUTING and CHANGELOG, every key, and the Python API."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from holdfast.cli.help import Group, groups
from holdfast.cli.main import CONF
from holdfast.config.keys import as_override

ROOT = Path(__file__).resolve().parents[1]
COPIED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository, and the names of their pages."""

PUBLIC = {
    "holdfast.run": "holdfast.api.calls.run",
    "holdfast.sweep": "holdfast.api.calls.sweep",
    "holdfast.load": "holdfast.api.calls.load",
    "holdfast.Run": "holdfast.api.finished.Run",
    "holdfast.Sweep": "holdfast.api.finished.Sweep",
    "holdfast.HoldfastError": "holdfast.errors.HoldfastError",
    "holdfast.ConfigError": "holdfast.errors.ConfigError",
    "holdfast.errors.Problem": "holdfast.errors.Problem",
    "holdfast.errors.FolderError": "holdfast.errors.FolderError",
    "holdfast.errors.DataError": "holdfast.errors.DataError",
    "holdfast.errors.TableError": "holdfast.errors.TableError",
    "holdfast.model.Module": "holdfast.model.module.Module",
    "holdfast.model.Regression": "holdfast.model.regressors.Regression",
    "holdfast.data.DataModule": "holdfast.data.datamodule.DataModule",
}
"""What is public from Python, in the order of its page, and where it is defined."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    texts = {page: (ROOT / name).read_text() for name, page in COPIED.items()}
    texts |= {"keys.md": keys_page(), "api.md": api_page()}
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead to the pages of the site."""
    for name, target in COPIED.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}", f"]({target}", markdown)
    return re.sub(r"\]\(docs/", "](", markdown) if page.file.src_uri in COPIED.values() else markdown


def keys_page() -> str:
    """Every key with its default, as `python train.py --help` prints them."""
    lines = [
        "# Keys",
        "",
        "Every key of the configuration, its default, its meaning, and what it may be. `python train.py --help` prints "
        "the same list. Where files of one group share a key, it stands with the first of them.",
    ]
    for group in groups(CONF):
        lines += ["", f"## {_title(group)}"]
        if group.options:
            lines += ["", "Options: " + ", ".join(f"`{group.name}={name}`" for name in group.options)]
        for section in group.sections:
            lines += ["", f"**{section.title}**"] if section.title else []
            lines += ["", "| key | meaning | value |", "|---|---|---|"]
            for key in section.keys:
                shown = f"{key.path}=VALUE" if key.default is ... else as_override(key.path, key.default)
                lines.append(f"| {_code(shown)} | {_text(key.meaning)} | {_text(key.allowed)} |")
    return "\n".join(lines) + "\n"


def api_page() -> str:
    """What is public from Python, from its docstrings."""
    lines = ["# Python API", "", "How these are used: [From Python](python.md), [Your own code](your_own_code.md).", ""]
    for shown, name in PUBLIC.items():
        lines += [f"::: {name}", "    options:", f"      heading: {shown}", f"      toc_label: {shown}", ""]
    return "\n".join(lines)


def _title(group: Group) -> str:
    return group.name or "At the top"


def _code(text: str) -> str:
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _text(text: str) -> str:
    return html.escape(text).replace("|", "&#124;")
