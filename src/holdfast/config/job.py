"""One job as plain data, and the digest by which a configuration is recognised."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from holdfast.config.schema import Config

GROWS = "sweep.trials"
"""The key that may be given a larger value where a finished sweep is resumed: it extends a search."""

CONTROLS = frozenset({"report", "resume", "retry_failed", "test_again"})
"""Keys that control what is done with a run and do not change what is trained."""


class JobSpec(NamedTuple):
    """One job, composed, checked and hashed once.

    It holds plain values only (no `DictConfig`, no path of a folder), so that it can be pickled and sent to another
    process, which neither composes nor checks it again. A single run is the job with number 0.

    Attributes:
        number: position of the job in its sweep, from 0.
        overrides: the overrides of the command line that make this job, as the user would type them.
        config: the checked configuration.
        config_hash: digest of the configuration, see `config_hash`; jobs with the same digest train the same model.
        swept: the keys that differ between the jobs of its sweep; None for a single run.
    """

    number: int
    overrides: tuple[str, ...]
    config: Config
    config_hash: str
    swept: tuple[str, ...] | None = None


FOLDER = "<folder of the run>"
"""Stands, in a composed configuration, for the folder of its run, which is known only when the run starts."""


def in_folder(config: Config, folder: Path) -> Config:
    """A configuration whose run has a folder: the absolute path takes the place of `FOLDER`."""
    path = str(folder.absolute())
    changed = {name: replaced(value, path) for name, value in vars(config).items() if FOLDER in repr(value)}
    return dataclasses.replace(config, **changed) if changed else config


def replaced(value: Any, path: str) -> Any:
    """A value in which a path takes the place of `FOLDER`, at any depth."""
    if isinstance(value, str):
        return value.replace(FOLDER, path)
    if isinstance(value, dict):
        return {key: replaced(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, path) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{key: replaced(item, path) for key, item in vars(value).items()})
    return value


def config_hash(values: Mapping[str, Any], origin: Mapping[str, Any]) -> str:
    """SHA-256 of a resolved configuration without `CONTROLS`, in hex.

    The file of `init_weights` counts by its content. A value that depends on Hydra itself, such as the folder of the
    run, is hashed as written, not as resolved: the same configuration in another folder is the same configuration.

    Args:
        values: the configuration as plain containers, interpolations resolved.
        origin: the same with interpolations as written.

    >>> config_hash({"lr": 0.1}, {"lr": 0.1}) == config_hash({"lr": 0.2}, {"lr": 0.2})
    False
    """
    return digest_of(hashed_texts(values, origin, values))


def digest_of(texts: Mapping[str, str]) -> str:
    """The digest of a configuration, of whose keys `hashed_texts` has made the texts."""
    return hashlib.sha256(f"{{{', '.join(texts[key] for key in sorted(texts))}}}".encode()).hexdigest()


def hashed_texts(
    values: Mapping[str, Any], origin: Mapping[str, Any], keys: Iterable[str], cache: dict[str, str] | None = None
) -> dict[str, str]:
    """What goes into `config_hash` for some of the top-level keys; none for those that are not part of it.

    Args:
        values, origin: as for `config_hash`.
        keys: the keys.
        cache: filled here, by the text of a key and its value: jobs of a sweep share values.
    """
    texts, cache = {}, {} if cache is None else cache
    for key in keys:
        value = values[key]
        if key in CONTROLS or value == _ADDED.get(key, _NONE):
            continue
        written = f"{key}={value!r} {origin.get(key)!r}"  # 1, 1.0 and True have different texts
        if written in cache and key != "init_weights":
            texts[key] = cache[written]
            continue
        if key == "sweep" and isinstance(value, Mapping):  # as version 0.1.0 knew it: snapshots change no number
            keep = "all" if value.get("keep") == "auto" else value.get("keep")
            value = {**{name: item for name, item in value.items() if name not in _HOW}, "keep": keep}
        elif key == "init_weights" and isinstance(value, str):
            value = _digest(value, Path(value).stat().st_mtime_ns)
        texts[key] = cache[written] = f'"{key}": {json.dumps(_stable(value, origin.get(key)), sort_keys=True)}'
    return texts


_HOW = frozenset({"snapshot", "stack", "verify", "sampler", "trials", "seed", "repeats", "folds"})
"""Keys of the group `sweep` that say which jobs there are and how they are trained, and not to what."""

_NONE = object()
_ADDED: dict[str, Any] = {"vars": {}, "engine": "trainer", "init_weights": None, "init_weights_strict": True}
"""Keys that version 0.1.0 did not have; with these values they leave the digest of a configuration as it was."""


@cache
def _digest(path: str, changed: int) -> str:
    """The SHA-256 of a file, in hex, read again where the time of its last change differs."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _stable(value: Any, raw: Any) -> Any:
    """The value with text keys, and as written where it depends on Hydra."""
    if isinstance(raw, str) and ("${hydra:" in raw or "${now:" in raw):
        return raw
    if isinstance(value, Mapping):
        inner = raw if isinstance(raw, Mapping) else {}
        return {str(key): _stable(item, inner.get(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_stable(item, None) for item in value]
    return value


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Keys whose values differ between two resolved configurations, each with both values; `CONTROLS` are left out.

    >>> differences({"lr": 0.1, "data": {"noise": 1.0}}, {"lr": 0.1, "data": {"noise": 2.0}})
    [('data.noise', 1.0, 2.0)]
    """
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return [
        (key, old.get(key), new.get(key))
        for key in dict.fromkeys((*old, *new))
        if key.partition(".")[0] not in CONTROLS and old.get(key) != new.get(key)
    ]


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, item in node.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, list(node) if isinstance(node, tuple) else node
