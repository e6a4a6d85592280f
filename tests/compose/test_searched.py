"""Searches from the command line: what is drawn, what is refused, and what more trials add."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from holdfast.store.folders import SweepFolder
from tests.conftest import command_line
from tests.stacked.test_loop import assert_alike

QUICK = ("epochs=2", "report=false", "sweep.keep=all", "precision=64-true")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def search(name: str, *words: str) -> SweepFolder:
    """Run a search in a folder; it has to succeed."""
    code, said = command_line("-m", *words, *QUICK, f"hydra.sweep.dir={name}")
    assert code == 0, said
    return SweepFolder(Path(name))


def overrides_of(sweep: SweepFolder) -> list[list[str]]:
    return [job["overrides"] for job in json.loads(sweep.sweep.read_text())["jobs"]]


def weights(sweep: SweepFolder, number: int) -> dict[str, torch.Tensor]:
    return torch.load(sweep.job(number).weights, weights_only=True)


@pytest.mark.parametrize(
    ("words", "lesson"),
    [
        ("lr=interval(0.1,1)", "add sweep.trials=N"),
        ("lr=interval(1,0.1) sweep.trials=2", "has its ends reversed: interval(0.1,1)"),
        ("lr=interval(1,1) sweep.trials=2", "holds one value: lr=1"),
        ("lr=interval(0.1,inf) sweep.trials=2", "needs two finite ends"),
        ("lr=interval(nan,1) sweep.trials=2", "needs two finite ends"),
        ("lr=loginterval(-1,1) sweep.trials=2", "needs ends above 0 under log"),
        ("lr=loginterval(0,1) sweep.trials=2", "needs ends above 0 under log"),
        ("lr=tag(log,interval(0,1)) sweep.trials=2", "needs ends above 0 under log"),
        ("lr=tag(quantized,interval(0.1,1)) sweep.trials=2", "has a tag that is neither log nor int"),
        ("epochs=tag(int,interval(1,2.5)) sweep.trials=2", "needs whole numbers as its ends"),
        ("model=interval(0,1) sweep.trials=2", "model is a config group: list its options"),
        ("optimizer=interval(0,1) sweep.trials=2", "optimizer is a config group"),
        ("seed=int(interval(0,9)) sweep.trials=2", "seeds are repeats of the same settings"),
        ("data.seed=int(interval(0,9)) sweep.trials=2", "seeds are repeats of the same settings"),
        ("lr=interval(a,b) sweep.trials=2", "needs two numbers: interval(0,1)"),
        ("lr=interval(1) sweep.trials=2", "needs two numbers: interval(0,1)"),
        ("lr=interval(0.1,1),3 sweep.trials=2", "give the interval alone"),
        ("model=mlp model.hidden=[interval(1,9)] sweep.trials=2", "stands for the whole value of a key"),
        ("batch_size=interval(1,8) sweep.trials=2", "int(interval(...)) draws whole numbers"),
        ("batch_size=int(interval(1,64)) sweep.trials=2", "has 64 values, each of which is a stack: at most 8"),
        ("lr=interval(-2,-1) sweep.trials=2", "must be a number above 0"),
        ("lr=interval(0.1,1) sweep.trials=0", "must be a whole number from 1 on"),
        ("lr=interval(0.1,1) sweep.trials=many", "must be a whole number from 1 on"),
        ("lr=interval(0.1,1) sweep.trials=2 sweep.sampler=grid", "must be sobol, random, zoom or tpe"),
        ("lr=interval(0.1,1) sweep.trials=2 sweep.seed=-1", "sweep.seed=-1"),
        ("lr=0.1,0.2 sweep.trials=2", "has no interval to draw from"),
        ("no_such=interval(0.1,1) sweep.trials=2", "no such key"),
        ("accelerator=interval(0,1) sweep.trials=2", "accelerator=interval(0,1)"),
        ("lr=interval(0.1,1) lr=0.5 sweep.trials=2", "is given twice"),
        ("lr=loginterval(0.1) sweep.trials=2", "needs two numbers: interval(0,1)"),
        ("lr=1e-5..1 sweep.trials=2", "an interval is interval(1e-5,1)"),
        ("lr=1e-5:1 sweep.trials=2", "an interval is interval(1e-5,1)"),
        ("lr=loguniform(1e-5,1) sweep.trials=2", "there is no function loguniform; an interval is interval(0,1)"),
        ("lr=log(1e-5,1) sweep.trials=2", "there is no function log; an interval is interval(0,1)"),
        ("lr=interval(0.1,1) sweep.trials=2,3", "says which jobs there are: give it one value"),
    ],
)
def test_bad_searches_are_refused(words: str, lesson: str) -> None:
    code, said = command_line("-m", *words.split())
    assert code == 2, said
    assert lesson in said
    assert not Path("outputs").exists()


def test_listed_values_run_fastest_and_every_trial_is_plain() -> None:
    sweep = search("sweep", "lr=loginterval(1e-3,1e-1)", "batch_size=5,20", "sweep.trials=3")
    jobs = overrides_of(sweep)
    assert [job[1] for job in jobs] == ["batch_size=5", "batch_size=20"] * 3
    assert [job[0] for job in jobs[::2]] == [job[0] for job in jobs[1::2]]
    assert not any("interval" in item or "sweep.trials" in item for job in jobs for item in job)


@pytest.mark.parametrize("sampler", ["sobol", "random"])
def test_a_trial_is_the_job_that_its_overrides_make(sampler: str) -> None:
    words = ("lr=loginterval(1e-3,1e-1)", "data.noise=interval(0,1)", "sweep.trials=4", f"sweep.sampler={sampler}")
    sweep = search("sweep", *words)
    for number in (0, 3):
        overrides = overrides_of(sweep)[number]
        code, said = command_line(*overrides, f"hydra.run.dir=alone{number}")
        assert code == 0, said
        alone = torch.load(Path(f"alone{number}", "model.pth"), weights_only=True)
        assert_alike(weights(sweep, number), alone, 1e-9, 1e-12)


@pytest.mark.parametrize("sampler", ["sobol", "random"])
def test_more_trials_extend_a_finished_search(sampler: str) -> None:
    words = ("lr=loginterval(1e-3,1e-1)", "batch_size=5,20", f"sweep.sampler={sampler}")
    sweep = search("sweep", *words, "sweep.trials=4")
    before, results = overrides_of(sweep), [weights(sweep, number) for number in range(8)]
    archives = {path.name: path.read_bytes() for path in sweep.path.glob("stacks/*")}
    code, said = command_line("-m", "resume=sweep", "sweep.trials=8")
    assert code == 0, said
    recorded = json.loads(sweep.sweep.read_text())
    assert recorded["rounds"] == [8, 8]
    assert overrides_of(sweep)[:8] == before
    assert {name: Path("sweep", "stacks", name).read_bytes() for name in archives} == archives
    for number in range(8):
        assert_alike(weights(sweep, number), results[number], 0, 0)
    whole = search("whole", *words, "sweep.trials=8")
    assert overrides_of(whole) == overrides_of(sweep)
    for number in range(16):
        assert_alike(weights(sweep, number), weights(whole, number), 1e-9, 1e-12)
    code, said = command_line("-m", "resume=sweep")
    assert (code, "this sweep is finished; nothing was done" in said) == (0, True)


def test_the_same_command_with_more_trials_extends_too_and_fewer_are_refused() -> None:
    words = ("lr=loginterval(1e-3,1e-1)", *QUICK, "hydra.sweep.dir=sweep")
    for count in (2, 5):
        assert command_line("-m", *words, f"sweep.trials={count}", "test_again=true")[0] == 0
    assert len(overrides_of(SweepFolder(Path("sweep")))) == 5
    code, said = command_line("-m", *words, "sweep.trials=3")
    assert code != 0
    assert "holds a sweep of 5 jobs, this one has 3" in said


def test_another_winner_is_tested_only_on_request() -> None:
    sweep = search("sweep", "lr=loginterval(1e-6,1e-1)", "sweep.trials=1")
    code, said = command_line("-m", "resume=sweep", "sweep.trials=16")
    selection = json.loads(sweep.selection.read_text())
    assert selection["winner"] != 0
    assert (code, selection["test"], selection["test_opened"]) == (1, None, 1), said
    code, said = command_line("-m", "resume=sweep", "test_again=true")
    selection = json.loads(sweep.selection.read_text())
    assert (code, selection["test_opened"]) == (0, 2), said
    assert selection["test"]


def test_another_seed_draws_other_trials_of_the_same_sweep() -> None:
    first, second = (
        overrides_of(search(f"sweep{seed}", "lr=loginterval(1e-3,1e-1)", "sweep.trials=4", f"sweep.seed={seed}"))
        for seed in (0, 1)
    )
    assert all(one != other for one, other in zip(first, second, strict=True))


ROUNDS = [("zoom", 12, [6, 6]), ("tpe", 70, [64, 6])]


@pytest.mark.parametrize(("sampler", "trials", "rounds"), ROUNDS)
def test_a_search_in_rounds_is_the_same_in_stacks_and_one_by_one(sampler: str, trials: int, rounds: list[int]) -> None:
    words = ("lr=loginterval(1e-3,1)", f"sweep.sampler={sampler}", f"sweep.trials={trials}", "batch_size=20")
    stacked = search("stacked", *words)
    assert json.loads(stacked.sweep.read_text())["rounds"] == rounds
    alone = search("alone", *words, "hydra/launcher=basic") if sampler == "zoom" else search("again", *words)
    assert overrides_of(stacked) == overrides_of(alone)
    best = [json.loads(each.selection.read_text())["winner"] for each in (stacked, alone)]
    assert best[0] == best[1]
    for number in (0, trials - 1):
        assert_alike(weights(stacked, number), weights(alone, number), 1e-9, 1e-12)


@pytest.mark.parametrize(("sampler", "trials", "rounds"), ROUNDS)
def test_more_trials_append_rounds(sampler: str, trials: int, rounds: list[int]) -> None:
    words = ("lr=loginterval(1e-3,1)", f"sweep.sampler={sampler}", "batch_size=20")
    sweep = search("sweep", *words, f"sweep.trials={trials}")
    before, archive = overrides_of(sweep), next(sweep.path.glob("stacks/0.pt")).read_bytes()
    code, said = command_line("-m", "resume=sweep", f"sweep.trials={trials + 5}", "test_again=true")
    assert code == 0, said
    assert json.loads(sweep.sweep.read_text())["rounds"] == [*rounds, 5]
    assert overrides_of(sweep)[:trials] == before
    assert next(sweep.path.glob("stacks/0.pt")).read_bytes() == archive
    code, said = command_line("-m", "resume=sweep")
    assert (code, "nothing was done" in said) == (0, True)


def test_later_rounds_look_at_the_mean_over_repeats_and_at_each_model_apart() -> None:
    words = ("model=linear,mlp", "seed=0,1", "lr=loginterval(1e-4,1)", "sweep.sampler=zoom", "sweep.trials=32")
    sweep = search("sweep", *words, "batch_size=20")
    jobs = [{item.partition("=")[0]: item.partition("=")[2] for item in job} for job in overrides_of(sweep)]
    results = sweep.read_results()
    first = jobs[: 16 * 4]
    for model in ("linear", "mlp"):
        means: dict[str, list[float]] = {}
        for number, job in enumerate(first):
            best = results[number].best
            if job["model"] == model and best is not None:
                means.setdefault(job["lr"], []).append(best["val/loss"])
        ranked = sorted((sum(values) / 2, float(rate)) for rate, values in means.items() if len(values) == 2)
        low, high = sorted(rate for _, rate in ranked[:2])
        later = [job for job in jobs[16 * 4 :] if job["model"] == model]
        assert len(later) == 32
        assert all(low * (1 - 1e-5) <= float(job["lr"]) <= high * (1 + 1e-5) for job in later)
        rates = [[job["lr"] for job in later if job["seed"] == seed] for seed in "01"]
        assert rates[0] == rates[1]


def test_a_folder_of_another_search_is_refused() -> None:
    words = ("lr=loginterval(1e-3,1)", "sweep.sampler=zoom", "sweep.trials=4", *QUICK, "hydra.sweep.dir=sweep")
    assert command_line("-m", *words)[0] == 0
    code, said = command_line("-m", *words, "sweep.seed=1")
    assert code != 0
    assert "holds another sweep" in said
    recorded = json.loads(Path("sweep/sweep.json").read_text())
    recorded["jobs"][3]["overrides"][0] = "model._target_=os.system"
    Path("sweep/sweep.json").write_text(json.dumps(recorded))
    Path("sweep/selection.json").unlink()
    code, said = command_line("-m", "resume=sweep")
    assert code != 0
    assert "which this search did not draw" in said


def test_tpe_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.compose import searched

    monkeypatch.setattr(searched, "find_spec", lambda name: None)
    code, said = command_line("-m", "lr=loginterval(1e-3,1)", "sweep.sampler=tpe", "sweep.trials=4")
    assert (code, 'needs Optuna: pip install "holdfast[search]"' in said) == (2, True)


def test_trials_are_no_part_of_a_grid_and_do_not_become_fewer() -> None:
    assert command_line("-m", "lr=0.01,0.1", *QUICK, "hydra.sweep.dir=grid")[0] == 0
    code, said = command_line("-m", "resume=grid", "sweep.trials=4")
    assert (code, "was not started with it, and is no search" in said) == (2, True)
    search("zoomed", "lr=loginterval(1e-3,1)", "sweep.sampler=zoom", "sweep.trials=6")
    code, said = command_line("-m", "resume=zoomed", "sweep.trials=4")
    assert code != 0
    assert "it has 6 jobs, and this search has 4 trials of 1" in said
