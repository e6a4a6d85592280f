"""Objects that were passed from Python, by a digest of their content."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator
from typing import Any

from holdfast.errors import HoldfastError


class Kept:
    """A copy of an object that was passed; `again` finds it while this lives.

    Args:
        value: the object.
        digest: of its content.
    """

    def __init__(self, value: Any, digest: str) -> None:
        self.value, self.digest = value, digest


_kept: weakref.WeakValueDictionary[str, Kept] = weakref.WeakValueDictionary()


def keep(value: Any) -> Kept:
    """Keep a copy of an object; its owner may change it later.

    Raises:
        HoldfastError: it holds something that has no content, such as an open file, or that cannot be copied.
    """
    from holdfast.usercode.content_digest import content_digest

    try:
        digest = content_digest(value)
        if (kept := _kept.get(digest)) is None:
            kept = _kept[digest] = Kept(_copied(value), digest)
    except Exception as error:  # whatever a class of the user's does when it is read or copied
        name = type(value).__name__
        reason = f"{type(error).__name__}: {error}"
        raise HoldfastError(
            f"an object of {name} cannot be recorded ({reason}): pass the class {name} instead."
        ) from None
    return kept


def _copied(value: Any) -> Any:
    """A copy that shares nothing with an object.

    Raises:
        TypeError: a copy would compute something else.
    """
    import numpy as np
    from lightning.pytorch import LightningDataModule
    from torch import Tensor

    from holdfast.usercode.content_digest import is_entered
    from holdfast.usercode.objects import Node
    from holdfast.usercode.state import walk

    def all_of(root: Any) -> Iterator[Node]:
        # to enter an array would be to read it
        return (
            node
            for node, *_ in walk(Node("", root), enter=lambda item: is_entered(item) and type(item) is not np.ndarray)
        )

    trainer = vars(value).get("trainer" if isinstance(value, LightningDataModule) else "_trainer")
    copies: dict[int, Any] = {id(trainer): None}  # by the ids of the originals
    copied = copy.deepcopy(value, copies)
    originals = {number for number, item in copies.items() if id(item) != number}
    for path, item, _ in all_of(value):
        hooks = ("_backward_hooks", "_post_accumulate_grad_hooks")
        if isinstance(item, Tensor) and any(getattr(item, name, None) for name in hooks):
            raise TypeError(f"{path.lstrip('.')} has a hook on its gradient, which a copy would not have")
    for path, item, _ in all_of(copied):
        if id(item) in originals:
            raise TypeError(f"{path.lstrip('.')} is the object itself, or a part of it: a copy would go on using that")
    return copied


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
