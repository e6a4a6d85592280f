"""The house stands as it was drawn: floors, names, and what may be imported when."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCE = ROOT / "src" / "holdfast"
MODULES = sorted(SOURCE.rglob("*.py"))
FLOORS = {
    **dict.fromkeys(
        (
            "errors",
            "signals",
            "seeding",
            "rules",
            "conversion",
            "options",
            "schema",
            "validation",
            "files",
            "hashing",
            "runs",
            "claims",
            "ranks",
            "versions",
        ),
        0,
    ),
    **dict.fromkeys(("data", "model"), 1),
    "train": 2,
    **dict.fromkeys(("sweep", "report"), 3),
    **dict.fromkeys(("hydra_seam", "main", "help", "console", "__main__", "__init__"), 4),
}
HEAVY = {"torch", "lightning", "matplotlib", "torchmetrics"}
LIGHT = [*SOURCE.glob("*.py"), *(SOURCE / "hydra_seam").glob("*.py")]


def imports(path: Path, *, top: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    if top:
        guarded = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) for inner in ast.walk(node)}
        nodes = [node for node in tree.body if id(node) not in guarded]
    else:
        nodes = list(ast.walk(tree))  # type: ignore[arg-type]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room(module: str) -> str:
    return module.removeprefix("holdfast").lstrip(".").partition(".")[0] or "__init__"


def test_there_are_modules() -> None:
    assert len(MODULES) > 15


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down_only(path: Path) -> None:
    here = path.relative_to(SOURCE).with_suffix("").parts[0]
    for name in imports(path, top=False):
        if name.startswith("holdfast") and room(name) != here and name != "holdfast":
            assert FLOORS[room(name)] <= FLOORS[here], f"{here} imports {name}"
            assert (here, room(name)) not in {("data", "model"), ("model", "data")}


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_modules_import_nothing_heavy(path: Path) -> None:
    found = {module.partition(".")[0] for module in imports(path, top=True)}
    assert not found & HEAVY


@pytest.mark.parametrize("words", [["--help"], ["lr=abc"], ["--cfg", "job"]])
def test_what_needs_no_torch_answers_without_it(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from holdfast.main import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "sys.exit(f'imported {sorted(loaded)}' if (loaded := sys.modules.keys() & {'torch', 'lightning'}) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_imports_no_matplotlib(tmp_path: Path) -> None:
    (tmp_path / "matplotlib").mkdir()
    (tmp_path / "matplotlib" / "__init__.py").write_text("raise RuntimeError('matplotlib was imported')")
    metadata = tmp_path / "matplotlib-3.10.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: matplotlib\nVersion: 3.10.0\n")
    command = [sys.executable, str(ROOT / "train.py"), "epochs=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr


def test_every_name_says_something_and_every_module_says_what_it_is() -> None:
    for path in MODULES:
        assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
        tree = ast.parse(path.read_text())
        assert ast.get_docstring(tree), path
        assert len(path.read_text().splitlines()) <= 280, path


def test_one_class_owns_the_file_names() -> None:
    names = ("best.ckpt", "last.ckpt", "model.pth", "result.json", "events.out")
    for path in MODULES:
        if path.name == "runs.py":
            continue
        text = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        docstrings = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        }
        spelled = [value for value in text if value in names and value not in docstrings]
        assert not spelled, f"{path.name} spells {spelled}"
