"""Reports of real sweeps and runs: what is drawn and told is what the files say."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from holdfast.cli.main import CONF
from holdfast.compose.recompose import Recall, refuse
from holdfast.model import Linear
from holdfast.report import read as reading
from holdfast.report.page import spread
from holdfast.report.pictures import Picture, Pictures
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.rank import Job, rank
from tests.conftest import Ran, command_line

RATES = [0.0001, 0.001, 0.01, 0.1, 1.0]
Run = Callable[..., Ran]


def swept(holdfast: Run, folder: Path, *words: str) -> SweepFolder:
    ran = holdfast("-m", *words, f"hydra.sweep.dir={folder}")
    assert ran.code in (0, 1), ran.err
    return SweepFolder(folder)


def pictures(folder: SweepFolder) -> dict[str, Picture]:
    jobs = reading.jobs_of(folder)
    recall = Recall(CONF)

    def config_of(number: int) -> Any:
        composed = recall(jobs[number].result.overrides, jobs[number].result.config_hash)
        return composed.config if composed else None

    (ranking,) = rank(jobs, "min")
    made = Pictures(ranking, folder.job, config_of)
    found = {picture.name: picture for picture in made.all()}
    assert not made.missing
    assert not recall.problems
    return found


def results(folder: SweepFolder, count: int) -> list[Result]:
    found = [folder.job(number).read() for number in range(count)]
    return [result for result in found if result is not None]


def line(axes: Any, label: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    (found,) = [item for item in axes.lines if item.get_label() == label]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def test_the_courses_sweep(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.0001,0.001,0.01,0.1,1")
    told = results(folder, 5)
    made = pictures(folder)
    assert set(made) == {"loss_lr", "fit", "curves", "surface"}
    # the headline figure against result.json
    (axes,) = made["loss_lr"].figure.axes
    done = [(rate, result.best) for rate, result in zip(RATES, told, strict=True) if result.status == "completed"]
    for label, key in (("val/loss", "val/loss"), ("training", "train/loss")):
        x, y = line(axes, label)
        np.testing.assert_allclose(x, [rate for rate, _ in done])
        np.testing.assert_allclose(y, [best[key] for _, best in done if best])
    assert line(axes, "diverged")[0].tolist() == [1.0]
    best = min((best["val/loss"], rate) for rate, best in done if best)
    assert [float(part[0]) for part in line(axes, "chosen")] == [best[1], best[0]]
    # fitted lines against model.pth
    (axes,) = made["fit"].figure.axes
    for number, rate in enumerate(RATES[:4]):
        state = torch.load(folder.job(number).weights, weights_only=True)
        x, y = line(axes, f"lr={rate:g}")
        slope, bias = (float(value) for value in state.values())
        np.testing.assert_allclose(y, slope * x + bias, rtol=1e-4, atol=1e-4)
    # the way down the surface ends at the last weights and begins at the initial ones
    ways = {axes.get_title(): axes.lines[0] for axes in made["surface"].figure.axes}
    assert list(ways) == ["lr=0.0001", "lr=0.001", "lr=0.01", "lr=0.1"]
    last = torch.load(folder.job(2).last, weights_only=True)["state_dict"]
    way = np.column_stack([ways["lr=0.01"].get_xdata(), ways["lr=0.01"].get_ydata()])
    assert len(way) == 601
    np.testing.assert_allclose(way[-1], [float(value) for value in last.values()], rtol=1e-6)
    # learning curves against the event file
    x, y = line(made["curves"].figure.axes[-1], "lr=0.001")
    assert len(x) == 10
    assert told[1].best is not None
    assert told[1].last is not None
    np.testing.assert_allclose(y[told[1].best["epoch"]], told[1].best["val/loss"], rtol=1e-6)
    np.testing.assert_allclose(y[-1], told[1].last["val/loss"], rtol=1e-6)


def test_the_page_answers_which_by_how_much_and_whether_to_trust_it(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1,1", "seed=0,1,2")
    page = folder.page.read_text()
    selection = json.loads(folder.selection.read_text())
    assert f"Winner: job {selection['winner']} (" in page
    assert f"<code>python train.py {' '.join(selection['overrides'])}</code>" in page
    assert f"test/loss {selection['test']['test/loss']:.6g}" in page
    assert f"{selection['margin']:.6g} better than the runner-up" in page
    assert "Over 3 seeds its settings give" in page
    assert "Least squares, solved exactly" in page
    assert "Test rows were opened 1x" in page
    assert "Diverged or failed: 3" in page
    assert page.count("<tr") == 1 + 9
    assert len(re.findall(r'<img alt="\w+" src="data:image/png;base64,', page)) == 4
    assert "http" not in page.replace("http-equiv", "")  # nothing from elsewhere
    assert len(page) < 1_000_000


def test_least_squares_is_that_of_numpy(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.05", "data=linear", "batch_size=20")
    config = Recall(CONF)(["lr=0.01", "data=linear", "batch_size=20"], results(folder, 1)[0].config_hash)
    assert config is not None
    exact = reading.Table(config.config).least_squares()
    table = reading.Table(config.config)
    x, y = (part.double().numpy() for part in (table.x("train"), table.y("train")))
    design = np.column_stack([x, np.ones(len(x))])
    solution = np.linalg.lstsq(design, y[:, 0], rcond=None)[0]
    np.testing.assert_allclose([*exact.weight, exact.bias], solution, rtol=1e-9)
    np.testing.assert_allclose(exact.train, np.mean((design @ solution - y[:, 0]) ** 2), rtol=1e-9)
    made = pictures(folder)
    assert set(made) == {"loss_lr", "residuals", "curves"}
    module = Linear(features=8)
    module.load_state_dict(torch.load(folder.path / "model.pth", weights_only=True))
    with torch.no_grad():
        guess = module(table.x("val"))[:, 0].numpy()
    np.testing.assert_allclose(made["residuals"].figure.axes[0].lines[0].get_ydata(), guess, rtol=1e-5)  # type: ignore[arg-type]


def test_the_cost_surface_is_the_mean_squared_error(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    composed = Recall(CONF)(["lr=0.01"], results(folder, 1)[0].config_hash)
    assert composed is not None
    table = reading.Table(composed.config)
    first, second = np.array([-3.0, 0.0, 2.0]), np.array([1.0, -1.0])
    made = reading.cost(composed.config, table, first, second)
    assert made is not None
    x, y = (part[:, 0].double().numpy() for part in (table.x("train"), table.y("train")))
    expected = [[np.mean((w * x + b - y) ** 2) for w in first] for b in second]
    assert made[0] == ("weight", "bias")
    np.testing.assert_allclose(made[1], expected, rtol=1e-12)


def test_batch_sizes_lie_side_by_side(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "batch_size=1,5,full", "lr=0.001,0.01", "data.outliers=null")
    made = pictures(folder)
    assert set(made) == {"loss_lr", "loss_batch_size", "heatmap", "fit", "curves", "surface"}
    titles = [axes.get_title() for axes in made["curves"].figure.axes]
    assert titles == ["batch_size=1", "batch_size=5", "batch_size=full", "val/loss after every epoch"]
    lengths = [len(axes.lines[0].get_xdata()) for axes in made["surface"].figure.axes]  # type: ignore[arg-type]
    assert lengths == [601, 121, 11]
    axes = made["heatmap"].figure.axes[0]
    held = np.ma.filled(axes.collections[0].get_array(), np.nan).reshape(2, 3)
    best = [result.best["val/loss"] for result in results(folder, 6) if result.best]
    np.testing.assert_allclose(held, np.array(best).reshape(3, 2).T)


def test_all_diverged(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=10,20")
    assert "no winner, and the test rows stay sealed" in folder.page.read_text()
    (axes,) = pictures(folder)["loss_lr"].figure.axes
    assert line(axes, "diverged")[0].tolist() == [10.0, 20.0]


def test_one_job(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01")
    assert set(pictures(folder)) == {"fit", "curves", "surface"}
    assert "the best of 1 job.</p>" in folder.page.read_text()


def test_a_sweep_in_which_every_job_failed_is_told(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "accelerator=gpu", "lr=0.01,0.1")
    page = folder.page.read_text()
    assert "Diverged or failed: 2" in page
    assert "this machine has none" in page
    assert not folder.figures.exists()


def test_a_thousand_jobs_fit_into_three_megabytes(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "experiment=stacked_1000", "epochs=2", "sweep.keep=all")
    page = folder.page.read_bytes()
    assert len(page) < 3_000_000
    assert page.count(b"<tr") == 1001
    (axes,) = pictures(folder)["loss_lr"].figure.axes
    assert len(line(axes, "batch_size=1 val/loss")[0]) > 30
    labels = [str(item.get_label()) for item in axes.lines]
    assert sum(not label.startswith("_") for label in labels) <= 10


def test_dropped_folders_are_ranked_and_not_drawn(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=logspace(1e-4,1e-1,8)", "sweep.keep=3")
    assert folder.page.read_text().count("<tr") == 9
    made = pictures(folder)
    assert len(line(made["loss_lr"].figure.axes[0], "val/loss")[0]) == 8
    named = [item for item in made["fit"].figure.axes[0].lines if str(item.get_label()).startswith("lr=")]
    assert len(named) == 3


def test_data_sets_are_told_apart(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1", "data.noise=0.1,1.0")
    page = folder.page.read_text()
    assert "Data set 2 of 2" in page
    assert page.count("Winner: job") == 2
    assert (folder.figures / "data2_loss_lr.png").exists()


def test_names_are_escaped(holdfast: Run, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    done = swept(holdfast, folder.parent / "plain", "lr=0.01,0.1")
    shutil.copytree(done.path, folder)
    hostile = SweepFolder(folder)
    told = json.loads(hostile.sweep.read_text())
    told["overrides"].append("<script>alert(2)</script>")
    told["versions"]["<b>"] = "</li>"
    hostile.sweep.write_text(json.dumps(told))
    assert command_line("report", str(folder))[0] == 0
    page = hostile.page.read_text()
    for evil in ("<img src=x", "<script>alert", "<b>"):
        assert evil not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page


def test_report_again_is_the_same_but_for_what_cannot_be_known(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    before = {path.name: path.read_bytes() for path in [*folder.figures.iterdir(), folder.page]}
    shutil.rmtree(folder.figures)
    folder.page.unlink()
    assert command_line("report", str(folder.path))[0] == 0
    assert {path.name: path.read_bytes() for path in [*folder.figures.iterdir(), folder.page]} == before


def test_a_run_is_drawn_when_asked(holdfast: Run) -> None:
    plain = holdfast("lr=0.01")
    assert not plain.folder.figures.exists()
    asked = holdfast("lr=0.01", "report=true")
    names = {"fit.png", "curves.png", "surface.png"}
    assert {path.name for path in asked.folder.figures.iterdir()} == names
    wide = holdfast("lr=0.01", "report=true", "data=linear", "batch_size=20", "epochs=1")
    drawn = {path.name for folder in (asked.folder, wide.folder) for path in folder.figures.iterdir()}
    assert drawn == set(RunFolder.FIGURES)  # what is removed with a run
    assert command_line("report", str(plain.folder.path))[0] == 0
    assert {path.name for path in plain.folder.figures.iterdir()} == names
    never = holdfast("lr=0.01", "report=false")
    assert not never.folder.parameter_path.exists()


@pytest.mark.parametrize("words", [("report=true",), ("-m", "lr=0.01,0.1", "hydra.sweep.dir=swept")])
def test_a_report_that_cannot_be_written_takes_nothing_away(
    words: tuple[str, ...], holdfast: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("holdfast.report.write.png", full)
    ran = holdfast(*words)
    folder = Path("swept") if "-m" in words else ran.folder.path
    assert (ran.code, ran.err) == (0, "")
    assert f"No space left on device; holdfast report {folder} tries again" in ran.out
    monkeypatch.undo()
    assert command_line("report", str(ran.folder.path.parents[1] / folder))[0] == 0


def test_tensorboard_has_images_and_texts(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    seen = EventAccumulator(str(folder.report_events), size_guidance={"images": 0, "tensors": 0})
    seen.Reload()
    assert seen.Tags()["images"] == [f"figures/{name}" for name in ("loss_lr", "fit", "surface", "curves")]
    (image,) = seen.Images("figures/fit")
    assert image.encoded_image_string == (folder.figures / "fit.png").read_bytes()
    assert image.width > 300
    texts = {tag: seen.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ("leaderboard", "config")}
    assert texts["leaderboard"].splitlines()[0].startswith("| rank | job | status | lr |")
    assert "    lr: 0.1" in texts["config"]
    winner = json.loads(folder.selection.read_text())
    tested = EventAccumulator(str(folder.job(winner["winner"]).path))
    tested.Reload()
    assert tested.Scalars("test/loss")[0].value == pytest.approx(winner["test"]["test/loss"])
    assert tested.Scalars("best/val/loss")[0].value == pytest.approx(winner["value"])


@pytest.mark.parametrize("words", [[], ["nowhere"], ["a", "b"]])
def test_a_report_of_nothing_is_refused(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = command_line("report", *words)
    assert code == 2
    assert "usage: holdfast report" in said or "holds neither a sweep" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word",
    [
        "data._target_=os.system",
        "+callbacks.x={_target_: os.system}",
        "+callbacks.x={a: [{_target_: os.system}]}",
        "lr=${oc.env:HOME}",
        "hydra.searchpath=[file:///tmp]",
        "+hydra.run.dir=/tmp",
        "hydra/launcher=joblib",
        "data.slope=1,${oc.env:HOME}",
    ],
)
def test_recorded_words_that_could_run_something_are_refused(word: str) -> None:
    with pytest.raises(Exception, match="could run something"):
        refuse(["lr=0.1", word])


def test_hostile_words_in_a_folder_build_nothing(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    mark = tmp_path / "mark"
    for number in range(2):
        path = folder.job(number).result
        told = json.loads(path.read_text())
        told["overrides"] = ["data._target_=subprocess.run", f"+data.args=[touch,{mark}]"]
        path.write_text(json.dumps(told))
    code, said = command_line("report", str(folder.path))
    assert code == 0
    assert "could run something" in said
    assert not mark.exists()


def test_a_changed_configuration_is_told(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    told = json.loads(folder.sweep.read_text())
    for number in range(2):
        told["jobs"][number]["config_hash"] = "other"
        path = folder.job(number).result
        path.write_text(json.dumps({**json.loads(path.read_text()), "config_hash": "other"}))
    folder.sweep.write_text(json.dumps(told))
    code, said = command_line("report", str(folder.path))
    assert code == 0
    assert "no longer the one that was trained with" in said
    assert "loss_lr" in folder.page.read_text()


def job(number: int, words: list[str], value: float) -> Job:
    best = {"epoch": 0, "val/loss": value, "train/loss": value}
    return Job(number, words, "rows", Result("completed", words, "", "val/loss", best=best))


def test_a_margin_within_the_noise_of_seeds_is_called_that() -> None:
    values = {"lr=1": [1.0, 1.4, 1.2], "lr=2": [1.1, 1.5, 1.3]}
    jobs = [
        job(number, [words, f"seed={seed}"], value)
        for number, (words, seed, value) in enumerate(
            (words, seed, value) for words, each in values.items() for seed, value in enumerate(each)
        )
    ]
    told = " ".join(spread(rank(jobs, "min")[0]))
    assert "Over 3 seeds its settings give 1.2 ± 0.2" in told
    assert "other seeds may choose otherwise" in told
    clear = [job(number, [f"lr={number // 2}", f"seed={number % 2}"], 1 + 10 * (number // 2)) for number in range(4)]
    assert "otherwise" not in " ".join(spread(rank(clear, "min")[0]))
    assert spread(rank([job(0, ["lr=1"], 1.0), job(1, ["lr=2"], 2.0)], "min")[0]) == []
