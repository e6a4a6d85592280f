"""Files filled in from a template, against the same files written by torch."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.stacked import template
from holdfast.stacked.template import Placeholders, Template, UnfitError, archives


def tree(slots: Any) -> Any:
    """A checkpoint of containers, texts, integers, floats and tensors; one float occurs twice."""
    return {
        "epoch": 3,
        "none": None,
        "rates": [slots.number("rate"), (slots.number("other"), slots.number("rate"))],
        "state": {0: {"w": slots.tensor("w", torch.zeros(2, 3)), "step": torch.tensor(7.0)}},
        "b": slots.tensor("b", torch.zeros(1, dtype=torch.float64)),
        "half": slots.tensor("half", torch.zeros(5, dtype=torch.bfloat16)),
    }


def values(jobs: int, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    draw = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    numbers = {
        name: draw.choice([0.0, -0.0, np.nan, np.inf, 1e-300, draw.normal()], jobs) for name in ("rate", "other")
    }
    tensors = {
        "w": torch.randn(jobs, 2, 3, generator=generator),
        "b": torch.full((jobs, 1), torch.nan, dtype=torch.float64),
        "half": torch.randn(jobs, 5, generator=generator).bfloat16(),
    }
    return numbers, tensors


def loaded(raw: bytes) -> Any:
    return torch.load(io.BytesIO(raw), weights_only=True)


@given(st.integers(1, 5), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_each_file_loads_as_what_torch_would_have_saved(jobs: int, seed: int) -> None:
    numbers, tensors = values(jobs, seed)
    for job, raw in enumerate(archives(tree, Placeholders(), numbers, tensors)):
        saved = template._saved(tree(template._Values(numbers, tensors, job)))
        assert len(raw) == len(saved)
        assert str(loaded(raw)) == str(loaded(saved))
        # except the id that torch derives from all checksums, which nothing reads
        differing = [offset for offset, (mine, theirs) in enumerate(zip(raw, saved, strict=True)) if mine != theirs]
        assert len(differing) <= 40 + 2 * 4


def test_this_version_of_torch_fits_the_template() -> None:
    Template.of_archive(tree(placeholders := Placeholders()), placeholders)


def test_without_a_template_torch_saves_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfit(value: Any, placeholders: Placeholders) -> Template:
        raise UnfitError("another torch")

    monkeypatch.setattr(Template, "of_archive", staticmethod(unfit))
    numbers, tensors = values(3, 0)
    for job, raw in enumerate(archives(tree, Placeholders(), numbers, tensors)):
        assert str(loaded(raw)) == str(loaded(template._saved(tree(template._Values(numbers, tensors, job)))))


def test_a_placeholder_that_does_not_occur_is_refused() -> None:
    placeholders = Placeholders()
    placeholders.number("forgotten")
    with pytest.raises(UnfitError):
        Template.of_archive({"a": 1.0}, placeholders)
    placeholders = Placeholders()
    placeholders.tensor("forgotten", torch.zeros(3))
    with pytest.raises(UnfitError):
        Template.of_archive({"a": torch.ones(3)}, placeholders)
