"""A finished run, and a finished sweep, as Python sees them: everything is read from their folders."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from numpy.typing import NDArray
from torch import nn

from holdfast.api.passed import ONE_AT_A_TIME, Passed
from holdfast.api.rows_file import is_of_an_array, is_passed, raw_columns
from holdfast.caching.sources import source_of
from holdfast.cli.main import CONF
from holdfast.compose.recompose import Recomposer
from holdfast.config.job import in_folder
from holdfast.config.options import TABLE
from holdfast.config.schema import Config
from holdfast.errors import DataError, FolderError, HoldfastError, in_a_line
from holdfast.predict.predictor import Predictor
from holdfast.record.events import read_scalars
from holdfast.report.read import JobRecords, jobs_of
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.result import Result
from holdfast.tables.encoding import Encoder, Encoding, decoded
from holdfast.tables.models import OfTable
from holdfast.tables.reader import files_of


class _Everything:
    """Every tag."""

    def __contains__(self, tag: object) -> bool:
        return True


class Run:
    """A finished run.

    Args:
        folder: its folder.
        passed: what its call was given beside overrides, so that its configuration can be composed again.

    Attributes:
        path: its folder.
        result: the content of `result.json`.
    """

    def __init__(self, folder: RunFolder, passed: Passed) -> None:
        self._folder, self._passed, self.path = folder, passed, folder.path
        self._result = _result_of(folder)
        self.result: dict[str, Any] = dict(vars(self._result))

    @property
    def metrics(self) -> dict[str, NDArray[np.float64]]:
        """The metrics of every epoch by name, each of shape `(epochs,)`, and `train/loss_step`, shape `(iterations,)`.

        They are read from the event file, in single precision; empty where there is none (`logger=none`).
        """
        points = dict[str, list[tuple[int, float]]]()
        for file in self._folder.curves():
            for tag, curve in read_scalars(file, _Everything()).items():
                points.setdefault(tag, []).extend(curve)
        return {tag: np.array([value for _, value in curve]) for tag, curve in points.items() if "/" in tag}

    def model(self) -> nn.Module:
        """The module with the best weights, in evaluation mode.

        Raises:
            FolderError: the configuration can no longer be composed, or the run has no best epoch.
        """
        return self._built()[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of a table, in the order of the probabilities that `predict` returns; none of a regression."""
        model, config = self._built()
        if isinstance(model, OfTable):
            return tuple(model.encoding.classes)
        return tuple(self._encoding(config).classes) if config.data["_target_"] == TABLE else ()

    def _encoding(self, config: Config) -> Encoding:
        """The encoding of the table on which a module of the user's was trained, which no file holds."""
        keys = ("path", "val_path", "test_path")
        files = [file for key in keys if config.data[key] for file in files_of(config.data[key], f"data.{key}")]
        written = [file.stat().st_mtime for file in (self._folder.started, self._folder.result) if file.exists()]
        # a file that is moved or copied may keep the time at which it was modified, but not that of its inode
        times = [time for file in files for time in (file.stat().st_mtime, file.stat().st_ctime)]
        if not is_passed(config.data["path"]) and max(times) > min(written):
            lesson = "so that its encoding is not known: give run.model() rows that are encoded as those of the run"
            raise FolderError(f"{self.path}: the table was written, moved or copied after the run, {lesson}.")
        return source_of({**config.data, "buffer_rows": None}).encoding

    def _built(self) -> tuple[nn.Module, Config]:
        if self._result.best is None:
            raise FolderError(f"{self.path} has no model: its run has the status {self._result.status}.")
        with ONE_AT_A_TIME, self._passed.written() as options:
            recomposer = Recomposer(CONF, self._passed.flags, options)
            composed = recomposer(self._result.overrides, self._result.config_hash)
            if composed is None:
                raise FolderError(f"{self.path}: {next(iter(recomposer.problems))}")
            config = in_folder(composed.config, self.path)
            return JobRecords(lambda number: self._folder).model(0, config), config

    def predict(self, x: Any) -> NDArray[Any]:
        """What the best weights make of some rows.

        Args:
            x: inputs, of shape `(rows, features)`, converted to the type of the weights; a tensor of whole numbers
                is left as it is. For a table a DataFrame, whose columns are matched by name; or an array: of a model
                that was trained on an array, with its columns, and of any other with those that the model uses.

        Returns:
            The output of the module's `forward`. For a table, predictions in its units, shape `(rows,)` or
            `(rows, targets)`; of a classification probabilities, or what a module of your own gives for each class.

        Raises:
            HoldfastError: the module has no `forward`, or the rows do not fit the table.
        """
        model, config = self._built()
        if not is_overridden("forward", model) and not isinstance(model, OfTable):
            name = type(model).__name__
            raise HoldfastError(f"{name} has no forward(x), which predicts: define it, or use run.model().")
        dtype = next(model.parameters(), torch.empty(0)).dtype
        with torch.no_grad():
            if isinstance(model, OfTable):
                of_array = is_of_an_array(config.data["path"])
                output: torch.Tensor = Predictor(model).eval()(raw_columns(x, model.encoding, of_array=of_array))
                output = output[:, 0] if output.shape[1] == 1 else output
            elif config.data["_target_"] == TABLE:  # a module of the user's is trained on encoded rows
                encoding = self._encoding(config)
                raw = raw_columns(x, encoding, of_array=is_of_an_array(config.data["path"]))
                output = decoded(model(Encoder(encoding)(raw).to(dtype)), encoding)
            else:
                output = model(_as_input(x, dtype))
        output = output.cpu()
        return (output.float() if output.dtype == torch.bfloat16 else output).numpy()

    def __repr__(self) -> str:
        best = self._result.best
        reached = f"{self._result.metric} {best[self._result.metric]:.6g}" if best else "no best epoch"
        return f"<Run {self.path}: {self._result.status}, {reached}>"

    def _repr_html_(self) -> str:
        rows = {**(self._result.best or {}), **(self._result.test or {})}
        return _shown(repr(self), rows, self._folder.figures)


class Sweep:
    """A finished sweep.

    Args:
        folder: its folder.
        passed: what its call was given beside overrides, so that its configuration can be composed again.

    Attributes:
        path: its folder.
        selection: the content of `selection.json`.
    """

    def __init__(self, folder: SweepFolder, passed: Passed) -> None:
        self._folder, self._passed, self.path = folder, passed, folder.path
        if not folder.selection.is_file():
            raise FolderError(f"{self.path} is not finished. To resume: holdfast.sweep('resume={self.path}')")
        self.selection: dict[str, Any] = json.loads(folder.selection.read_text())

    @property
    def winner(self) -> Run:
        """The run whose model is exported: the job that won, or of folds the one on all of their rows.

        Raises:
            FolderError: there is no single winner.
        """
        number = self.selection["winner"]
        if number is None:
            raise FolderError(f"{self.path} has no single winner: {self.selection['why']}.")
        folder = self._folder.refit() if self.selection.get("refit") else self._folder.job(number)
        return Run(folder, self._passed)

    @property
    def test(self) -> dict[str, float] | None:
        """The test metrics of the winner, for which the test rows were opened."""
        test: dict[str, float] | None = self.selection.get("test")
        return test

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The result of every job, in the order of their numbers."""
        return [{"job": job.number, **vars(job.result)} for job in jobs_of(self._folder)]

    def leaderboard(self) -> Any:
        """The rows of `leaderboard.csv`: a DataFrame where pandas is installed, otherwise a list of dictionaries."""
        try:
            import pandas as pd
        except ImportError:
            import csv

            with self._folder.leaderboard.open(newline="") as lines:
                return [{key: _number(value) for key, value in line.items()} for line in csv.DictReader(lines)]
        return pd.read_csv(self._folder.leaderboard)

    def model(self) -> nn.Module:
        """The winner's module with its best weights, in evaluation mode."""
        return self.winner.model()

    def report(self) -> Path:
        """The page of the sweep; it is drawn where it was not."""
        if not self._folder.page.exists():
            from holdfast.report.create import report_sweep

            jobs = jobs_of(self._folder)
            with ONE_AT_A_TIME, self._passed.written() as options:
                recomposer = Recomposer(CONF, self._passed.flags, options)

                def config_of(number: int) -> Config | None:
                    composed = recomposer(jobs[number].result.overrides, jobs[number].result.config_hash)
                    return composed.config if composed else None

                report_sweep(self._folder, jobs, config_of, self._passed.flags)
        return self._folder.page

    def __repr__(self) -> str:
        number, why = self.selection["winner"], self.selection["why"]
        job = "" if number is None else f"winner job {number}, "
        return f"<Sweep {self.path}: {job}{why}>"

    def _repr_html_(self) -> str:
        return _shown(repr(self), self.test or {}, self._folder.figures)


def _as_input(x: Any, dtype: torch.dtype) -> torch.Tensor:
    """Inputs as a tensor: numbers in the type of the weights, but for whole numbers that are a tensor already."""
    is_tensor = isinstance(x, torch.Tensor)
    try:
        values: torch.Tensor = x.detach().cpu() if is_tensor else torch.as_tensor(np.asarray(x))
    except (TypeError, ValueError) as error:
        raise DataError(f"what the model is to predict is no array of numbers: {in_a_line(error)}") from None
    return values if is_tensor and not values.is_floating_point() else values.to(dtype)


def _result_of(folder: RunFolder) -> Result:
    result = folder.read()
    if result is None:
        raise FolderError(
            f"{folder.path} holds no finished run; a sweep keeps few folders: holdfast export-job writes it."
        )
    return result


def _shown(title: str, values: Mapping[str, Any], figures: Path) -> str:
    """A summary and the first figure, for a notebook."""
    import base64

    cells = "".join(
        f"<tr><td>{html.escape(str(key))}</td><td>{_text(value)}</td></tr>" for key, value in values.items()
    )
    drawn = sorted(figures.glob("*.png"))[:1]
    pictures = {html.escape(file.stem): base64.b64encode(file.read_bytes()).decode() for file in drawn}
    images = "".join(f'<img alt="{name}" src="data:image/png;base64,{data}">' for name, data in pictures.items())
    return f"<p><code>{html.escape(title)}</code></p><table>{cells}</table>{images}"


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else html.escape(str(value))


def _number(text: str) -> Any:
    """A cell of a table as a number, where it is one."""
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text or None
