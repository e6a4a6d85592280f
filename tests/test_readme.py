"""Every page is true: its commands run and print what is shown, its links resolve, its lists are complete.

The pages are README.md, CONTRIBUTING.md, CHANGELOG.md and docs/*.md. In a page, a block of `bash` holds commands; a
block of `text` directly below it shows what the last of them prints; the sources above a command are saved under their
names before it runs.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from docs import larger_than_memory
from docs.make import lessons
from holdfast.cli.main import CONF
from holdfast.config.schema import Config
from tests import test_conf
from tests.clusters.slurm_sweeps import WHY_NOT
from tests.conftest import ROOT, Ran
from tests.forked import python
from tests.test_house import FLOORS, SOURCE

README, CONTRIBUTING, DOCS = ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs"
PAGES = [README, CONTRIBUTING, ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
TEXTS = {page: page.read_text() for page in PAGES}
SOURCES = dict(
    source
    for text in TEXTS.values()
    for source in re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", text, re.DOTALL)
)
RUN_ELSEWHERE = {shlex.join(["python", "train.py", *test_conf.command(path)]) for path in test_conf.FILES} | {
    *(command for command, _ in lessons()),
    *larger_than_memory.commands(),
}
"""Commands that test_conf.py and test_course.py run."""


class Example(NamedTuple):
    """A command of a page."""

    page: str
    command: str
    comment: str
    """What stands behind it; one that counts jobs is part of what the command prints."""
    shown: str
    """What it prints; "" if the page does not show it."""


def examples(page: Path) -> list[Example]:
    """The commands of a page, those that are chained with && one by one."""
    found = []
    for block, shown in re.findall(r"```bash\n(.*?)```\n(?:\n```text\n(.*?)```)?", TEXTS[page], re.DOTALL):
        lines = [(*map(str.strip, line.partition(" # ")[::2]),) for line in block.splitlines()]
        single = [(command, comment) for line, comment in lines for command in line.split(" && ")]
        found += [Example(page.name, *each, shown if each == single[-1] else "") for each in single]
    return found


EXAMPLES = [example for page in PAGES for example in examples(page)]
RUN_HERE = [
    example
    for example in EXAMPLES
    if example.command.startswith(("python train.py", "holdfast"))
    and (example.shown or example.command not in RUN_ELSEWHERE)
    and not (WHY_NOT and "hydra/launcher=slurm" in example.command)
    and not (find_spec("ray") is None and "hydra/launcher=ray" in example.command)
]


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program, *arguments = shlex.split(command)
    script = [str(ROOT / arguments.pop(0))] if program == "python" else ["-m", "holdfast"]
    return python(*script, *arguments, cwd=cwd)


def without_times(text: str) -> str:
    """A text without dates and durations."""
    return re.sub(r"\d{4}-[\d_-]+", "DATE", re.sub(r"[\d.]+ s\)", "SECONDS)", text))


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of each row of the table below a heading, without the head of the table."""
    section = re.split(r"\n##? ", TEXTS[page].partition(f"\n## {heading}\n")[2])[0]
    rows = [re.split(r" *\| *", line.strip("| ")) for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def names(cell: str) -> list[str]:
    """What stands in code style in a cell."""
    return re.findall(r"`([^`]+)`", cell)


# ------------------------------------------------------------------------------------------------ commands, outputs


def test_pages_sources_and_commands_are_found() -> None:
    assert len(PAGES) >= 10
    configs = ["my_conf/data/waves.yaml", "my_conf/model/ridge.yaml", "my_conf/model/sine.yaml"]
    assert sorted(SOURCES) == ["make_table.py", "mine.py", *configs, "predict.py", "ridge.py"]
    assert len(RUN_HERE) >= 15
    outputs = sum(text.count("```text\n") for text in TEXTS.values())
    assert outputs == sum(bool(example.shown) for example in RUN_HERE) >= 3, "an output without its command above"


def test_the_lines_that_load_and_predict(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    ran = holdfast("epochs=2")
    (tmp_path / "outputs" / "runs").mkdir(parents=True)
    ran.folder.path.rename(tmp_path / "outputs" / "runs" / "NAME")
    (tmp_path / "predict.py").write_text(SOURCES["predict.py"])
    printed = python("predict.py", cwd=tmp_path, check=True)
    weights = torch.load(tmp_path / "outputs/runs/NAME/best.ckpt", weights_only=True)["state_dict"]
    predicted = 2 * weights["network.weight"].item() + weights["network.bias"].item()
    assert float(re.findall(r"-?\d+\.\d+", printed.stdout)[0]) == pytest.approx(predicted, abs=1e-3)


def test_no_command_stands_twice() -> None:
    ours = (example.command for example in EXAMPLES if example.command.startswith(("python train.py", "holdfast")))
    counts = Counter(ours)  # an environment may be made on more than one page
    assert [command for command, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("example", RUN_HERE, ids=lambda example: f"{example.page}: {example.command}")
def test_a_command_runs_and_prints_what_is_shown(example: Example, tmp_path: Path) -> None:
    for name, content in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    lines = (SOURCE / "tables" / "examples" / "penguins.csv").read_text().splitlines(keepends=True)
    (tmp_path / "penguins.csv").write_text("".join(lines))
    (tmp_path / "new.csv").write_text("".join(lines[:-10]))
    if "NAME" in example.command:
        create_folder(example.command, tmp_path)
    done = run(example.command, tmp_path)
    refused = "nothing was run" in example.shown
    assert done.returncode == (2 if refused else 0), done.stderr
    printed, silent = (done.stderr, done.stdout) if refused else (done.stdout, done.stderr)
    assert silent == ""
    if example.shown:
        assert without_times(printed) == without_times(example.shown)
    if "jobs:" in example.comment:
        assert example.comment in printed


def create_folder(command: str, cwd: Path) -> None:
    """Create the run or sweep that a command names; one to resume lacks its last file."""
    sweep = "sweeps/NAME" in command
    arguments = "-m lr=0.01,0.1 hydra.sweep.dir=outputs/sweeps/NAME" if sweep else "hydra.run.dir=outputs/runs/NAME"
    if "sweep.trials" in command:
        arguments = "-m lr=loginterval(1e-4,1) sweep.trials=8 epochs=3 hydra.sweep.dir=outputs/sweeps/NAME"
    if re.match("holdfast (predict|test|export) ", command):
        arguments = f"{arguments} data=table data.path=penguins.csv data.target=species epochs=2"
    assert run(f"python train.py {arguments}", cwd).returncode == 0
    if "resume" in command:
        for name in ("result.json", "selection.json"):
            for path in cwd.rglob(name):
                path.unlink()


def test_the_commands_that_install_are_those_of_the_project() -> None:
    install = "python -m pip install -c constraints.txt -e"
    first, test = [f"{install} .", "python train.py lr=0.01"], [f'{install} ".[dev]"', "python -m pytest -n auto"]
    assert [example.command for example in examples(README)][:4] == first + test


# ------------------------------------------------------------------------------------------------------------ links


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_resolves(page: Path) -> None:
    for link in (link for link in re.findall(r"\]\(([^)]+)\)", TEXTS[page]) if "://" not in link):
        target, _, anchor = link.partition("#")
        path = page.parent / target if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_the_readme_is_short_and_lists_every_page() -> None:
    assert len(TEXTS[README].splitlines()) <= 180
    linked = {cell.partition("](")[2].rstrip(")") for cell, _ in table(README, "Documentation")}
    assert linked == {page.relative_to(ROOT).as_posix() for page in PAGES if page != README}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_name_in_the_source_exists(page: Path) -> None:
    for path in re.findall(r"`((?:src|tests|conf|benchmarks|docs|\.ci)(?:/[\w.]+)*)`", TEXTS[page]):
        assert "NAME" in path or (ROOT / path).exists(), path
    for name, path in re.findall(r"`(\w+)`\s(?:in|to|from)\s`([\w/]+\.py)`", TEXTS[page]):
        assert name in defined(ROOT / path), f"{path} does not define {name}"


def defined(path: Path) -> set[str]:
    """The functions, classes and variables at the top of a module."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target) for target in node.targets}
        elif isinstance(node, ast.AnnAssign):
            found.add(ast.unparse(node.target))
    return found


def test_the_promises_name_tests_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", TEXTS[DOCS / "reliability.md"])
    assert len(named) >= 12
    for file, test in named:
        assert f"def {test}" in (ROOT / "tests" / file).read_text(), (file, test)


# ------------------------------------------------------------------------------------------------------------ lists


def test_the_drawing_names_every_package_from_the_top_down() -> None:
    drawing = TEXTS[CONTRIBUTING].partition("src/holdfast/\n")[2].partition("```")[0]
    drawn = re.findall(r"^  (\w+)  ", drawing, re.MULTILINE)
    floors = [next(number for number, names in enumerate(FLOORS) if name in names) for name in drawn]
    assert floors == sorted(floors, reverse=True)
    assert {*drawn} == set.union(*FLOORS)
    packages = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert packages <= set(drawn)


def test_the_tables_name_every_key_with_its_default() -> None:
    defaults = yaml.safe_load((CONF / "config.yaml").read_text())
    defaults |= {group: name for entry in defaults["defaults"] if entry != "_self_" for group, name in entry.items()}
    page = DOCS / "configuration.md"
    shown = {}
    for keys, values, _ in table(page, "Top-level keys") + table(page, "Groups"):
        shown |= dict(zip(names(keys), names(values), strict=True))
    assert shown.keys() == {field.name for field in dataclasses.fields(Config)} | {"experiment"}
    assert {key: yaml.safe_load(value) for key, value in shown.items()} == {key: defaults[key] for key in shown}


def test_the_table_names_every_option_of_every_group() -> None:
    rows = {names(group)[0]: names(options) for group, _, options in table(DOCS / "configuration.md", "Groups")}
    for folder in CONF.iterdir():
        if folder.is_dir() and folder.name != "hydra":
            assert {path.stem for path in folder.glob("*.yaml")} <= set(rows[folder.name])


def test_the_tables_name_every_file_that_is_left(holdfast: Callable[..., Ran], tmp_path: Path) -> None:
    folder = holdfast("report=true", "epochs=2").folder.path
    assert_lists("The folder of a run", folder)
    holdfast("-m", "lr=0.01,0.1", "epochs=2", "sweep.folds=2", "sweep.keep=1", "hydra.sweep.dir=sweep")
    assert_lists("The folder of a sweep", tmp_path / "sweep")
    holdfast(
        "data=table",
        "data.path=pkg://holdfast.tables/examples/diabetes.csv",
        "data.target=progression",
        "data.buffer_rows=1000",
        "epochs=1",
    )
    assert_lists("The folder of converted tables", tmp_path / "outputs" / "cache")


def assert_lists(heading: str, folder: Path) -> None:
    """Compare the first column of a table with the files in a folder."""
    patterns = [name for file, _ in table(DOCS / "what_a_run_leaves.md", heading) for name in names(file)]
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert [file for file in files if not any(fnmatch(file, pattern) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(fnmatch(file, pattern) for file in files)] == []
