"""Operations for which torch has no rule to map them over jobs, written by others."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class Mappable(TorchFunctionMode):
    """Writes operations for which there is no rule to map them over jobs by others: `out=`, and counts of numbers."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        if function is torch.bincount and len(args) == 1 and given.keys() == {"minlength"}:
            return (args[0].unsqueeze(-1) == torch.arange(given["minlength"], device=args[0].device)).sum(0)
        out = given.pop("out", None)
        result = function(*args, **given)
        return result if out is None else out.copy_(result)
