"""Objects that were passed from Python, by a digest of their content."""

from __future__ import annotations

import weakref
from typing import Any

from holdfast.errors import HoldfastError


class Kept:
    """A copy of an object that was passed; `again` finds it while this lives.

    Args:
        value: the object.
        digest: of its content.
        shares: whether functions in it hold something that training may change, which a copy of it shares.
    """

    def __init__(self, value: Any, digest: str, *, shares: bool) -> None:
        self.value, self.digest, self.shares = value, digest, shares


_kept: weakref.WeakValueDictionary[str, Kept] = weakref.WeakValueDictionary()


def keep(value: Any) -> Kept:
    """Keep a copy of an object; its owner may change it later.

    Raises:
        HoldfastError: it holds something that has no content, such as an open file, or that cannot be copied.
    """
    from holdfast.api.copies import checked_copy, shares_with_copies
    from holdfast.usercode.content_digest import content_digest

    try:
        digest = content_digest(value)
        if (kept := _kept.get(digest)) is None:
            copied = checked_copy(value)
            kept = _kept[digest] = Kept(copied, digest, shares=shares_with_copies(copied))
    except Exception as error:  # whatever a class of the user's does when it is read or copied
        name = type(value).__name__
        reason = f"{type(error).__name__}: {error}"
        raise HoldfastError(
            f"an object of {name} cannot be recorded ({reason}): pass the class {name} instead."
        ) from None
    return kept


def again(name: str, digest: str) -> Any:
    """A copy of an object that was passed; a configuration names this function.

    Args:
        name: qualified name of its class.
        digest: of its content.

    Raises:
        HoldfastError: it was not passed in this process.
    """
    from holdfast.api.copies import copy_of

    if (kept := _kept.get(digest)) is None:
        raise HoldfastError(f"the object of {name} was passed from Python, and does not exist here: pass it again.")
    if kept.shares:
        from holdfast.usercode.content_digest import content_digest

        if content_digest(kept.value) != digest:
            raise HoldfastError(
                f"functions in the object of {name} hold something that was changed by a job, and that the next would "
                f"find: pass the class {name.rpartition('.')[2]} instead."
            )
    return copy_of(kept.value)
