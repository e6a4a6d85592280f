"""A digest of what an object, or a class, consists of: its values and its code."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from holdfast.usercode.objects import Node
from holdfast.usercode.state import SCALARS, is_hiding, walk


def content_digest(value: Any) -> str:
    """The SHA-256 of everything that can be reached from an object of the user's, or from a class, in hex.

    That is: attributes, the values of tensors and arrays, and the code of functions and classes of the user's, with
    their defaults, closures and the globals that they name. It is equal in another process for what was made alike; of
    an object without attributes, whose text is an address, the class alone counts, as of a lock.

    Raises:
        TypeError: it holds an object whose state cannot be read, such as a generator or an open file.

    >>> content_digest([1, {"a": 2.0}]) == content_digest([1, {"a": 2.0}])
    True
    >>> content_digest([1]) == content_digest([1.0])
    False
    """
    digest = hashlib.sha256()
    for (path, item, _), identity, first_path in walk(Node("", value)):
        leaf: Hashable
        if first_path is not None:
            leaf = ("same as", first_path)
        elif type(item) in SCALARS:
            leaf = (type(item).__name__, repr(item))
        elif isinstance(item, Tensor):
            leaf = _tensor(path, item)
        elif is_hiding(item):
            raise TypeError(f"{path.lstrip('.')} is a {type(item).__name__}, whose state cannot be read")
        else:
            leaf = (f"{type(item).__module__}.{type(item).__qualname__}", _stable(item, identity))
        digest.update(repr((path, leaf)).encode())
    return digest.hexdigest()


def _stable(value: Any, identity: Hashable) -> Hashable:
    """An identity without the number that `contents` gives to an object that it cannot read."""
    if isinstance(identity, tuple) and identity[:1] == ("long",):
        return hashlib.sha256(repr(value).encode()).hexdigest()
    return "" if isinstance(identity, int) and not isinstance(value, (Mapping, Sequence, deque)) else identity


def _tensor(path: str, value: Tensor) -> Hashable:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise TypeError(f"{path.lstrip('.')} is a tensor of another layout, whose values cannot be read")
    plain = value.detach().cpu().resolve_conj().resolve_neg()
    content = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    form = type(value).__name__, str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad
    return *form, str(value.device), hashlib.sha256(content).hexdigest()
