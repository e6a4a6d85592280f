"""A digest of what an object, or a class, consists of: its values and its code."""

from __future__ import annotations

import collections
import hashlib
import io
import logging
import pickle
import random
import re
import sys
import types
import weakref
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from holdfast.usercode.code_objects import imported_names
from holdfast.usercode.imports import code_digest
from holdfast.usercode.objects import SCALARS, Contents, Node, contents
from holdfast.usercode.packages import is_users
from holdfast.usercode.state import is_hiding, walk

_WALKED = (dict, list, tuple, set, frozenset, collections.deque, nn.Module, type, types.SimpleNamespace)
_OF_CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, property, staticmethod, classmethod)
_IMPORTED_INSIDE = re.compile(r"\.module [\w.]+$")
_NAMED = (logging.Logger, weakref.ref)
"""Classes whose objects the walk reads whole."""


def content_digest(value: Any) -> str:
    """The SHA-256 of everything that can be reached from an object of the user's, or from a class, in hex.

    That is: attributes, the values of tensors and arrays, and the code of functions and classes of the user's. Code in
    a module counts by the file of the module, with those of the user's modules that it imports (see `code_digest`), not
    by the values of its variables; code in a script or a notebook counts by itself and by the globals that it names.
    Objects of libraries count by how they are pickled. It is equal in another process for what was made alike. Not seen
    is the state of an object that can neither be read nor pickled, such as a lock.

    Raises:
        TypeError: it holds an object whose state cannot be read, such as a generator or an open file.

    >>> content_digest([1, {"a": 2.0}]) == content_digest([1, {"a": 2.0}])
    True
    >>> content_digest([1]) == content_digest([1.0])
    False
    """
    digest = hashlib.sha256()
    for (path, item, _), identity, first_path in walk(Node("", value), enter=is_entered, read=_parts):
        leaf: Hashable
        if path.endswith(".__self__") and item is random._inst:
            continue  # `random.random` and others draw from the generator of the process
        if isinstance(item, types.ModuleType):
            if _IMPORTED_INSIDE.search(path):
                continue  # whether it is imported yet; the function says which it imports
            leaf = (item.__name__, code_digest(item.__name__))
        elif first_path is not None:
            leaf = ("same as", first_path)
        elif type(item) in SCALARS:
            leaf = (type(item).__name__, repr(item))
        elif isinstance(item, Tensor):
            leaf = _tensor(item)
        elif is_hiding(item):
            raise TypeError(f"{path.lstrip('.')} is a {type(item).__name__}, whose state cannot be read")
        else:
            leaf = (f"{type(item).__module__}.{type(item).__qualname__}", _content(item, identity))
        digest.update(repr((path, leaf)).encode())
    return digest.hexdigest()


def is_entered(value: Any) -> bool:
    """Whether the parts of an object count by themselves; of most libraries they may be caches, which reading fills."""
    if isinstance(value, types.ModuleType):
        return False
    module = value.__module__ if isinstance(value, type) else type(value).__module__
    package = str(module).partition(".")[0]
    is_read = type(value) is np.ndarray or isinstance(value, nn.Module)
    return package in _ENTERED or package in sys.stdlib_module_names or is_read or is_users(module)


def _parts(value: Any) -> Contents:
    """What an object consists of, but for what the file of its code says; sets in an order that each process finds."""
    if isinstance(value, type) and code_digest(value.__module__):
        return value.__qualname__, ()
    identity, children = contents(value)
    if isinstance(value, types.FunctionType) and code_digest(value.__module__ or ""):
        return identity, [node for node in children if not node.path.startswith(("global ", "module "))]
    if isinstance(value, (set, frozenset)):
        # their paths are numbers, which go to the members by their digests
        members = sorted((node.value for node in children if node.path.startswith("member ")), key=content_digest)
        others = [node for node in children if not node.path.startswith("member ")]
        return identity, [*others, *(Node(f"member {number}", item) for number, item in enumerate(members))]
    return identity, children


_ENTERED = frozenset(
    {"builtins", "torch", "lightning", "lightning_utilities", "torchmetrics", "torchvision", "holdfast"}
)


def _content(value: Any, identity: Hashable) -> Hashable:
    """What the walk does not read of an object whose parts it visits by themselves."""
    is_long = isinstance(identity, tuple) and identity[:1] == ("long",)
    if isinstance(value, (types.FunctionType, type)) and is_users(value.__module__ or ""):
        inside = imported_names(value) if isinstance(value, types.FunctionType) else []
        return identity, *map(code_digest, (value.__module__ or "", *inside))
    if isinstance(value, (collections.defaultdict, collections.deque)) and not is_long:
        factory = getattr(value, "default_factory", None)
        return identity, getattr(value, "maxlen", None), getattr(factory, "__qualname__", None)
    is_read = type(value) is np.ndarray or isinstance(value, (*_WALKED, *_OF_CODE, *_NAMED))
    if is_read and identity is not None and not is_long:
        return identity
    if is_users(type(value).__module__) and not is_long:
        return "" if isinstance(identity, int) else identity  # without attributes: its class is visited by itself
    sink = _Sink()
    try:
        _Pickler(sink, protocol=5).dump(value)
    except Exception as error:  # it cannot be pickled
        if is_long or not is_entered(value):
            raise TypeError(f"{type(value).__name__} cannot be pickled: {error}") from None
        return "" if isinstance(identity, int) else identity
    return sink.hash.hexdigest()


def _tensor(value: Tensor) -> Hashable:
    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise TypeError("a tensor of another layout cannot be read")
    plain = value.detach().cpu().resolve_conj().resolve_neg()
    content = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b""
    form = type(value).__name__, str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad
    return *form, str(value.device), hashlib.sha256(content).hexdigest()


class _Sink(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return memoryview(data).nbytes


class _Pickler(pickle.Pickler):
    """Pickles tensors by their values: torch would take addresses."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return _hashed, (_tensor(value),)
        if value is random._inst or value is np.random.mtrand._rand:
            return _hashed, ("a generator of the process, whose state is that of a seed",)
        if isinstance(value, (type, types.FunctionType)) and is_users(value.__module__ or ""):
            return _hashed, (content_digest(value),)
        if str(type(value).__module__).partition(".")[0] == "pandas" and hasattr(value, "columns"):
            # pickled as blocks of columns, which a copy lays out in another way
            columns = [column.copy().array for _, column in value.items()]
            return _hashed, (value.columns, value.index, columns, value.attrs)
        return NotImplemented


def _hashed(*_: Any) -> None:
    """Stands for what is hashed only, and never read."""
