"""The README is true to the letter: its commands run, its output is what they print, its links resolve."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.main import CONF
from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text()
COMMANDS = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
]
FILES = dict(re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)```", TEXT, re.DOTALL))


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    words = [str(ROOT / word) if word == "train.py" else word for word in shlex.split(command)]
    return subprocess.run([sys.executable, *words[1:]], cwd=cwd, capture_output=True, text=True, timeout=300)


def steady(text: str) -> str:
    """A text without dates and durations."""
    return re.sub(r"\d{4}-[\d_-]+", "DATE", re.sub(r"[\d.]+ s\)", "SECONDS)", text))


def test_what_is_tested_is_there() -> None:
    assert len(COMMANDS) >= 10
    configs = ["my_conf/data/waves.yaml", "my_conf/model/ridge.yaml", "my_conf/model/sine.yaml"]
    assert sorted(FILES) == ["mine.py", *configs, "ridge.py"]


@pytest.mark.parametrize("command", [item for item in COMMANDS if item.startswith("python train.py")])
def test_every_command_runs(command: str, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    if "NAME" in command:  # of a run or a sweep that was stopped
        begun = (
            "hydra.sweep.dir=outputs/sweeps/NAME lr=0.01,0.1" if "-m" in command else "hydra.run.dir=outputs/runs/NAME"
        )
        assert run(f"python train.py {'-m ' * ('-m' in command)}{begun}", tmp_path).returncode == 0
        for last in ("result.json", "selection.json"):
            for path in tmp_path.rglob(last):
                path.unlink()
    done = run(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    if "  # " in (line := next(line for line in TEXT.splitlines() if line.startswith(command))) and "jobs:" in line:
        assert line.partition("  # ")[2].strip() in done.stdout, "what the comment says is what it prints"


def test_the_two_commands_install_and_run_what_they_say() -> None:
    chained = [item.split(" && ") for item in COMMANDS if "&&" in item]
    assert chained == [
        ["python -m pip install -c constraints.txt -e .", "python train.py lr=0.01"],
        ['python -m pip install -c constraints.txt -e ".[dev]"', "python -m pytest -n auto"],
    ]


def test_the_first_commands_output_is_as_shown(tmp_path: Path) -> None:
    shown = re.findall(r"```text\n(best val/loss .*?)```", TEXT, re.DOTALL)[0]
    printed = run("python train.py lr=0.01", tmp_path).stdout
    assert steady(printed) == steady(shown)


def test_the_sweeps_output_is_as_shown(tmp_path: Path) -> None:
    shown = re.findall(r"```text\n(5 jobs: .*?)```", TEXT, re.DOTALL)[0]
    printed = run("python train.py -m lr=0.0001,0.001,0.01,0.1,1", tmp_path).stdout
    assert steady(printed) == steady(shown)


def test_a_refusal_is_as_shown(tmp_path: Path) -> None:
    command, shown = re.findall(r"```text\n\$ (.*?)\n(.*?)```", TEXT, re.DOTALL)[0]
    done = run(command, tmp_path)
    assert (done.returncode, done.stderr) == (2, shown)


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")], ids=lambda page: page.name)
def test_every_link_resolves(page: Path) -> None:
    text = page.read_text()
    headings = {re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in text.splitlines()}
    for link in (link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link):
        target, _, heading = link.partition("#")
        assert (page.parent / target).exists(), link
        assert not heading or heading in headings, link


def test_the_promises_name_tests_that_are_there() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 12
    for file, test in named:
        assert f"def {test}" in (ROOT / "tests" / file).read_text(), (file, test)


def test_the_folder_map_names_what_is_there() -> None:
    tree = re.findall(r"```text\ntrain.py(.*?)```", TEXT, re.DOTALL)[0]
    for name in re.findall(r"[\w]+\.py|\w+/", tree):
        places = (ROOT / name, ROOT / "src" / name, ROOT / "src" / "holdfast" / name)
        assert any(place.exists() for place in places), name


def test_the_table_names_every_option_of_every_group() -> None:
    table = TEXT.partition("## Configuration")[2].partition("## ")[0]
    rows = {
        name: row
        for row in table.splitlines()
        for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    for folder in CONF.iterdir():
        if folder.is_dir() and folder.name != "hydra":
            for path in folder.glob("*.yaml"):
                assert f"`{path.stem}`" in rows[folder.name], path
