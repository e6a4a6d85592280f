"""The order of rows against the DataLoader of torch that it stands for."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, TensorDataset, WeightedRandomSampler

from holdfast.stacked.loaders import LoadedRows


def loader_of(kind: str, rows: int, batch_size: int, drop_last: bool, seed: int) -> Any:
    """A loader, with a generator of its own if there is a seed."""
    dataset = TensorDataset(torch.arange(rows))
    own: Any = torch.Generator().manual_seed(seed) if seed else None
    given: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last}
    if kind in ("in order", "shuffled"):
        return DataLoader(dataset, shuffle=kind == "shuffled", generator=own, **given)
    sampler: Any = {
        "subset": lambda: SubsetRandomSampler(range(0, rows, 2), generator=own),
        "weighted": lambda: WeightedRandomSampler([1.0 + row for row in range(rows)], rows, generator=own),
        "more": lambda: RandomSampler(dataset, num_samples=2 * rows + 1, generator=own),
    }[kind]()
    return DataLoader(dataset, sampler=sampler, **given)


@settings(deadline=None)
@given(
    kind=st.sampled_from(["in order", "shuffled", "subset", "weighted", "more"]),
    rows=st.integers(1, 12),
    batch_size=st.integers(1, 14),
    drop_last=st.booleans(),
    seed=st.integers(0, 3),
    most=st.one_of(st.none(), st.integers(1, 4)),
)
def test_rows_and_generators_are_those_of_the_loader(
    *, kind: str, rows: int, batch_size: int, drop_last: bool, seed: int, most: int | None
) -> None:
    mine, theirs = (loader_of(kind, rows, batch_size, drop_last, seed) for _ in range(2))
    loaded = LoadedRows(mine, lambda batch: batch)
    job, states = torch.Generator().manual_seed(7), [state.clone() for state in loaded.states]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        for epoch in range(3):
            order = loaded.order(epoch, job, states, most=most, base_seed=True)
            count = len(loaded.batch_sizes[:most])
            expected = [batch[0].tolist() for batch in islice(theirs, count)]  # no batch is asked for after the last
            assert [batch.tolist() for batch in order] == expected
            assert torch.equal(job.get_state(), torch.get_rng_state())
    own = next(iter(loaded.generators), None)
    if own is not None:
        twin = theirs.generator or theirs.sampler.generator
        assert torch.equal(states[0], twin.get_state())
