"""Objects that were passed from Python, by a digest of their content."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import types
import weakref
from typing import Any

from holdfast.errors import HoldfastError


class Kept:
    """A copy of an object that was passed; `again` finds it while this lives.

    Args:
        value: the object.

    Attributes:
        digest: of its class and content, equal in another process for an object that was made alike.

    Raises:
        HoldfastError: it holds something that has no content, such as an open file.
    """

    def __init__(self, value: Any) -> None:
        sink = _Digest()
        try:
            _Pickler(sink, protocol=5).dump(value)
            self.value = copy.deepcopy(value)  # which its owner may change later
        except Exception as error:  # whatever a class of the user's does when it is pickled or copied
            name = type(value).__name__
            reason = f"{type(error).__name__}: {error}"
            raise HoldfastError(
                f"an object of {name} cannot be recorded ({reason}): pass the class {name} instead."
            ) from None
        self.digest = sink.hash.hexdigest()
        _kept[self.digest] = self


_kept: weakref.WeakValueDictionary[str, Kept] = weakref.WeakValueDictionary()


def again(name: str, digest: str) -> Any:
    """A copy of an object that was passed; a configuration names this function.

    Args:
        name: qualified name of its class.
        digest: of its content.

    Raises:
        HoldfastError: it was not passed in this process.
    """
    if (kept := _kept.get(digest)) is None:
        raise HoldfastError(f"the object of {name} was passed from Python, and does not exist here: pass it again.")
    return copy.deepcopy(kept.value)


class _Digest(io.RawIOBase):
    """A file that hashes what is written to it."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.hash.update(data)
        return memoryview(data).nbytes


class _Pickler(pickle.Pickler):
    """Pickles tensors by their values and functions by their code: torch and Python would take addresses and names."""

    def reducer_override(self, value: Any) -> Any:
        import torch

        from holdfast.usercode.packages import is_users

        if isinstance(value, torch.Tensor):
            array = value.detach().cpu().contiguous()
            content = array.reshape(-1).view(torch.uint8).numpy().tobytes() if array.numel() else b""
            return _made, (str(value.dtype), tuple(value.shape), hashlib.sha256(content).digest())
        if isinstance(value, types.FunctionType) and is_users(value.__module__):
            code = value.__code__
            cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
            return _made, (value.__qualname__, code.co_code, _constants(code), value.__defaults__, cells)
        return NotImplemented


def _constants(code: types.CodeType) -> tuple[Any, ...]:
    """The constants of some code; of functions in it their own."""
    return tuple(
        (each.co_code, _constants(each)) if isinstance(each, types.CodeType) else each for each in code.co_consts
    )


def _made(*_: Any) -> None:
    """Stands for what is hashed only, and never read."""
