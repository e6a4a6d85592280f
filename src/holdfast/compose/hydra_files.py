"""The files that Hydra leaves in the folder of a job, for jobs that are trained in a stack.

Dumping them takes Hydra 5 ms a job. Here the files of one job are dumped with marks in the place of whatever differs
from job to job, and the marks are replaced for each further job.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_loader_impl import get_overrides_dirname
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper

from holdfast.compose.composed import as_hydra_config
from holdfast.compose.loader import Loader
from holdfast.compose.overrides import parse
from holdfast.config.job import JobSpec

_MARK = "holdfast_mark_{}_"
_UNQUOTED = re.compile(r"/[\w./+-]+|[A-Za-z][\w./]*=[\w.,=/+-]*")  # a path, or overrides: text that YAML does not quote
_LINE_BREAK = re.compile(r"[\n\r\x85\u2028\u2029]")

Template = dict[str, tuple[list[str], list[str]]]
"""Files by their paths: the fixed parts of the text, and the key of the value that follows each part."""


class HydraFiles:
    """The files of `.hydra/` and the log, for the jobs of one sweep.

    Args:
        loader: composes the configuration of a job.
        sweep_config: the configuration of the sweep, with the folder that it has claimed.
    """

    def __init__(self, loader: Loader, sweep_config: DictConfig) -> None:
        self._loader, self._sweep_config = loader, sweep_config
        self._folder = str(Path(str(sweep_config.hydra.sweep.dir)).absolute())
        style = sweep_config.hydra.job.config.override_dirname
        self._dirname_style = (style.exclude_keys, style.item_sep, style.kv_sep)
        self._templates: dict[Any, Template] = {}

    def of(self, job: JobSpec) -> dict[str, bytes]:
        """The files of one job, by their paths in its folder, as Hydra's `run_job` writes them."""
        values = self._values(job)
        if values is None:
            return {path: text.encode() for path, text in self._dumped(job, {}).items()}
        base = self._loader.job(self._sweep_config, list(job.overrides)).base
        # a list is dumped on several lines: jobs with the same lists share a template
        lists = {name: value for name, value in values.items() if isinstance(value, list)}
        values = {name: value for name, value in values.items() if name not in lists}
        key = (base, *values, repr(lists))
        if key not in self._templates:
            self._templates[key] = self._template(job, values)
        texts = {name: _scalar(type(value).__name__, value) for name, value in values.items()}
        texts |= {f"override {index}": _scalar("str", item) for index, item in enumerate(job.overrides)}
        dirname = get_overrides_dirname(parse(job.overrides, []), *self._dirname_style)
        texts["dirname"], texts["num"], texts["id"] = _text(dirname), str(job.number), f"'{job.number}'"
        texts["dir"], texts["end"] = _text(f"{self._folder}/{job.number}"), ""
        return {
            path: "".join(part + texts[name] for part, name in zip(parts, names, strict=True)).encode()
            for path, (parts, names) in self._templates[key].items()
        }

    def config(self, job: JobSpec) -> DictConfig:
        """The whole configuration of one job, as Hydra's launchers make it."""
        config = self._loader.load_sweep_config(self._sweep_config, list(job.overrides))
        with open_dict(config):
            config.hydra.job.id = job.number
            config.hydra.job.num = job.number
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = f"{self._folder}/{job.number}"
        return config

    def _values(self, job: JobSpec) -> dict[str, Any] | None:
        """The values that the overrides set, by key; None where an override may do more than set one value."""
        composed = self._loader.job(self._sweep_config, list(job.overrides))
        if composed.base is None:
            return None
        values = {}
        for key in (item.key_or_group for item in parse(job.overrides, [])):
            node: Any = composed.origin
            for part in key.split("."):
                node = node.get(part) if isinstance(node, dict) else None
            if not isinstance(node, dict) and key in composed.typed:  # otherwise it chooses a group, part of the base
                values[key] = node
        return values

    def _template(self, job: JobSpec, values: Mapping[str, Any]) -> Template:
        """The files of a job, cut where values differ from job to job."""
        names = [*values, *(f"override {index}" for index in range(len(job.overrides))), "dirname", "num", "id", "dir"]
        marks = {name: _MARK.format(index) for index, name in enumerate(names)}
        name_of = {mark: name for name, mark in marks.items()}
        pattern = re.compile("|".join(marks.values()))
        return {
            path: (pattern.split(text), [*(name_of[mark] for mark in pattern.findall(text)), "end"])
            for path, text in self._dumped(job, marks).items()
        }

    def _dumped(self, job: JobSpec, marks: Mapping[str, str]) -> dict[str, str]:
        """The files of a job as Hydra dumps them, with marks in the place of what differs from job to job."""
        config = self.config(job)
        values: dict[str, Any] = OmegaConf.to_container(config, resolve=False, enum_to_str=True)  # type: ignore[assignment]
        hydra = values.pop("hydra")
        subdir, files = hydra["output_subdir"], {}
        with as_hydra_config(config):
            for handler in config.hydra.job_logging.get("handlers", {}).values():
                if Path(str(handler.get("filename", ""))).parent == Path(self._folder, str(job.number)):
                    files[Path(handler.filename).name] = ""
        for name, mark in marks.items():
            if name.startswith("override "):
                hydra["overrides"]["task"][int(name.removeprefix("override "))] = mark
            elif name in ("num", "id"):
                hydra["job"][name] = mark
            elif name == "dirname":
                hydra["job"]["override_dirname"] = mark
            elif name == "dir":
                hydra["runtime"]["output_dir"] = mark
            else:
                _set(values, name, mark)
        if subdir is not None:
            overrides = hydra["overrides"]["task"]
            for name, value in (("config", values), ("hydra", {"hydra": hydra}), ("overrides", overrides)):
                files[f"{subdir}/{name}.yaml"] = _dump(value)
        return files


def _set(node: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for key in above:
        node = node[key]
    node[last] = value


def _dump(value: Any, **options: Any) -> str:
    """A container as `OmegaConf.to_yaml` dumps it."""
    options = {"Dumper": get_omega_conf_dumper(), **options}
    text: str = yaml.dump(value, default_flow_style=False, allow_unicode=True, sort_keys=False, **options)
    return text


@cache
def _one_line_dumper() -> Any:
    """OmegaConf's dumper, with line breaks as escapes in double quotes, where it would begin a new line."""
    base: Any = get_omega_conf_dumper()

    class OneLine(base):  # type: ignore[misc]
        pass

    def represent(dumper: Any, text: str) -> Any:
        node = base.str_representer(dumper, text)
        node.style = '"' if _LINE_BREAK.search(text) else node.style
        return node

    OneLine.add_representer(str, represent)
    return OneLine


@cache
def _scalar(kind: str, value: Any) -> str:
    """A value as it is dumped by itself; its type is part of the cache's key, since 1, 1.0 and true are equal."""
    return _text(value)


def _text(value: Any) -> str:
    """A value in one line, which means the same wherever it is inserted."""
    if isinstance(value, str) and _UNQUOTED.fullmatch(value):
        return value
    return _dump([value], Dumper=_one_line_dumper(), width=math.inf)[2:-1]
