"""Damaged files of a finished stage are made again, and proved to be those that were recorded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from nlakit.config.sections import RunConfig
from nlakit.errors import LimitReached, RunError
from nlakit.run.folder import FOLDERS, Manifest, RunDir, library_versions, sha256_once
from nlakit.run.progress import say

CHUNKS = "part-*.parquet"  # a body makes a chunk only where there is none


def repair(
    rundir: RunDir,
    manifest: Manifest,
    damaged: Mapping[str, str],
    make: Callable[[Path], object],
) -> None:
    """Make the damaged files of a stage again: `make` is its body, given a folder in which the
    whole chunks already lie. The stage's own folder is not touched before every file is proved.

    Raises RunError if a file comes out different from what was recorded, or would have to be paid
    for.
    """
    name, folder = manifest.stage, rundir.folder(manifest.stage)
    say(f"{name}: damaged, made again: {', '.join(f'{n} ({w})' for n, w in damaged.items())}")
    again = rundir.path / f".again-{FOLDERS[name]}"
    _prepare(again, folder, manifest, damaged)
    try:
        make(again)
    except LimitReached as reached:
        raise RunError(
            f"what is damaged in stage {name} cannot be made again without paying for it",
            found=f"{', '.join(damaged)}; the store lacks some of the answers",
            do=f"put back the store of answers that the run used, or pay with --redo {name}",
        ) from reached
    wrong = [file for file in damaged if not _is_recorded(again / file, manifest, file)]
    if wrong:
        shutil.rmtree(again)
        raise RunError(
            f"stage {name} does not come out as it did: {', '.join(wrong)}",
            found=_why(manifest),
            do=f"put the file back from a copy, or redo the stage with --redo {name}",
        )
    for file in damaged:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (again / file).replace(folder / file)
    shutil.rmtree(again)
    say(f"{name}: {len(damaged)} file(s) made again, each with its recorded SHA-256")


def free_of_charge(config: RunConfig) -> RunConfig:
    """The configuration under which services give stored answers only."""
    requests = config.requests.model_copy(update={"max_requests": 0})
    return config.model_copy(update={"requests": requests})


def _prepare(again: Path, folder: Path, manifest: Manifest, damaged: Mapping[str, str]) -> None:
    """Lay the whole chunks into the folder; what an interrupted repair had proved stays there."""
    again.mkdir(exist_ok=True)
    for file in [path for path in again.rglob("*") if path.is_file()]:
        if not _is_recorded(file, manifest, file.relative_to(again).as_posix()):
            file.unlink()
    for chunk in folder.glob(CHUNKS):
        target = again / chunk.name
        if chunk.name not in manifest.files or chunk.name in damaged or target.exists():
            continue
        try:
            os.link(chunk, target)
        except OSError:  # a file system without links
            shutil.copy2(chunk, target)


def _is_recorded(file: Path, manifest: Manifest, name: str) -> bool:
    record = manifest.files.get(name)
    return record is not None and file.is_file() and sha256_once(file) == record.sha256


def _why(manifest: Manifest) -> str:
    now = library_versions()
    moved = [
        f"{name} {version}, now {now.get(name)}"
        for name, version in manifest.versions.items()
        if now.get(name) != version
    ]
    return f"made on {manifest.device}" + (f" with {', '.join(moved)}" if moved else "")
