"""Texts and vectors that a command is given in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlakit.errors import DataError


def read_lines(path: Path) -> list[str]:
    """Lines of a text file; DataError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}", found=str(error)) from error


def read_vectors(path: Path) -> Any:
    """Raw vectors `(n, d)` from a .npy file or the activation_vector column of a Parquet file."""
    import numpy as np

    from nlakit.files.parquet import matrix, read_table

    if path.suffix == ".npy":
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}", found=str(error)) from error
        if found.ndim not in (1, 2) or not found.size or found.dtype.kind not in "fiu":
            raise DataError(
                f"{path} holds no vectors: they are numbers (n, d)",
                found=f"shape {found.shape} of {found.dtype}",
            )
        return np.atleast_2d(found)
    return matrix(read_table(path))
