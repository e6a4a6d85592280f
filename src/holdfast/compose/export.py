"""`holdfast export-job`: the complete folder of a job that its sweep did not keep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml
from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.utils import setup_globals
from hydra.types import RunMode
from omegaconf import open_dict, read_write

from holdfast.compose.flags import in_project, search_path
from holdfast.compose.hydra_files import HydraFiles
from holdfast.compose.loader import CONFIG_NAME, Loader
from holdfast.compose.recompose import could_run, refuse
from holdfast.errors import FolderError
from holdfast.single.startup import import_training
from holdfast.store.folders import RunFolder, SweepFolder
from holdfast.store.lock import locked
from holdfast.store.started import read_sweep
from holdfast.sweeps.ended import differing_keys


def export_job(folder: SweepFolder, number: int, conf: Path, flags: Sequence[str] = ()) -> RunFolder:
    """Write the folder of a job of a sweep from the archive of its stack, as `sweep.keep=all` would have written it.

    Args:
        folder: folder of the sweep.
        number: number of the job.
        conf: the folder of the primary configuration.
        flags: `--config-dir` and the like, as typed today.

    Returns:
        The folder of the job.

    Raises:
        FolderError: the sweep has no such job, or the configuration or the code of the job is another one today.
        CheckpointError: the archive is damaged.
    """
    recorded = read_sweep(folder)
    jobs = recorded["jobs"]
    if number not in range(len(jobs)):
        raise FolderError(f"{folder.path} has no job {number}: its jobs are numbered from 0 to {len(jobs) - 1}.")
    version.setbase("1.3")
    setup_globals()
    arguments = in_project(get_args_parser().parse_args(list(flags)))
    loader = Loader(search_path(arguments, conf), list(flags))
    Hydra("train", loader)  # registers Hydra's resolvers
    refuse(jobs[number]["overrides"])
    words = [*_hydra_overrides(folder), "hydra.mode=MULTIRUN"]
    config = loader.load_configuration(arguments.config_name or CONFIG_NAME, words, RunMode.MULTIRUN)
    with read_write(config.hydra.sweep), open_dict(config.hydra.sweep):
        config.hydra.sweep.dir = str(folder.path)
    loader.swept = tuple(differing_keys([entry["overrides"] for entry in jobs]))
    job = loader.job_spec(config, number, jobs[number]["overrides"])
    if job.config_hash != jobs[number]["config_hash"]:
        raise FolderError(f"{folder.path}: conf/ gives job {number} another configuration than the recorded one.")
    import_training()
    from holdfast.stacked.stored import StoredStacks
    from holdfast.sweeps.keep import write_folders
    from holdfast.sweeps.resume import check_code, check_tables

    check_code(folder, recorded, [job.config], "Nothing was written; export it with the module as it was.")
    check_tables(folder, recorded, [job])
    stacks = StoredStacks(folder, [entry["config_hash"] for entry in jobs], recorded.get("stacks"))
    if number not in stacks:
        if folder.job(number).finished(job.config_hash):
            return folder.job(number)
        raise FolderError(f"{folder.path}: job {number} is in no archive: it was trained alone, or is not finished.")
    results = {**stacks.results([job]), **{key: row for key, row in folder.read_results().items() if key == number}}
    with locked(folder.path):
        write_folders(folder, stacks, [job], results, HydraFiles(loader, config).of)
    return folder.job(number)


def _hydra_overrides(folder: SweepFolder) -> list[str]:
    """The overrides of Hydra's own keys with which a sweep was started."""
    try:
        typed = yaml.safe_load(folder.hydra.read_text(encoding="utf-8"))["hydra"]["overrides"]["hydra"]
        words = [str(item) for item in typed if not str(item).startswith("hydra.mode=")]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise FolderError(f"{folder.hydra} cannot be read: {error}.") from None
    if refused := [word for word in words if could_run(word)]:
        raise FolderError(f"{folder.hydra} holds {refused[0]}, which could run something; nothing was done.")
    return words
