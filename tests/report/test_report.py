"""Reports of real sweeps and runs: figures, pages and texts match the files."""

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
from holdfast.compose.recompose import Recomposer, refuse
from holdfast.model import Linear
from holdfast.report import regression
from holdfast.report.figures import ReportFigures
from holdfast.report.page import repeat_remarks
from holdfast.report.read import JobRecords, jobs_of
from holdfast.report.style import NamedFigure
from holdfast.stacked.stored import StoredStacks
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.sweeps.ended import Job
from holdfast.sweeps.rank import rank
from tests.conftest import Ran, command_line

RATES = [0.0001, 0.001, 0.01, 0.1, 1.0]
Run = Callable[..., Ran]


def swept(holdfast: Run, folder: Path, *overrides: str) -> SweepFolder:
    ran = holdfast("-m", *overrides, f"hydra.sweep.dir={folder}")
    assert ran.code in (0, 1), ran.err
    return SweepFolder(folder)


def figures_of(folder: SweepFolder) -> dict[str, NamedFigure]:
    jobs = jobs_of(folder)
    recomposer = Recomposer(CONF)

    def config_of(number: int) -> Any:
        composed = recomposer(jobs[number].result.overrides, jobs[number].result.config_hash)
        return composed.config if composed else None

    (ranking,) = rank(jobs, "min")
    records = JobRecords(folder.job, StoredStacks(folder, [job.result.config_hash for job in jobs]))
    drawing = ReportFigures(ranking, records, config_of)
    figures = {figure.name: figure for figure in drawing.draw()}
    assert not drawing.missing
    assert not recomposer.problems
    return figures


def results(folder: SweepFolder, count: int) -> list[Result]:
    read = [folder.job(number).read() for number in range(count)]
    return [result for result in read if result is not None]


def line(axes: Any, label: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    (artist,) = [artist for artist in axes.lines if artist.get_label() == label]
    return np.asarray(artist.get_xdata(), dtype=float), np.asarray(artist.get_ydata(), dtype=float)


def test_figures_of_the_courses_sweep_match_its_files(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.0001,0.001,0.01,0.1,1")
    ended = results(folder, 5)
    figures = figures_of(folder)
    assert set(figures) == {"loss_lr", "fit", "curves", "surface"}
    # losses against result.json
    (axes,) = figures["loss_lr"].figure.axes
    completed = [(rate, result.best) for rate, result in zip(RATES, ended, strict=True) if result.status == "completed"]
    for label, key in (("val/loss", "val/loss"), ("training", "train/loss")):
        x, y = line(axes, label)
        np.testing.assert_allclose(x, [rate for rate, _ in completed])
        np.testing.assert_allclose(y, [best[key] for _, best in completed if best])
    assert line(axes, "diverged")[0].tolist() == [1.0]
    best = min((best["val/loss"], rate) for rate, best in completed if best)
    assert [float(part[0]) for part in line(axes, "chosen")] == [best[1], best[0]]
    # fitted lines against model.pth
    (axes,) = figures["fit"].figure.axes
    for number, rate in enumerate(RATES[:4]):
        state = torch.load(folder.job(number).weights, weights_only=True)
        x, y = line(axes, f"lr={rate:g}")
        slope, bias = (float(value) for value in state.values())
        np.testing.assert_allclose(y, slope * x + bias, rtol=1e-4, atol=1e-4)
    # the parameter path ends at the last weights
    paths = {axes.get_title(): axes.lines[0] for axes in figures["surface"].figure.axes}
    assert list(paths) == ["lr=0.0001", "lr=0.001", "lr=0.01", "lr=0.1"]
    last = torch.load(folder.job(2).last, weights_only=True)["state_dict"]
    path = np.column_stack([paths["lr=0.01"].get_xdata(), paths["lr=0.01"].get_ydata()])
    assert len(path) == 601
    np.testing.assert_allclose(path[-1], [float(value) for value in last.values()], rtol=1e-6)
    # learning curves against the event file
    x, y = line(figures["curves"].figure.axes[-1], "lr=0.001")
    assert len(x) == 10
    assert ended[1].best is not None
    assert ended[1].last is not None
    np.testing.assert_allclose(y[ended[1].best["epoch"]], ended[1].best["val/loss"], rtol=1e-6)
    np.testing.assert_allclose(y[-1], ended[1].last["val/loss"], rtol=1e-6)


def test_the_page_shows_the_winner_the_margin_and_the_remarks(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1,1", "seed=0,1,2")
    page = folder.page.read_text()
    selection = json.loads(folder.selection.read_text())
    assert f"Winner: job {selection['winner']} (" in page
    assert f"<code>python train.py {' '.join(selection['overrides'])}</code>" in page
    assert f"test/loss {selection['test']['test/loss']:.6g}" in page
    repeats = selection["repeats"]
    error = float(f"{repeats['standard_error']:.2g}")
    stated = f"Mean val/loss {repeats['mean']:.6g} ± {error:g} (standard error)"
    assert f"{stated} over 3 repeats, the best of 3 settings." in page
    flatters = f"so its val/loss flatters; its test/loss is {selection['test']['test/loss']:.6g}"
    assert f"It was chosen by val/loss out of 2 settings, {flatters}" in page
    assert "Least squares, solved exactly" in page
    assert "Test rows were opened 1x" in page
    assert "Diverged or failed: 3" in page
    assert page.count("<tr") == 1 + 9 + 1 + 3  # of the jobs, and of their settings
    assert len(re.findall(r'<img alt="\w+" src="data:image/png;base64,', page)) == 5
    assert "http" not in page.replace("http-equiv", "")  # no external resources
    assert len(page) < 1_000_000


def test_least_squares_matches_numpy(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.05", "data=linear", "batch_size=20")
    composed = Recomposer(CONF)(["lr=0.01", "data=linear", "batch_size=20"], results(folder, 1)[0].config_hash)
    assert composed is not None
    rows = regression.read_rows(composed.config)
    assert rows is not None
    exact = rows.least_squares()
    x, y = (part.double().numpy() for part in rows.train[:2])
    design = np.column_stack([x, np.ones(len(x))])
    solution = np.linalg.lstsq(design, y[:, 0], rcond=None)[0]
    np.testing.assert_allclose([*exact.weight[:, 0], *exact.bias], solution, rtol=1e-9)
    np.testing.assert_allclose(exact.train, np.mean((design @ solution - y[:, 0]) ** 2), rtol=1e-9)
    figures = figures_of(folder)
    assert set(figures) == {"loss_lr", "residuals", "curves"}
    module = Linear.load_from_checkpoint(folder.path / "best.ckpt", weights_only=True)
    with torch.no_grad():
        prediction = module(rows.val.x)[:, 0].numpy()
    np.testing.assert_allclose(figures["residuals"].figure.axes[0].lines[0].get_ydata(), prediction, rtol=1e-5)  # type: ignore[arg-type]


def test_the_cost_surface_is_the_mean_squared_error(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    composed = Recomposer(CONF)(["lr=0.01"], results(folder, 1)[0].config_hash)
    assert composed is not None
    rows = regression.read_rows(composed.config)
    assert rows is not None
    first, second = np.array([-3.0, 0.0, 2.0]), np.array([1.0, -1.0])
    surface = regression.cost_surface(composed.config, rows, first, second)
    assert surface is not None
    names, cost = surface
    x, y = (part[:, 0].double().numpy() for part in rows.train[:2])
    expected = [[np.mean((w * x + b - y) ** 2) for w in first] for b in second]
    assert names == ("weight", "bias")
    np.testing.assert_allclose(cost, expected, rtol=1e-12)


def test_batch_sizes_have_panels_side_by_side(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "batch_size=1,5,full", "lr=0.001,0.01", "data.outliers=null")
    figures = figures_of(folder)
    assert set(figures) == {"loss_lr", "loss_batch_size", "heatmap", "parallel", "fit", "curves", "surface"}
    titles = [axes.get_title() for axes in figures["curves"].figure.axes]
    assert titles == ["batch_size=1", "batch_size=5", "batch_size=full", "val/loss after every epoch"]
    lengths = [len(axes.lines[0].get_xdata()) for axes in figures["surface"].figure.axes]  # type: ignore[arg-type]
    assert lengths == [601, 121, 11]
    axes = figures["heatmap"].figure.axes[0]
    shown = np.ma.filled(axes.collections[0].get_array(), np.nan).reshape(2, 3)
    best = [result.best["val/loss"] for result in results(folder, 6) if result.best]
    np.testing.assert_allclose(shown, np.array(best).reshape(3, 2).T)


def test_a_sweep_in_which_every_job_diverged_has_no_winner(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=10,20")
    assert "no winner, and the test rows stay sealed" in folder.page.read_text()
    (axes,) = figures_of(folder)["loss_lr"].figure.axes
    assert line(axes, "diverged")[0].tolist() == [10.0, 20.0]


def test_a_sweep_of_one_job_has_a_report(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01")
    assert set(figures_of(folder)) == {"fit", "curves", "surface"}
    assert "the best of 1 job.</p>" in folder.page.read_text()


def test_a_sweep_in_which_every_job_failed_lists_the_errors(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "accelerator=gpu", "lr=0.01,0.1")
    page = folder.page.read_text()
    assert "Diverged or failed: 2" in page
    assert "this machine has none" in page
    assert not folder.figures.exists()


def test_a_thousand_jobs_fit_into_three_megabytes(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "experiment=stacked_1000", "epochs=2")
    page = folder.page.read_bytes()
    assert len(page) < 3_000_000
    assert page.count(b"<tr") == 1 + 1000 + 1 + 200
    (axes,) = figures_of(folder)["loss_lr"].figure.axes
    assert len(line(axes, "batch_size=1 val/loss")[0]) > 30
    labels = [str(item.get_label()) for item in axes.lines]
    assert sum(not label.startswith("_") for label in labels) <= 10


def test_jobs_without_a_folder_are_drawn_from_the_archive_as_from_folders(holdfast: Run, tmp_path: Path) -> None:
    words = ["lr=logspace(1e-4,1e-1,8)", "logger=none"]
    drawn = [figures_of(swept(holdfast, tmp_path / keep, *words, f"sweep.keep={keep}")) for keep in ("all", "3")]
    assert not list(tmp_path.glob("3/*/best.ckpt"))[3:]
    for name, figure in drawn[0].items():
        for mine, theirs in zip(figure.figure.axes, drawn[1][name].figure.axes, strict=True):
            lines = [[np.asarray(item.get_xydata()) for item in axes.lines] for axes in (mine, theirs)]
            assert len(lines[0]) == len(lines[1])
            assert all(np.array_equal(*pair, equal_nan=True) for pair in zip(*lines, strict=True)), name


def test_of_many_jobs_the_page_shows_rows_of_all_ranks(
    holdfast: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.report.page.MAX_ROWS", 5)
    folder = swept(holdfast, tmp_path / "sweep", "lr=logspace(1e-4,1e-1,8)", "epochs=1")
    page = folder.page.read_text()
    assert "5 of 8 jobs, spread over all ranks" in page
    assert re.findall(r'<tr data-command="[^"]+"(?: class="best")?><td>(\d+)', page) == ["1", "3", "5", "6", "8"]


def test_each_data_set_has_its_own_section_and_figures(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1", "data.noise=0.1,1.0")
    page = folder.page.read_text()
    assert "Data set 2 of 2" in page
    assert page.count("Winner: job") == 2
    assert (folder.figures / "data2_loss_lr.png").exists()


def test_html_in_names_is_escaped(holdfast: Run, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(1)>"
    original = swept(holdfast, folder.parent / "original", "lr=0.01,0.1")
    shutil.copytree(original.path, folder)
    hostile = SweepFolder(folder)
    content = json.loads(hostile.sweep.read_text())
    content["overrides"].append("<script>alert(2)</script>")
    content["versions"]["<b>"] = "</li>"
    hostile.sweep.write_text(json.dumps(content))
    assert command_line("report", str(folder))[0] == 0
    page = hostile.page.read_text()
    for markup in ("<img src=x", "<script>alert", "<b>"):
        assert markup not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in page


def test_a_report_made_again_has_the_same_bytes(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    before = {path.name: path.read_bytes() for path in [*folder.figures.iterdir(), folder.page]}
    shutil.rmtree(folder.figures)
    folder.page.unlink()
    assert command_line("report", str(folder.path))[0] == 0
    assert {path.name: path.read_bytes() for path in [*folder.figures.iterdir(), folder.page]} == before


def test_a_run_has_figures_only_with_report_true(holdfast: Run) -> None:
    default = holdfast("lr=0.01")
    assert not default.folder.figures.exists()
    line = holdfast("lr=0.01", "report=true")
    names = {"fit.png", "curves.png", "surface.png"}
    assert {path.name for path in line.folder.figures.iterdir()} == names
    linear = holdfast("lr=0.01", "report=true", "data=linear", "batch_size=20", "epochs=1")
    drawn = {path.name for folder in (line.folder, linear.folder) for path in folder.figures.iterdir()}
    of_tables = {"coefficients.png", "confusion.png"}
    assert drawn == set(RunFolder.FIGURES) - of_tables  # the names that are removed with a run
    assert command_line("report", str(default.folder.path))[0] == 0
    assert {path.name for path in default.folder.figures.iterdir()} == names
    never = holdfast("lr=0.01", "report=false")
    assert not never.folder.parameter_path.exists()


@pytest.mark.parametrize("command", [("report=true",), ("-m", "lr=0.01,0.1", "hydra.sweep.dir=swept")])
def test_an_error_in_the_report_does_not_fail_the_run_or_sweep(
    command: tuple[str, ...], holdfast: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("holdfast.report.create.png", disk_full)
    ran = holdfast(*command)
    folder = Path("swept") if "-m" in command else ran.folder.path
    assert (ran.code, ran.err) == (0, "")
    assert f"No space left on device; holdfast report {folder} tries again" in ran.out
    monkeypatch.undo()
    assert command_line("report", str(ran.folder.path.parents[1] / folder))[0] == 0


def test_tensorboard_has_images_and_texts(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    events = EventAccumulator(str(folder.report_events), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    assert events.Tags()["images"] == [f"figures/{name}" for name in ("loss_lr", "fit", "surface", "curves")]
    (image,) = events.Images("figures/fit")
    assert image.encoded_image_string == (folder.figures / "fit.png").read_bytes()
    assert image.width > 300
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in ("leaderboard", "config")}
    assert texts["leaderboard"].splitlines()[0].startswith("| rank | job | status | lr |")
    assert "    lr: 0.1" in texts["config"]
    selection = json.loads(folder.selection.read_text())
    tested = EventAccumulator(str(folder.job(selection["winner"]).path))
    tested.Reload()
    assert tested.Scalars("test/loss")[0].value == pytest.approx(selection["test"]["test/loss"])
    assert tested.Scalars("best/val/loss")[0].value == pytest.approx(selection["value"])


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["a", "b"]])
def test_a_report_without_a_finished_folder_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = command_line("report", *arguments)
    assert code == 2
    assert "usage: holdfast report" in printed or "holds neither a sweep" in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "override",
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
def test_recorded_overrides_that_could_execute_code_are_refused(override: str) -> None:
    with pytest.raises(Exception, match="could run something"):
        refuse(["lr=0.1", override])


def test_hostile_overrides_in_a_folder_execute_nothing(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    mark = tmp_path / "mark"
    for number in range(2):
        path = folder.job(number).result
        content = json.loads(path.read_text())
        content["overrides"] = ["data._target_=subprocess.run", f"+data.args=[touch,{mark}]"]
        path.write_text(json.dumps(content))
    code, printed = command_line("report", str(folder.path))
    assert code == 0
    assert "could run something" in printed
    assert not mark.exists()


def test_a_changed_configuration_is_reported(holdfast: Run, tmp_path: Path) -> None:
    folder = swept(holdfast, tmp_path / "sweep", "lr=0.01,0.1")
    content = json.loads(folder.sweep.read_text())
    for number in range(2):
        content["jobs"][number]["config_hash"] = "other"
        path = folder.job(number).result
        path.write_text(json.dumps({**json.loads(path.read_text()), "config_hash": "other"}))
    folder.sweep.write_text(json.dumps(content))
    code, printed = command_line("report", str(folder.path))
    assert code == 0
    assert "no longer the one that was trained with" in printed
    assert "loss_lr" in folder.page.read_text()


def job(number: int, overrides: list[str], value: float) -> Job:
    best = {"epoch": 0, "val/loss": value, "train/loss": value}
    return Job(number, overrides, "rows", Result("completed", overrides, "", "val/loss", best=best))


def test_a_margin_smaller_than_the_spread_over_seeds_is_remarked() -> None:
    losses = {"lr=1": [1.0, 1.4, 1.2], "lr=2": [1.3, 1.3, 1.2]}
    jobs = [
        job(3 * index + seed, [lr, f"seed={seed}"], loss)
        for index, (lr, of_seeds) in enumerate(losses.items())
        for seed, loss in enumerate(of_seeds)
    ]
    remarks = " ".join(repeat_remarks(rank(jobs, "min")[0]))
    assert "The next best settings, lr=2, give 1.26667 ± 0.033." in remarks
    assert "Repeat by repeat they differ by 0.0666667 ± 0.12" in remarks
    assert "other repeats may choose otherwise" in remarks
    clear = [job(number, [f"lr={number // 2}", f"seed={number % 2}"], 1 + 10 * (number // 2)) for number in range(4)]
    assert "otherwise" not in " ".join(repeat_remarks(rank(clear, "min")[0]))
    assert repeat_remarks(rank([job(0, ["lr=1"], 1.0), job(1, ["lr=2"], 2.0)], "min")[0]) == []
