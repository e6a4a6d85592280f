from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from holdfast.cli.main import CONF
from holdfast.compose.checked import checked
from holdfast.compose.composed import as_hydra_config_without_folder
from holdfast.compose.flags import search_path
from holdfast.compose.loader import Loader
from holdfast.errors import ConfigError
from tests.conftest import command_line

WORDS = [
    [],
    ["lr=0.1", "batch_size=full"],
    ["optimizer=adam", "optimizer.betas=[0.8,0.9]", "lr=1"],
    ["experiment=mini_batch", "scheduler=cosine", "data.noise=0"],
    ["data=linear", "model=mlp", "model.hidden=[3,4]", "logger=csv", "+callbacks.mine._target_=a.B"],
    ["hydra.run.dir=elsewhere", "+hydra.job.env_set.A=b", "seed=3"],
]


@pytest.fixture(autouse=True)
def _version_base() -> None:
    version.setbase("1.3")


def ours() -> Loader:
    loader = Loader(search_path(get_args_parser().parse_args([]), CONF))
    Hydra("train", loader)
    return loader


def composed(loader: ConfigLoaderImpl, words: list[str]) -> DictConfig:
    return loader.load_configuration("config", [*words, "hydra.mode=RUN"], RunMode.RUN)


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_configuration_is_the_one_that_hydra_itself_composes(words: list[str]) -> None:
    theirs = ConfigLoaderImpl(create_config_search_path(f"file://{CONF}"))
    expected, found = composed(theirs, words), composed(ours(), words)
    found.hydra.runtime.output_dir = expected.hydra.runtime.output_dir = ""
    for config in (expected, found):
        assert [source.path for source in config.hydra.runtime.config_sources if source.provider == "main"]
    assert OmegaConf.to_container(found) == OmegaConf.to_container(expected)


def test_what_was_composed_once_is_not_changed_by_who_got_it() -> None:
    loader = ours()
    first = composed(loader, ["lr=0.5", "data.outliers={}"])
    first.hydra.job.num = 3
    again = composed(loader, ["seed=1"])
    assert (again.lr, len(again.data.outliers), again.seed) == (0.01, 2, 1)
    assert OmegaConf.is_missing(again.hydra.job, "num")


def test_a_sweeps_words_are_left_to_the_sweeper() -> None:
    master = ours().load_configuration("config", ["lr=0.1,0.2", "optimizer=sgd,adam"], RunMode.MULTIRUN)
    assert list(master.hydra.overrides.task) == ["lr=0.1,0.2", "optimizer=sgd,adam"]


def test_a_group_of_the_users_own_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "flip.yaml").write_text("share: 0.5\n")
    loader = Loader(search_path(get_args_parser().parse_args(["--config-dir", str(tmp_path)]), CONF))
    Hydra("train", loader)
    assert composed(loader, ["+augment=flip"]).augment.share == 0.5
    with pytest.raises(ConfigError, match="there is flip"):
        composed(loader, ["+augment=x"])
    with pytest.raises(ConfigError, match="no such key"):
        composed(loader, ["+augmented.share=1"])


def test_a_yaml_file_that_is_wrong_is_told_like_a_word(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "typo.yaml").write_text("# @package _global_\nlrr: 0.1\nepochs: 0\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "bare.yaml").write_text("weight: 1\n")
    (tmp_path / "model" / "torn.yaml").write_text("weight: [1\n")
    loader = Loader(search_path(get_args_parser().parse_args(["--config-dir", str(tmp_path)]), CONF))
    Hydra("train", loader)
    with pytest.raises(ConfigError) as error:
        composed(loader, ["experiment=typo", "model=bare"])
    words = sorted(problem.override.partition("=")[0] for problem in error.value.problems)
    assert words == ["epochs", "lrr", "model"]
    with pytest.raises(ConfigError, match="torn"):
        composed(loader, ["model=torn"])


def test_a_folder_of_groups_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="not a folder"):
        search_path(get_args_parser().parse_args(["--config-dir", "nowhere"]), CONF)


@pytest.mark.parametrize(
    "words",
    [
        ["lr=0.5", "batch_size=full", "epochs=3"],
        ["lr=0.5", "optimizer.lr=0.25"],
        ["optimizer.lr=0.25", "lr=0.5"],
        ["optimizer=adam", "seed=4", "data.noise=0"],
        ["data=linear", "data.features=3", "model=mlp"],
        ["data.outliers={}", "model.weight=-15"],
        ["optimizer.momentum='${lr}'", "lr=0.5"],
        ["+callbacks.mine._target_=a.B", "lr=1"],
        ["logger=csv", "scheduler=cosine", "epochs=7"],
        ["model=mlp", "model.hidden=[16,8]", "lr=0.5"],
        ["optimizer=adam", "optimizer.betas=[0.5,0.75]", "sweep.repeats=[seed,data.seed]"],
        ["data=linear", "data.fractions=[0.5,0.25,0.25]", "data.fold=1/5"],
        ["lr=0.5", "data.fold=all/3"],
        ["model=mlp", "model.hidden=[4]", "vars.name=[1,2]"],
    ],
    ids=" ".join,
)
def test_a_job_that_was_not_composed_is_what_composing_makes_of_it(words: list[str]) -> None:
    loader = ours()
    master = loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    job = loader.job(master, words)
    config = ours().load_configuration("config", [*words, "hydra.mode=MULTIRUN"], RunMode.RUN)
    with as_hydra_config_without_folder(config):
        alone = checked(config)
    assert job.config_hash == alone.config_hash
    assert job.config == alone.config
    launched = loader.load_sweep_config(master, words)
    for composed_config in (config, launched):
        composed_config.hydra.runtime.output_dir = ""
        composed_config.hydra.sweep.dir = ""
    assert OmegaConf.to_container(launched) == OmegaConf.to_container(config)


def test_a_job_that_cannot_work_is_refused_as_a_run_would_be() -> None:
    loader = ours()
    master = loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    for words in (["lr=abc"], ["lrr=1"], ["optimizer=adma"], ["optimizer.nesterov=true"], ["epochs=0", "lr=-1"]):
        told = []
        for attempt in (loader.job, lambda _, words: composed(ours(), words)):
            with pytest.raises(ConfigError) as error:
                attempt(master, words)
            told.append(sorted(problem.override for problem in error.value.problems))
        assert told[0] == told[1]


def test_what_is_sent_to_another_process_does_not_grow_with_the_jobs() -> None:
    # A process of its own: Hydra's conformance tests load Hydra's plugins again, after which the classes of the
    # first loading can no longer be pickled.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(_send_a_loader).result()


def _send_a_loader() -> None:
    version.setbase("1.3")
    loader = ours()
    master = loader.load_configuration("config", ["hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    names = ("sgd", "adam", "adamw", "rmsprop")
    jobs = [[f"lr={0.001 * (number + 1)}", f"optimizer={names[number % 4]}"] for number in range(1000)]
    sizes = []
    for words in jobs:
        loader.job(master, words)
        sizes.append(len(pickle.dumps(loader)) if len(sizes) in (0, 10, 999) else 0)
    first, tenth, last = (size for size in sizes if size)
    assert last < 5 * first
    assert last == tenth
    sent = pickle.loads(pickle.dumps(loader))
    for words in (*jobs[:5], jobs[-1], ["data=linear", "model=mlp"], ["data.outliers={}"]):
        assert sent.job(master, words).config_hash == loader.job(master, words).config_hash
        assert sent.load_sweep_config(master, words) == loader.load_sweep_config(master, words)


def test_a_value_that_is_left_open_is_given_by_a_sweep_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own/model").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("left_open.py").write_text(
        "import torch\nfrom holdfast.model import Regression\n\nclass Wide(Regression):\n"
        "    def __init__(self, hidden):\n"
        "        super().__init__(torch.nn.Sequential(torch.nn.Linear(1, hidden), torch.nn.Linear(hidden, 1)))\n"
    )
    Path("own/model/open.yaml").write_text("_target_: left_open.Wide\nhidden: ???\n")
    words = ["-m", "--config-dir", "own", "model=open", "lr=0.01,0.02", "epochs=1", "report=false"]
    for given, plan in (("model.hidden=3", "2 jobs: 1 stack"), ("model.hidden=3,4", "4 jobs: 2 stacks")):
        code, said = command_line(*words, given)
        assert code == 0, said
        assert plan in said
    code, said = command_line(*words)
    assert code == 2
    assert "model.hidden  has no value: give it one, as model.hidden=VALUE" in said
    assert said.count("has no value") == 1


def test_what_follows_a_value_that_is_left_open_follows_what_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("own/model").mkdir(parents=True)
    Path("follows_open.py").write_text(
        "import torch\nfrom holdfast.model import Regression\n\nclass Two(Regression):\n"
        "    def __init__(self, hidden, other):\n"
        "        super().__init__(torch.nn.Sequential(torch.nn.Linear(1, hidden), torch.nn.Linear(other, 1)))\n"
    )
    text = "_target_: follows_open.Two\nhidden: ???\nother: ${model.hidden}\n"
    Path("own/model/two.yaml").write_text(text)
    words = ["-m", "--config-dir", "own", "model=two", "lr=0.01,0.02", "epochs=1", "report=false"]
    for given, plan in (("model.hidden=3", "2 jobs: 1 stack"), ("model.hidden=3,4", "4 jobs: 2 stacks")):
        code, said = command_line(*words, given)
        assert code == 0, said
        assert plan in said
