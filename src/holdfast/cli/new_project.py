"""`holdfast new FOLDER`: a project of one's own, with a data module, a module, configuration and a test."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from string import Template

import holdfast
from holdfast.errors import FolderError, HoldfastError
from holdfast.store.files import make_folder, replacing

_TEMPLATE = Path(__file__).with_name("project")
"""The files of a project, each with `.txt` after its name, so that no tool takes them for Holdfast's own."""

_HIDDEN = {"gitignore": ".gitignore"}


def new(words: Sequence[str]) -> int:
    """`holdfast new FOLDER`: make a project of your own, with a data module, a module, configuration and a test."""
    import argparse

    parser = argparse.ArgumentParser(prog="holdfast new", description=new.__doc__)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet, or is empty")
    folder = parser.parse_args(words).folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FolderError(f"{folder} is not empty: name a folder that does not exist yet; nothing was written.")
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not name:
        raise HoldfastError(f"{folder} gives the project no name: use some of a-z and 0-9 in it.")
    for file in sorted(_TEMPLATE.rglob("*.txt")):
        relative = file.relative_to(_TEMPLATE).with_suffix("")
        target = folder / relative.with_name(_HIDDEN.get(relative.name, relative.name))
        make_folder(target.parent)
        text = file.read_text()
        if relative.name in ("README.md", "pyproject.toml"):
            text = Template(text).substitute(name=name, version=holdfast.__version__)
        with replacing(target) as stream:
            stream.write(text.encode())
    print(f"{folder}: a project. cd {shlex.quote(str(folder))} && python train.py -m lr=0.001,0.01,0.1")
    return 0
