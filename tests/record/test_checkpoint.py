from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from holdfast.record.checkpoint import CheckpointIO, _copied, plain_values, save


class Odd:
    def __str__(self) -> str:
        return "odd"


def test_hyperparameters_of_any_kind_load_with_weights_only(tmp_path: Path) -> None:
    values = plain_values(
        {
            "config": OmegaConf.to_container(OmegaConf.create({"a": [1, 2]})),
            "path": tmp_path,
            "scalar": np.float32(0.5),
            "count": np.int64(3),
            "flag": True,
            "none": None,
            "tensor": torch.ones(2),
            "odd": Odd(),
            "tuple": (1, 2.5),
        }
    )
    save(values, tmp_path / "a.ckpt")
    loaded = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert loaded["scalar"] == 0.5
    assert loaded["count"] == 3
    assert loaded["flag"] is True
    assert loaded["path"] == str(tmp_path)
    assert loaded["odd"] == "odd"
    assert loaded["tuple"] == [1, 2.5]


def test_a_snapshot_does_not_change_with_the_module() -> None:
    weights = torch.ones(2, requires_grad=True)
    copied = _copied({"a": [weights], "b": (1, {"c": weights})})
    with torch.no_grad():
        weights.zero_()
    assert copied["a"][0].tolist() == copied["b"][1]["c"].tolist() == [1.0, 1.0]
    assert not copied["a"][0].requires_grad


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    io, path = CheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint({"epoch": 1}, path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        io.save_checkpoint({"epoch": 2, "bad": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


class UnreadableState(pl.Callback):
    """A user's callback whose state holds an object that `weights_only=True` refuses."""

    def state_dict(self) -> dict[str, Any]:
        return {"seen": Path("here")}


def test_a_callback_whose_state_cannot_be_read_back_fails_the_run_after_the_first_epoch(holdfast: Any) -> None:
    run = holdfast("+callbacks.unreadable._target_=tests.record.test_checkpoint.UnreadableState")
    assert run.code == 1
    assert "The state of the callback UnreadableState holds pathlib" in run.err
    assert run.result.epochs == 0
