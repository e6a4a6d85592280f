"""`holdfast new FOLDER`: what it makes trains, passes its own test, and holds nothing of Holdfast."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import command_line
from tests.forked import python


def run(folder: Path, *words: str) -> str:
    done = python(*words, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "My Waves"
    code, said = command_line("new", str(folder))
    assert code == 0
    assert f"cd {shlex.quote(str(folder))}" in said
    return folder


def test_it_holds_what_a_project_needs(project: Path) -> None:
    files = {path.relative_to(project).as_posix(): path for path in project.rglob("*") if path.is_file()}
    assert {
        "train.py",
        "data.py",
        "model.py",
        "conf/project.yaml",
        "README.md",
        "pyproject.toml",
        ".gitignore",
    } < files.keys()
    assert 'name = "my-waves"' in (project / "pyproject.toml").read_text()
    assert not [name for name, path in files.items() if "$name" in path.read_text()]
    run(project, "-m", "ruff", "check", "--isolated", ".")
    run(project, "-m", "ruff", "format", "--isolated", "--check", "--line-length", "120", ".")


def test_every_command_of_its_readme_works(project: Path) -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", (project / "README.md").read_text(), re.DOTALL)
    block = block.replace("python -m pip install pytest && ", "")
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(commands) == 5
    for words in commands:
        if words[0] != "tensorboard":
            said = run(project, *words[1:])
            assert "-m" not in words or "pytest" in words or "1 stack; 0 alone" in said
    assert len(list(project.glob("outputs/sweeps/*/selection.json"))) == 2


def test_it_is_found_from_elsewhere_and_its_commands_need_no_flags(project: Path, tmp_path: Path) -> None:
    run(tmp_path, str(project / "train.py"), "epochs=1", "hydra.run.dir=outputs/runs/mine")
    assert "model.Network" in (project / "outputs/runs/mine/.hydra/config.yaml").read_text()
    run(project, "train.py", "report", "outputs/runs/mine")
    assert (project / "outputs/runs/mine/figures/curves.png").exists()
    (project / "predict.py").write_text(
        "import holdfast\nprint(holdfast.load('outputs/runs/mine').predict([[0.0]]).shape)\n"
    )
    assert run(project, "predict.py").strip() == "(1, 1)"


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    code, said = command_line("new", str(tmp_path))
    assert code == 2
    assert "is not empty" in said
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    code, said = command_line("new", str(tmp_path / "..."))
    assert code == 1
    assert "use some of a-z and 0-9" in said


def test_a_folder_below_it_is_told_from_it(project: Path) -> None:
    done = python("-m", "holdfast", "epochs=1", "report=false", cwd=project / "tests")
    assert done.returncode == 0
    assert done.stderr.count(f"{project} is a project, whose configuration holds in that folder alone") == 1


def test_flags_that_are_typed_replace_those_of_the_project(project: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/other.yaml").write_text("_target_: holdfast.model.Linear\nfeatures: 1\nweight: 3\nbias: 0\n")
    said = run(project, "train.py", "--config-dir", str(tmp_path), "model=other", "--cfg", "job")
    assert "holdfast.data.Line" in said
