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
FLOORS = (
    {"errors"},
    {"config"},
    {"store"},
    {"data"},
    {"model"},
    {"tables", "caching"},
    {"record"},
    {"usercode"},
    {"runtime"},
    {"single"},
    {"arithmetic"},
    {"stacked"},
    {"planning"},
    {"search", "execute"},
    {"workers"},
    {"clusters"},
    {"sweeps", "report", "predict"},
    {"compose"},
    {"cli"},
    {"api"},
    {"__main__"},
)
"""The packages, and the modules of the root, from the lowest floor up: imports point to the same floor or down."""

HEAVY = {"torch", "lightning", "matplotlib", "torchmetrics"}
LIGHT = [
    *SOURCE.glob("*.py"),
    *(path for name in ("config", "store", "search", "compose", "cli") for path in (SOURCE / name).glob("*.py")),
]


def imports(path: Path, *, top: bool) -> set[str]:
    """The modules that a module imports: at its top, or anywhere; those for type checkers alone do not count."""
    tree = ast.parse(path.read_text())
    unused = {id(inner) for node in ast.walk(tree) if _is_for_types(node) for inner in ast.walk(node)}
    found = set()
    for node in tree.body if top else ast.walk(tree):
        if id(node) in unused:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def floor(name: str) -> int:
    return next((number for number, names in enumerate(FLOORS) if name in names), len(FLOORS))


def package(module: str) -> str:
    return module.removeprefix("holdfast.").partition(".")[0]


def test_there_are_modules() -> None:
    assert len(MODULES) > 15


def test_every_package_has_a_floor() -> None:
    assert {path.relative_to(SOURCE).with_suffix("").parts[0] for path in MODULES} == set.union(*FLOORS, {"__init__"})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down_only(path: Path) -> None:
    here = path.relative_to(SOURCE).with_suffix("").parts[0]
    for name in imports(path, top=False):
        if name.startswith("holdfast.") and not package(name).startswith("__"):
            assert floor(package(name)) <= floor(here), f"{here} imports {name}"


def test_no_two_modules_have_the_same_name() -> None:
    names = [path.stem for path in MODULES if path.stem != "__init__"]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_light_modules_import_nothing_heavy(path: Path) -> None:
    found = {module.partition(".")[0] for module in imports(path, top=True)}
    assert not found & HEAVY


@pytest.mark.parametrize("words", [["--help"], ["lr=abc"], ["--cfg", "job"]])
def test_what_needs_no_torch_answers_without_it(words: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from holdfast.cli.main import main\n"
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
        if path.name == "folders.py":
            continue
        text = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        docstrings = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        }
        spelled = [value for value in text if value in names and value not in docstrings]
        assert not spelled, f"{path.name} spells {spelled}"
