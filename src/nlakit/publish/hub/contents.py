"""What no file that leaves this machine may hold: a key, a pickle under another name, its paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickletools import genops
from typing import Any

from markupsafe import escape

from nlakit.errors import DataError
from nlakit.run.folder import read_exact

KEY = re.compile(
    rb"\b(hf_[A-Za-z0-9]{30,}|sk-(?=[\w-]*\d)[\w-]{20,}|AIza[\w-]{35}|AKIA[0-9A-Z]{16}"
    rb"|gh[opsu]_[A-Za-z0-9]{36}|github_pat_\w{60,}|xox[abp]-[\w-]{20,})"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
KEY_VARIABLE = re.compile(r"_(KEY|TOKEN|SECRET|PASSWORD)$")


def cleaned_page(page: Path, shown: Mapping[str, str]) -> str | None:
    """Text of a report, which shows the settings, with the paths of this machine replaced as
    `shown` says; None if its home is still named. Raises DataError if it is no text."""
    text = read_exact(page)
    for local in sorted(shown, key=len, reverse=True):  # a folder after what is in it
        text = text.replace(str(escape(local)), str(escape(shown[local])))
    home = str(Path.home())
    return None if len(home) > 1 and home in text else text


def check(files: Mapping[str, Path]) -> None:
    """Raise DataError for a key, a damaged safetensors file, or a pickle under another name.

    files: by the name they get.
    """
    values = (v.encode() for k, v in os.environ.items() if KEY_VARIABLE.search(k) and len(v) >= 12)
    own = tuple(values)
    for name, file in files.items():
        if file.suffix != ".safetensors" and is_pickle(file):
            raise DataError(f"{file} is a pickle or an archive", do="send safetensors")
        if file.suffix == ".png":
            continue
        for place, line in _lines(file):
            if KEY.search(line) or any(value in line for value in own):
                raise DataError(
                    f"{file} seems to hold a key or token",
                    found=f"{place} of {name}",
                    do="take it out, and replace the key: it may have been read",
                )


def is_pickle(file: Path) -> bool:
    """Whether a file is an archive, or a pickle: of protocol 2 and later by its first bytes, of
    the earlier ones, which are plain text, if it can be read as one that imports something."""
    with file.open("rb") as opened:
        head = opened.read(1 << 16)
    if head[:4] == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05"):
        return True
    try:
        return not {"GLOBAL", "INST"}.isdisjoint([op.name for op, _, _ in genops(head)])
    except Exception:  # text or bytes of any kind
        return False


def _metadata(file: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            return opened.metadata() or {}
    except SafetensorError as error:
        raise DataError(
            f"{file} is no safetensors file", found=error, do="make it again"
        ) from error


def _lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Texts of a file, with where they stand: its lines, the columns of a table with strings, or
    what is written beside tensors."""
    if file.suffix == ".safetensors":
        for name, value in _metadata(file).items():
            yield f"metadata {name}", value.encode()
        return
    if file.suffix != ".parquet":
        with file.open("rb") as opened:
            for number, line in enumerate(opened, 1):
                yield f"line {number}", line
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            # A type is spelt with those inside it: list<element: struct<content: large_string>>.
            names = [f.name for f in table.schema_arrow if "string" in str(f.type)]
            for batch in table.iter_batches(batch_size=1000, columns=names):
                for name in names:
                    text = "\n".join(_strings(batch[name].to_pylist()))
                    yield f"column {name}", text.encode()
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{file} cannot be read",
            found=str(error).splitlines()[0],
            do="make it again, or leave it out",
        ) from error


def _strings(value: Any) -> Iterator[str]:
    """All strings of a cell, however deep in lists, structs and maps."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
