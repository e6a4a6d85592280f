"""python docs/make.py: draw every picture of docs/course.md with the command above it, and run docs/tour.ipynb.

The pictures of the lesson whose table is no experiment are measured and drawn by docs/larger_than_memory.py.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "course.md"
TOUR = ROOT / "docs" / "tour.ipynb"


def lessons() -> list[tuple[str, list[str]]]:
    """The experiments of the page: each command with the pictures below it, `course/<experiment>_<figure>.png`."""
    parts = PAGE.read_text(encoding="utf-8").split("```bash\n")[1:]
    found = [(part.partition("\n")[0], re.findall(r"!\[.*?\]\((.+?)\)", part)) for part in parts]
    return [(command, pictures) for command, pictures in found if "experiment=" in command]


def figure(command: str, picture: str) -> str:
    """The name under which a command saves the figure that the page shows as `picture`.

    >>> figure("python train.py -m experiment=rates", "course/rates_loss_lr.png")
    'loss_lr.png'
    """
    (experiment,) = re.findall(r"experiment=(\w+)", command)
    return Path(picture).name.removeprefix(f"{experiment}_")


def run_tour(folder: Path) -> Any:
    """Run the notebook in a folder.

    Returns:
        It, with what its cells show.

    Raises:
        CellExecutionError: a cell failed.
    """
    import nbclient
    import nbformat

    notebook = nbformat.from_dict(json.loads(TOUR.read_text(encoding="utf-8")))  # type: ignore[no-untyped-call]
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times, which are others each time
    return notebook


def main() -> None:
    """Run every command in a temporary folder and copy the pictures that the page shows."""
    for command, pictures in lessons():
        with tempfile.TemporaryDirectory() as folder:
            _, script, *arguments = shlex.split(command)
            subprocess.run([sys.executable, str(ROOT / script), *arguments], cwd=folder, check=True)
            (figures,) = Path(folder, "outputs").glob("*/*/figures")
            for picture in pictures:
                target = PAGE.parent / picture
                target.parent.mkdir(exist_ok=True)
                shutil.copy(figures / figure(command, picture), target)
    subprocess.run([sys.executable, str(ROOT / "docs" / "larger_than_memory.py")], check=True)
    with tempfile.TemporaryDirectory() as folder:
        notebook = run_tour(Path(folder))
    for cell in notebook.cells:  # progress bars show nothing once they are done
        cell["outputs"] = [each for each in cell.get("outputs", []) if each.get("name") != "stderr"]
        if cell["cell_type"] != "code":
            del cell["outputs"]
    TOUR.write_text(json.dumps(notebook, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
