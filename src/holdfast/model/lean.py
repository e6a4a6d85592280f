"""A LightningModule without the parts of an iteration that a small model pays for and does not use.

Two hundred iterations of a linear model take Lightning as long as a thousand take plain torch. Two of the reasons
can be taken away from outside; what a user overrides is called all the same.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.core.hooks import DataHooks
from torch import Tensor

_TRANSFER_HOOKS = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class LeanModule(pl.LightningModule):
    """What `holdfast.model.Module` is built on."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the hook it is in, some forty times an iteration, and each time nn.Module looks through its
        # parameters and buffers: a fifth of the iteration
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _call_batch_hook(self, hook_name: str, *args: Any) -> Any:
        # a batch that is on its device already goes through three hooks, each looked up anew: a tenth of the iteration
        batch = args[0]
        if self._transfer_is_plain() and (hook_name != "transfer_batch_to_device" or _lies_on(batch, args[1])):
            return batch
        return super()._call_batch_hook(hook_name, *args)

    def _transfer_is_plain(self) -> bool:
        """Whether neither this module nor the data module has transfer hooks of its own."""
        checked: tuple[Any, bool] | None = self.__dict__.get("_transfer_checked")
        if checked is None or checked[0] is not self._trainer:
            owners = (self, getattr(self._trainer, "datamodule", None))
            plain = all(
                getattr(type(owner), hook) is getattr(DataHooks, hook)
                for owner in owners
                if owner is not None
                for hook in _TRANSFER_HOOKS
            )
            checked = self.__dict__["_transfer_checked"] = (self._trainer, plain)
        return checked[1]


def _lies_on(batch: Any, device: Any) -> bool:
    return type(batch) is tuple and all(isinstance(part, Tensor) and part.device == device for part in batch)
