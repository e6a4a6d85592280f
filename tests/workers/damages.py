"""What may happen to a bundle in the folder of its work."""

from __future__ import annotations

import json
import os

from holdfast.store.work_folder import WorkFolder
from holdfast.workers import bundle as bundles
from holdfast.workers.bundle import Bundle


def tear(folder: WorkFolder, bundle: Bundle) -> None:
    os.truncate(folder.path / max(bundle.files, key=lambda file: file.size).path, 10)


def alter(folder: WorkFolder, bundle: Bundle) -> None:
    path = folder.path / max(bundle.files, key=lambda file: file.size).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def name_another(folder: WorkFolder, bundle: Bundle) -> None:
    told = json.loads(folder.bundle.read_text())
    told["files"][0]["path"] = "../../../outside"
    folder.bundle.write_text(json.dumps(told))


def cut_the_list(folder: WorkFolder, bundle: Bundle) -> None:
    os.truncate(folder.bundle, 100)


def lose_the_list(folder: WorkFolder, bundle: Bundle) -> None:
    folder.bundle.unlink()


def enlarge(folder: WorkFolder, bundle: Bundle) -> None:
    (path,) = [folder.path / file.path for file in bundle.files[:1]]
    os.truncate(path, bundles.MOST_BYTES + 1)
    told = json.loads(folder.bundle.read_text())
    told["files"][0]["size"] = bundles.MOST_BYTES + 1
    folder.bundle.write_text(json.dumps(told))


DAMAGES = [tear, alter, name_another, cut_the_list, lose_the_list, enlarge]
