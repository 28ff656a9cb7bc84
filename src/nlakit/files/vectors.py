"""Texts and vectors that a command is given in files."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlakit.errors import DataError, first_line
from nlakit.files.text import decoded_lines, ending, read_jsonl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMPY = (".npy", ".npz")
TEXT = "explanation"


def read_vectors(path: Path) -> NDArray[np.float32]:
    """Raw vectors `(n, d)` of a .npy or .npz file, or of the column `activation_vector` of a
    Parquet file or folder.

    Raises DataError if the file cannot be read or holds no vectors, no rows, or numbers that are
    not finite.
    """
    import numpy as np

    from nlakit.files.parquet import VECTOR, check_finite, finite_matrix, read_table

    if path.suffix.lower() in NUMPY:
        raw = _numpy_array(path)
        found = np.atleast_2d(raw.astype(np.float32))
        check_finite(found, path, half=raw.dtype == np.float16)
        return found
    table = read_table(path, [VECTOR])
    if not table.num_rows:
        raise DataError(
            f"{path} has no vectors", found="0 rows", do="give a file with one vector a row"
        )
    return finite_matrix(table, path)


def _numpy_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file; of a .npz file, its only one or the one with the name of
    vectors."""
    import numpy as np

    from nlakit.files.parquet import VECTOR

    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.lib.npyio.NpzFile):
            with found:
                names = found.files
                name = VECTOR if VECTOR in names else names[0] if len(names) == 1 else None
                if name is None:
                    raise DataError(
                        f"{path} does not say which array holds the vectors",
                        found=", ".join(names) or "no array",
                        do=f"call it {VECTOR}",
                    )
                found = found[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error
    if found.ndim not in (1, 2) or not found.size or found.dtype.kind not in "fiu":
        raise DataError(
            f"{path} holds no vectors: they are numbers (n, d)",
            found=f"shape {found.shape} of {found.dtype}",
            do="save a matrix with one row a vector",
        )
    return found


def _unreadable(path: Path, error: Exception) -> DataError:
    """What is wrong with a file of NumPy, whose own message guesses that it is a pickle."""
    try:
        with path.open("rb") as handle:
            start = handle.read(6)
    except OSError as unread:
        return DataError(
            f"cannot read {path}",
            found=first_line(unread),
            do="check the path, and that you may read it",
        )
    if "Object arrays" in str(error):
        return DataError(f"{path} holds Python objects, not numbers", do="save floats (n, d)")
    if start.startswith((b"\x93NUMPY", b"PK")):
        return DataError(f"{path} is damaged", found=first_line(error), do="copy or save it again")
    kind = path.suffix.lower()
    return DataError(
        f"{path} is no {kind} file",
        found=f"it begins with {start!r}",
        do="give its file the ending of what it is",
    )


def read_texts(path: Path) -> list[str]:
    """Texts of a file: its lines, or what `--save` wrote, the `explanation` of each record in
    .jsonl or .parquet. Lines end at line feeds; other breaks are part of a text.

    Raises DataError if the file cannot be read, is a CSV, or a record has no text.
    """
    kind = ending(path)
    if kind in (".jsonl", ".ndjson"):
        return [_text(where, row) for where, row in read_jsonl(path)]
    if kind == ".parquet":
        from nlakit.files.parquet import read_table

        rows = read_table(path, [TEXT]).to_pylist()
        return [_text(f"{path} row {number}", row) for number, row in enumerate(rows)]
    if kind == ".csv":
        do = "give .jsonl or .parquet with explanations, or a text a line"
        raise DataError(f"texts are not read from {path}", found="a CSV", do=do)
    return [line.removesuffix("\n").removesuffix("\r") for line in decoded_lines(path)]


def _text(where: str, row: Mapping[str, Any]) -> str:
    if not isinstance(text := row.get(TEXT), str):
        found = f"its keys are {', '.join(row)}" if text is None else type(text).__name__
        raise DataError(
            f"{where} has no text in {TEXT!r}", found=found, do="store the text under that key"
        )
    return text
