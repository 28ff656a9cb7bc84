"""Files that a stage reads from outside the run folder, and whether they are still what it read.

Their sizes, times and SHA-256 lie in `.inputs.json` in the stage's folder. They are no part of the
stage's result: a source that was only copied or touched leaves everything fresh. A large file whose
size and time are unchanged is taken to be unchanged; every other file is hashed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nlakit.config.sections import RunConfig
from nlakit.errors import first_line
from nlakit.run.folder import atomic_write, sha256_once

FILE = ".inputs.json"
KEPT = ("bytes", "mtime_ns", "sha256")
LARGE = 16 << 20  # bytes
MODEL_ENDINGS = (
    ".safetensors", ".bin", ".gguf", ".json", ".model", ".txt", ".jinja", ".tiktoken", ".py"
)  # fmt: skip

# What the settings name → the files that are read there. What is not on this machine is left out.
Reads = Mapping[str, Iterable[Path]]
Outside = Callable[[RunConfig], Reads]


def nothing(config: RunConfig) -> Reads:
    """Of a stage that reads its parents alone."""
    return {}


def model_files(name: str | None) -> Reads:
    """The files of a model that lies in a folder or is a GGUF; none for a hub id or a packaged
    model."""
    path = Path(name) if name else None
    if path is not None and path.is_file():
        return {str(name): [path]}
    if path is None or not path.is_dir():
        return {}
    return {str(name): [p for p in path.iterdir() if p.suffix in MODEL_ENDINGS]}


def subject_files(config: RunConfig) -> Reads:
    """The subject's files, where it is a folder or a GGUF."""
    return model_files(config.subject.model)


def half_files(folder: str | None) -> Reads:
    """Weights and contract of a trained half."""
    path = Path(folder) if folder else None
    if path is None or not path.is_dir():
        return {}
    return {str(folder): [*path.glob("*.safetensors"), *path.glob("*.yaml")]}


def training_files(role: str) -> Outside:
    """Of the training of a half (`ar`, `av`): the subject, and the half that it goes on from."""

    def reads(config: RunConfig) -> Reads:
        return {**subject_files(config), **half_files(getattr(config.start, role, None))}

    return reads


def write_inputs(folder: Path, reads: Reads) -> None:
    """Record what a stage is about to read."""
    found = [
        {"named": named, "path": str(file), "sha256": sha256_once(file), **_look(file)}
        for named, file in _sorted(reads)
    ]
    atomic_write(folder / FILE, json.dumps(found, indent=1) + "\n")


def changed_inputs(folder: Path, reads: Reads) -> list[str]:
    """What differs from the record in a stage's folder, one line a file; nothing where an earlier
    nlakit left no record. A source that is not on this machine at all cannot differ."""
    if not (folder / FILE).exists():
        return []
    try:
        records = json.loads((folder / FILE).read_text(encoding="utf-8"))
        then = {(one["named"], one["path"]): {name: one[name] for name in KEPT} for one in records}
    except (OSError, ValueError, TypeError, KeyError) as error:
        return [f"what was read is not known: {FILE} is damaged ({first_line(error)})"]
    now = dict.fromkeys((named, str(file)) for named, file in _sorted(reads))
    here = {named for named, _ in now}
    lines = [f"{path} is new" for named, path in now if (named, path) not in then]
    for (named, path), record in then.items():
        if (named, path) not in now:
            lines += [f"{path} is gone"] if named in here else []
        elif not _same(Path(path), record):
            lines.append(f"{path} was changed after it was read")
    return lines


def _sorted(reads: Reads) -> Iterator[tuple[str, Path]]:
    for named in sorted(reads):
        for file in sorted(reads[named]):
            yield named, file


def _look(file: Path) -> dict[str, int]:
    stat = file.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _same(file: Path, record: Mapping[str, Any]) -> bool:
    now = _look(file)
    if now["bytes"] != record["bytes"]:
        return False
    if now["bytes"] > LARGE and now["mtime_ns"] == record["mtime_ns"]:
        return True
    return sha256_once(file) == record["sha256"]
