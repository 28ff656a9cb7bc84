"""Places that a command writes to: tried before its work, so that nothing finished is lost."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from nlakit.errors import ConfigError, first_line

# A folder of such a name would surprise whoever asked for a file.
FILES = frozenset(
    ".csv .gz .html .json .jsonl .md .ndjson .npy .npz .parquet .pdf .png .safetensors .tsv .txt"
    " .xlsx .yaml .yml .zip .zst".split()
)


def check_file(target: Path, endings: Sequence[str]) -> None:
    """Raise ConfigError unless a file of one of these endings can be written at `target`. Nothing
    is made or changed."""
    if target.suffix.lower() not in endings:
        *others, last = endings
        raise ConfigError(
            f"{target} cannot be written in that format",
            found=target.suffix or "no ending",
            do=f"end it in {', '.join(others) + ' or ' if others else ''}{last}",
        )
    if target.is_dir():
        raise ConfigError(f"{target} is a folder", do="give the name of a file in it")
    _try(target, target.parent)


def check_folder(target: Path) -> None:
    """Raise ConfigError unless files can be written into a folder at `target`, which may have to
    be made. Nothing is made or changed."""
    if target.suffix.lower() in FILES and not target.is_dir():
        raise ConfigError(
            f"{target} is to be a folder, and its name is a file's",
            found=target.suffix,
            do="give the name of a folder",
        )
    _try(target, target)


def _try(target: Path, folder: Path) -> None:
    try:
        nearest = next(p for p in (folder, *folder.parents) if p.exists() or p.is_symlink())
        if not nearest.is_dir():
            raise NotADirectoryError(f"{nearest} is no folder")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise ConfigError(
            f"nothing can be written at {target}",
            found=first_line(error),
            do="give another place",
        ) from error


def quoted(path: object) -> str:
    """A path as it goes into a command line."""
    text = str(path)
    return subprocess.list2cmdline([text]) if os.name == "nt" else shlex.quote(text)
