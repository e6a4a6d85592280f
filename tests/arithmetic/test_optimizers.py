"""Each optimizer against torch.optim, job by job."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.arithmetic.optimizers import OPTIMIZERS, clip

SHARE = st.sampled_from([0.0, 0.3, 0.9])
DECAY = st.sampled_from([0.3, 0.9])  # at 0 the variance is 0 but for rounding, and its root anything
NUMBERS: dict[str, dict[str, Any]] = {
    "torch.optim.SGD": {"momentum": SHARE, "dampening": SHARE},
    "torch.optim.Adam": {"betas": st.lists(SHARE, min_size=2, max_size=2), "eps": st.sampled_from([1e-8, 1e-3])},
    "torch.optim.RMSprop": {"alpha": DECAY, "momentum": SHARE, "eps": st.sampled_from([1e-8, 1e-3])},
}
NUMBERS["torch.optim.AdamW"] = NUMBERS["torch.optim.Adam"]
FLAGS: dict[str, str] = {
    "torch.optim.SGD": "nesterov",
    "torch.optim.Adam": "amsgrad",
    "torch.optim.AdamW": "amsgrad",
    "torch.optim.RMSprop": "centered",
}


@st.composite
def problems(draw: Any) -> tuple[str, list[dict[str, Any]], int]:
    """An optimizer, the settings of some jobs, some of them equal, and a seed."""
    target = draw(st.sampled_from(sorted(OPTIMIZERS)))
    flag = draw(st.booleans())
    equal = draw(st.booleans())
    jobs = []
    for _ in range(draw(st.integers(1, 6))):
        if equal and jobs:
            jobs.append({**jobs[0], "lr": draw(st.floats(1e-3, 0.5))})
            continue
        numbers = {key: draw(strategy) for key, strategy in NUMBERS[target].items()}
        numbers |= {"lr": draw(st.floats(1e-3, 0.5)), "weight_decay": draw(SHARE)}
        numbers |= {FLAGS[target]: flag} if target in FLAGS else {}
        if target == "torch.optim.SGD" and flag:  # torch refuses any other
            numbers |= {"dampening": 0.0, "momentum": max(numbers["momentum"], 0.1)}
        jobs.append(numbers)
    return target, jobs, draw(st.integers(0, 99))


@given(problems(), st.booleans())
@settings(deadline=None, max_examples=150)
def test_each_job_is_updated_as_torch_updates_it(
    problem: tuple[str, list[dict[str, Any]], int], one_stream: bool
) -> None:
    target, jobs, seed = problem
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(3, len(jobs), generator=generator, dtype=torch.float64)
    gradients = torch.randn(5, 3, len(jobs), generator=generator, dtype=torch.float64)
    shape = (1, len(jobs)) if one_stream else (len(jobs), 1)

    optimizer = OPTIMIZERS[target](jobs)
    parameters = start.clone().view(3, *shape)
    optimizer.set_layout(np.arange(len(jobs)).reshape(shape), parameters)
    for gradient in gradients:
        rate = -torch.tensor([job["lr"] for job in jobs], dtype=torch.float64).view(shape)
        optimizer.step(parameters, gradient.clone().view(3, *shape), rate)

    for number, job in enumerate(jobs):
        alone = torch.nn.Parameter(start[:, number].clone())
        reference = getattr(torch.optim, target.rpartition(".")[2])([alone], **job)
        for gradient in gradients:
            alone.grad = gradient[:, number].clone()
            reference.step()
        torch.testing.assert_close(parameters.view(3, -1)[:, number], alone.detach(), rtol=1e-9, atol=1e-12)
        for name, value in reference.state[alone].items():
            if name != "step" and value is not None:
                torch.testing.assert_close(optimizer.state[name].view(3, -1)[:, number], value, rtol=1e-9, atol=1e-12)
            elif name == "step":
                assert optimizer.steps == value


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_job_by_job(algorithm: str) -> None:
    gradient = torch.randn(4, 2, 3) * 3
    clipped = clip(gradient, 1.5, algorithm)
    for stream in range(2):
        for job in range(3):
            alone = torch.nn.Parameter(torch.zeros(4))
            alone.grad = gradient[:, stream, job].clone()
            if algorithm == "norm":
                torch.nn.utils.clip_grad_norm_([alone], 1.5)
            else:
                torch.nn.utils.clip_grad_value_([alone], 1.5)
            torch.testing.assert_close(clipped[:, stream, job], alone.grad)
