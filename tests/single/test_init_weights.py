"""`init_weights`: a run begins with the weights of a file, or says why it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from holdfast.errors import CheckpointError
from holdfast.model import MLP, Linear, Regression
from holdfast.single.init_weights import initialize
from tests.conftest import Ran, command_line

STILL = ["lr=1e-12", "epochs=1", "batch_size=full"]  # the weights stay those of the start
WEIGHTS = {"linear.weight": torch.tensor([[2.5]]), "linear.bias": torch.tensor([-1.25])}
MODULES = {f"network.{name.removeprefix('linear.')}": value for name, value in WEIGHTS.items()}
FILES: dict[str, Any] = {
    "model.pth": WEIGHTS,
    "a state_dict of the module": MODULES,
    "a checkpoint": {"state_dict": MODULES, "epoch": 3, "optimizer_states": []},
}


def trained(ran: Ran) -> list[float]:
    return [float(value) for value in torch.load(ran.folder.weights, weights_only=True).values()]


@pytest.mark.parametrize("kind", FILES)
def test_a_run_and_a_sweep_begin_with_the_weights_of_a_file(
    kind: str, holdfast: Callable[..., Ran], tmp_path: Path
) -> None:
    torch.save(FILES[kind], tmp_path / "given.pt")
    assert trained(holdfast(*STILL, "init_weights=given.pt")) == pytest.approx([2.5, -1.25], abs=1e-6)
    code, said = command_line("-m", *STILL, "init_weights=given.pt", "seed=1,2", "hydra.sweep.dir=sweep")
    assert (code, "2 jobs: 1 stack; 0 alone" in said) == (0, True)
    for number in (0, 1):
        weights = torch.load(tmp_path / "sweep" / str(number) / "model.pth", weights_only=True)
        assert [float(value) for value in weights.values()] == pytest.approx([2.5, -1.25], abs=1e-6)


def test_jobs_of_a_stack_may_begin_with_different_files(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    for number, factor in enumerate((1.0, 2.0)):
        torch.save({name: value * factor for name, value in WEIGHTS.items()}, tmp_path / f"{number}.pt")
    words = ["init_weights=0.pt,1.pt", "lr=1e-12", "epochs=1", "hydra.sweep.dir=sweep"]
    code, said = command_line("-m", *words)
    assert (code, "2 jobs: 1 stack; 0 alone" in said) == (0, True)
    slopes = [torch.load(tmp_path / "sweep" / str(number) / "model.pth")["linear.weight"].item() for number in (0, 1)]
    assert slopes == pytest.approx([2.5, 5.0], abs=1e-6)


def test_the_content_of_the_file_belongs_to_the_configuration(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "a.pt")
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")
    hashes = [holdfast(*STILL, f"init_weights={name}.pt").result.config_hash for name in "ab"]
    torch.save(MODULES, tmp_path / "a.pt")
    hashes.append(holdfast(*STILL, "init_weights=a.pt").result.config_hash)
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_partial_match_names_what_is_left_out_and_needs_a_word(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    state = MLP(hidden=[4]).state_dict()
    state["network.2.bias"] = torch.zeros(7)
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "part.pt")
    words = ["model=mlp", "model.hidden=[4]", "init_weights=part.pt", *STILL]
    refused = holdfast(*words)
    assert refused.code == 1
    assert "Left out: network.2.bias (float32 (7,), the model has float32 (1,)), extra of the file." in refused.err
    assert "init_weights_strict=false" in refused.err
    assert "Traceback" not in refused.err
    begun = holdfast(*words, "init_weights_strict=false")
    assert begun.code == 0
    assert "left out: network.2.bias (float32 (7,), the model has float32 (1,))" in begun.out
    weights = torch.load(begun.folder.weights, weights_only=True)
    assert torch.allclose(weights["0.weight"], state["network.0.weight"], atol=1e-6)


def test_a_file_without_a_single_fitting_parameter_is_refused(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "line.pt")
    refused = holdfast("model=mlp", "init_weights=line.pt", "init_weights_strict=false")
    assert refused.code == 1
    assert "has no parameter of MLP" in refused.err


class Nested(Regression):
    """Its networks nest under the name that `model.pth` leaves out."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(Scaled(Scaled(torch.nn.Linear(1, 1), scale), 2 * scale))


class Scaled(torch.nn.Module):
    def __init__(self, network: torch.nn.Module, scale: float) -> None:
        super().__init__()
        self.network, self.scale = network, torch.nn.Parameter(torch.tensor(scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x) * self.scale  # type: ignore[no-any-return]


@pytest.mark.parametrize("file", ["best.ckpt", "model.pth"])
def test_names_that_nest_are_taken_as_they_are(file: str, tmp_path: Path) -> None:
    module, target = Nested(5.5), Nested()
    entries = module.bare(module.state_dict()) if file == "model.pth" else {"state_dict": module.state_dict()}
    torch.save(entries, tmp_path / file)
    initialize(target, str(tmp_path / file), strict=True)
    for name, value in module.state_dict().items():
        assert torch.equal(target.state_dict()[name], value), name


@pytest.mark.parametrize(
    "entry",
    [
        torch.eye(1).to_sparse(),
        torch.empty(1, 1, device="meta"),
        torch.ones(1, 1, dtype=torch.complex64),
        "text",
        [1.0],
    ],
    ids=["sparse", "meta", "complex", "text", "list"],
)
def test_an_entry_that_cannot_be_copied_is_left_out_by_name(entry: Any, tmp_path: Path) -> None:
    torch.save({"linear.weight": entry, "linear.bias": torch.zeros(1)}, tmp_path / "given.pt")
    with pytest.raises(CheckpointError, match=r"Left out: network.weight \(.*, the model has float32 \(1, 1\)\)"):
        initialize(Linear(), str(tmp_path / "given.pt"), strict=True)


def test_nothing_in_the_file_is_executed(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    torch.save({"state_dict": MODULES, "x": Payload()}, tmp_path / "payload.pt")
    refused = holdfast("init_weights=payload.pt")
    assert (refused.code, (tmp_path / "touched").exists()) == (1, False)
    assert "which could run anything" in refused.err


def test_a_resumed_run_goes_on_and_does_not_begin_anew(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "given.pt")
    ran = holdfast("init_weights=given.pt", "epochs=2")
    torch.save(MODULES, tmp_path / "given.pt")
    code, said = command_line(f"resume={ran.folder.path}")
    assert code == 2
    assert "start anew" in said


def test_weights_load_into_the_class_of_the_course(holdfast: Callable[..., Ran]) -> None:
    class LinearRegression(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(1, 1)

    for words in (["lr=0.1"], ["model=linear", "data=linear", "data.features=3"]):
        ran = holdfast(*words, "epochs=2")
        model = LinearRegression()
        if "data=linear" in words:
            model.linear = torch.nn.Linear(3, 1)
        model.load_state_dict(torch.load(ran.folder.weights))
        best = Linear.load_from_checkpoint(ran.folder.best, weights_only=True)
        assert torch.equal(model.linear.weight, best.network.weight)


def test_weights_of_a_perceptron_load_into_a_plain_sequence_of_layers(holdfast: Callable[..., Ran]) -> None:
    ran = holdfast("model=mlp", "model.hidden=[8]", "epochs=2")
    layers = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    layers.load_state_dict(torch.load(ran.folder.weights))
    x = torch.linspace(-1, 1, 5).unsqueeze(1)
    best = MLP.load_from_checkpoint(ran.folder.best, weights_only=True)
    assert torch.equal(layers(x), best(x))
