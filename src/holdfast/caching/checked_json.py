"""JSON files that hold the digest of their content, so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from holdfast.store.files import write_json


def write_checked(path: Path, content: Any) -> None:
    """Write a value that JSON can hold, atomically.

    Raises:
        StorageError: the file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_checked(Path(folder) / "a.json", {"rows": 3})
    ...     read_checked(Path(folder) / "a.json")
    {'rows': 3}
    """
    write_json(path, {"sha256": _digest(content), "content": content})


def read_checked(path: Path) -> Any:
    """The value that `write_checked` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    try:
        whole = json.loads(path.read_bytes())
        if whole["sha256"] == _digest(whole["content"]):
            return whole["content"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it has no content ({error!r})") from None
    raise ValueError("its content does not match its digest")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
