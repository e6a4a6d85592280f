"""What stands in the files of `.hydra/` of a stacked job, read back by a YAML reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import version
from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from holdfast.cli.main import CONF
from holdfast.compose.flags import search_path
from holdfast.compose.hydra_files import HydraFiles, _text
from holdfast.compose.loader import Loader
from holdfast.compose.overrides import parse

LONG = "a long name with spaces in it, again and again"
ODD = [
    "plain",
    "with spaces",
    f"{LONG} {LONG} {LONG}",
    f"{LONG}  {LONG}: {LONG} #{LONG}",
    " leading and trailing ",
    "a: b",
    "#no comment",
    "- no list",
    "it's 'quoted'",
    'so "is" this',
    "back\\slash",
    "new\nline",
    f"{LONG}\n\n  {LONG} {LONG}\r\n\t{LONG}",
    "next\x85line\u2028separator",
    "\x07bell",
    "éàü ß 中文 кириллица",
    "🙂 emoji 🙂",
    "{a: b}",
    "[1, 2",
    "&anchor *alias !tag %directive @at `tick",
    "null",
    "~",
    "yes",
    "No",
    "true",
    "1e-05",
    "1e5",
    "0x1F",
    "1_000",
    "12:30:45",
    "2026-01-01",
    "---",
    "...",
    "=",
    "<<",
    "?",
    "holdfast_mark",
    "x" * 300,
    "",
]


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=200), st.integers(0, 8))
def test_any_text_is_one_line_of_yaml_at_any_depth(text: str, depth: int) -> None:
    line = _text(text)
    assert len(line.splitlines()) == 1
    indent = "".join(f"{'  ' * level}k:\n" for level in range(depth))
    value: Any = yaml.safe_load(f"{indent}{'  ' * depth}key: {line}\n{'  ' * depth}other: 1\n")
    for _ in range(depth):
        value = value["k"]
    assert value == {"key": text, "other": 1}
    assert yaml.safe_load(f"- {line}\n- 1\n") == [text, 1]


@pytest.mark.parametrize("text", ODD)
def test_odd_text_is_one_line_of_yaml(text: str) -> None:
    assert len(_text(text).splitlines()) == 1
    assert yaml.safe_load(f"a:\n  b: {_text(text)}\n") == {"a": {"b": text}}


@pytest.mark.parametrize("value", [1e-05, 1e5, 1e300, -0.0, 0.1, 3, True, None, float("inf")], ids=str)
def test_other_scalars_come_back_as_they_are(value: Any) -> None:
    back = yaml.safe_load(f"a: {_text(value)}\n")["a"]
    assert (type(back), back) == (type(value), value)


def records(monkeypatch: pytest.MonkeyPatch, folder: str, conf: Path, *words: str) -> tuple[Loader, DictConfig]:
    """A loader, and the configuration of a sweep in a folder."""
    version.setbase("1.3")
    loader = Loader(search_path(get_args_parser().parse_args(["--config-dir", str(conf)]), CONF))
    Hydra("train", loader)
    master = loader.load_configuration("config", [*words, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    master.hydra.sweep.dir = folder
    return loader, master


def as_word(key: str, text: str) -> str:
    """A word that gives a key a text, whatever stands in that."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'") if not text.endswith("\\") else text
    return f"{key}='{escaped}'"


def hold(loader: Loader, master: DictConfig, jobs: list[list[str]]) -> None:
    """Compare what is written for some jobs with what Hydra has in memory, value by value."""
    made = HydraFiles(loader, master)
    for number, words in enumerate(jobs):
        files = made.of(loader.job_spec(master, number, words))
        job: Any = OmegaConf.to_container(made.config(loader.job_spec(master, number, words)), enum_to_str=True)
        hydra = job.pop("hydra")
        told = {name: yaml.safe_load(text.decode()) for name, text in files.items() if name.endswith(".yaml")}
        assert told == {
            ".hydra/config.yaml": job,
            ".hydra/hydra.yaml": {"hydra": hydra},
            ".hydra/overrides.yaml": words,
        }
        assert hydra["runtime"]["output_dir"].endswith(f"/{number}")
        assert hydra["job"]["override_dirname"] == get_overrides_dirname(parse(words, []), set(), ", ", " = ")


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """An option with a key for any text."""
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "named.yaml").write_text("_target_: own.Named\nname: a\nrate: 1\n")
    return tmp_path / "my_conf"


# \x85 in hydra.sweep.dir comes back as a space from what Hydra's own launcher writes, too
@pytest.mark.parametrize("name", [name for name in ODD if name and "\x85" not in name])
def test_a_sweep_in_a_folder_of_any_name_leaves_valid_files(
    name: str, users: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    style = ["hydra.job.config.override_dirname.item_sep=', '", "hydra.job.config.override_dirname.kv_sep=' = '"]
    loader, master = records(monkeypatch, f"/sweeps/{name}/{name}", users, *style, "data=named")
    rates = ("1e-05", "1e5", "null", "yes", "0.1")
    hold(loader, master, [["data=named", f"lr={number + 1}", f"data.rate={rate}"] for number, rate in enumerate(rates)])


def test_odd_values_of_words_come_back(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    style = ["hydra.job.config.override_dirname.item_sep=', '", "hydra.job.config.override_dirname.kv_sep=' = '"]
    loader, master = records(monkeypatch, "/sweeps/some folder", users, *style)
    texts = [text for text in ODD if "\n" not in text and "\r" not in text]
    assert len(texts) > 30
    hold(loader, master, [["data=named", as_word("data.name", text), "lr=1e-05"] for text in texts])


def test_lists_and_folds_are_written_as_hydra_writes_them(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    style = ["hydra.job.config.override_dirname.item_sep=', '", "hydra.job.config.override_dirname.kv_sep=' = '"]
    loader, master = records(monkeypatch, "/sweeps/lists", users, *style)
    jobs = [
        ["model=mlp", f"model.hidden={hidden}", f"lr={rate}", f"data.fold={fold}/3"]
        for hidden in ("[4]", "[4,8]", "[]")
        for rate, fold in ((0.1, 0), (0.2, 1), (0.3, 2))
    ]
    hold(loader, master, jobs)
