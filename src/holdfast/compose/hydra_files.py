"""What Hydra leaves in the folder of every job, without a YAML dumper in the loop over jobs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper

from holdfast.compose.loader import Composed, Loader
from holdfast.compose.overrides import parse

_MARK = "holdfast_mark_{}_"
_BARE = re.compile(r"/[\w./+-]+|[A-Za-z][\w./]*=[\w.,=/+-]*")  # a path, or words: text that YAML leaves unquoted
_BREAK = re.compile(r"[\n\r\x85\u2028\u2029]")


Template = dict[str, tuple[list[str], list[str]]]
"""Files by their names, each in parts, with what stands after each part."""


class Records:
    """The files of `.hydra/` and the log, for jobs of one sweep.

    Args:
        loader: composes the configuration of a job.
        master: that of the sweep.
    """

    def __init__(self, loader: Loader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._folder = str(Path(str(master.hydra.sweep.dir)).absolute())
        self._style = master.hydra.job.config.override_dirname
        self._style = (self._style.exclude_keys, self._style.item_sep, self._style.kv_sep)
        self._templates: dict[Any, Template] = {}

    def files(self, number: int, words: list[str], composed: Composed) -> dict[str, bytes]:
        """The files of one job, by their paths in its folder, as Hydra's `run_job` writes them."""
        values = self._values(words, composed)
        if values is None:
            return {name: text.encode() for name, text in self._texts(number, words, {}).items()}
        place = (id(composed.base), *values)
        if place not in self._templates:
            self._templates[place] = self._template(number, words, values)
        filled = {key: _scalar(type(value).__name__, value) for key, value in values.items()}
        filled |= {f"word {index}": _scalar("str", word) for index, word in enumerate(words)}
        dirname = get_overrides_dirname(parse(words, []), *self._style)
        filled["dirname"], filled["num"], filled["id"] = _text(dirname), str(number), f"'{number}'"
        filled["dir"], filled["end"] = _text(f"{self._folder}/{number}"), ""
        return {
            name: "".join(part + filled[key] for part, key in zip(parts, keys, strict=True)).encode()
            for name, (parts, keys) in self._templates[place].items()
        }

    def job(self, number: int, words: Sequence[str]) -> DictConfig:
        """The whole configuration of one job, as Hydra's launchers make it."""
        config = self._loader.load_sweep_config(self._master, list(words))
        with open_dict(config):
            config.hydra.job.id = number
            config.hydra.job.num = number
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = f"{self._folder}/{number}"
        return config

    def _values(self, words: list[str], composed: Composed) -> dict[str, Any] | None:
        """What the words set, by key; None where a word may do more than set one value."""
        if composed.base is None:
            return None
        values = {}
        for key in (item.key_or_group for item in parse(words, [])):
            node: Any = composed.origin
            for part in key.split("."):
                node = node.get(part) if isinstance(node, dict) else None
            if isinstance(node, dict) or key not in composed.typed:
                continue  # a choice of groups: part of the base
            values[key] = node
        return values

    def _template(self, number: int, words: list[str], values: Mapping[str, Any]) -> Template:
        """The files of a job in parts, with what differs from job to job between them."""
        keys = [*values, *(f"word {index}" for index in range(len(words))), "dirname", "num", "id", "dir"]
        marks = {key: _MARK.format(place) for place, key in enumerate(keys)}
        names = {mark: key for key, mark in marks.items()}
        pattern = re.compile("|".join(marks.values()))
        made = self._texts(number, words, marks)
        found = {name: [names[mark] for mark in pattern.findall(text)] for name, text in made.items()}
        return {name: (pattern.split(text), [*found[name], "end"]) for name, text in made.items()}

    def _texts(self, number: int, words: list[str], marks: Mapping[str, str]) -> dict[str, str]:
        """The files of a job, with marks in the place of what differs from job to job."""
        config = self.job(number, words)
        tasks: dict[str, Any] = OmegaConf.to_container(config, resolve=False, enum_to_str=True)  # type: ignore[assignment]
        hydra = tasks.pop("hydra")
        subdir, files = hydra["output_subdir"], {}
        with as_job(config):
            for handler in config.hydra.job_logging.get("handlers", {}).values():
                if Path(str(handler.get("filename", ""))).parent == Path(self._folder, str(number)):
                    files[Path(handler.filename).name] = ""
        for key, mark in marks.items():
            if key.startswith("word "):
                hydra["overrides"]["task"][int(key[5:])] = mark
            elif key in ("num", "id"):
                hydra["job"][key] = mark
            elif key == "dirname":
                hydra["job"]["override_dirname"] = mark
            elif key == "dir":
                hydra["runtime"]["output_dir"] = mark
            else:
                _put(tasks, key, mark)
        if subdir is not None:
            overrides = hydra["overrides"]["task"]
            for name, value in (("config", tasks), ("hydra", {"hydra": hydra}), ("overrides", overrides)):
                files[f"{subdir}/{name}.yaml"] = _dump(value)
        return files


@contextmanager
def as_job(config: DictConfig) -> Iterator[None]:
    """Let `HydraConfig` be that of one job."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def _put(node: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for key in above:
        node = node[key]
    node[last] = value


def _dump(value: Any, **options: Any) -> str:
    """As OmegaConf.to_yaml dumps a container."""
    options = {"Dumper": get_omega_conf_dumper(), **options}
    text: str = yaml.dump(value, default_flow_style=False, allow_unicode=True, sort_keys=False, **options)
    return text


@cache
def _one_line() -> Any:
    """OmegaConf's dumper, with line breaks as escapes in double quotes, where it would begin a new line."""
    base: Any = get_omega_conf_dumper()

    class OneLine(base):  # type: ignore[misc]
        pass

    def represent(dumper: Any, text: str) -> Any:
        node = base.str_representer(dumper, text)
        node.style = '"' if _BREAK.search(text) else node.style
        return node

    OneLine.add_representer(str, represent)
    return OneLine


@cache
def _scalar(kind: str, value: Any) -> str:
    """A value as it is dumped by itself; its kind is asked for since 1, 1.0 and true are equal."""
    return _text(value)


def _text(value: Any) -> str:
    """A value in one line, which means the same wherever it is filled in."""
    if isinstance(value, str) and _BARE.fullmatch(value):
        return value
    return _dump([value], Dumper=_one_line(), width=math.inf)[2:-1]
