"""Writes `holdfast.config.trainer_arguments` from the signature and the docstring of the installed Trainer.

To write it again: `python -m tests.config.trainer_arguments`.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lightning.pytorch import Trainer

from holdfast.config import trainer_arguments
from holdfast.config.schema import SET_BY_HOLDFAST

FILE = Path(trainer_arguments.__file__)

HEAD = '''\
"""Arguments of `lightning.pytorch.Trainer` with their types and defaults.

Made by `python -m tests.config.trainer_arguments` from the installed Lightning, so that a mistake is reported without
importing it; a test holds the two equal. `schema.py` narrows the types of some.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from holdfast.config.options import setting


@dataclass(kw_only=True)
class TrainerArguments:
    """Arguments of Lightning's Trainer, except for those that Holdfast sets; a mapping names a class as `_target_`."""

'''

PLAIN = {int: "int", float: "float", bool: "bool", str: "str", type(None): "None"}


def type_text(hint: Any) -> str:
    """The source text of a type that values from YAML can have; a class of Lightning's becomes `dict[str, Any]`."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = {type_text(part) for part in get_args(hint)}
        # not in Lightning's order: Python keeps that of the first such union that a process has made
        return " | ".join(
            sorted(parts, key=lambda part: (part == "None", part.partition("[")[0] not in PLAIN.values(), part))
        )
    if get_origin(hint) is Literal:
        return f"Literal[{', '.join(repr(item).replace(chr(39), chr(34)) for item in get_args(hint))}]"
    if get_origin(hint) is list:
        return f"list[{type_text(get_args(hint)[0])}]"
    return PLAIN.get(hint, "dict[str, Any]")


def meanings() -> dict[str, str]:
    """The first sentence that Lightning's documentation says of each argument."""
    documented = (inspect.getdoc(Trainer.__init__) or "").split("Args:\n")[1].split("\nRaises:")[0]
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", documented, re.MULTILINE | re.DOTALL)
    return {name: plain(" ".join(text.split())) for name, text in entries}


def plain(text: str) -> str:
    """The first sentence, without markup, at most 100 characters long."""
    text = re.sub(r":\w+:`~?([\w.]+)`", r"\1", text).replace("``", "").replace("`", "")
    sentence = re.split(r"\.(?:\s|$)", text)[0]
    return textwrap.shorten(sentence[0].lower() + sentence[1:], 90, placeholder=" ...")


def source() -> str:
    """The text of the module."""
    hints, said = get_type_hints(Trainer.__init__), meanings()
    lines = []
    for name, parameter in inspect.signature(Trainer.__init__).parameters.items():
        if name == "self" or name in SET_BY_HOLDFAST:
            continue
        default = repr(parameter.default).replace("'", '"')
        meaning = f'"{said[name]}"' if '"' not in said[name] else repr(said[name])
        lines.append(f"    {name}: {type_text(hints[name])} = setting({meaning}, default={default})")
    text = HEAD + "\n".join(lines) + "\n"
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(FILE), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    FILE.write_text(source())
