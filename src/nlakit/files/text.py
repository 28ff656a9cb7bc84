"""Text files of users, line by line, so that what is wrong is found with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlakit.errors import DataError


def decoded_lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends, without a byte order mark. Raises DataError if a line is not
    UTF-8."""
    offset = 0
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path} is not UTF-8",
                    found=f"byte 0x{raw[error.start]:02x} in line {number}, "
                    f"offset {offset + error.start}",
                    do="convert the file to UTF-8",
                ) from error
            offset += len(raw)


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each object of a file of JSON lines stands, and the object; empty lines are passed
    over. Raises DataError if a line is not UTF-8, not JSON or no object."""
    for number, line in enumerate(decoded_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            what = f"{where} is not JSON"
            raise DataError(what, found=str(error), do="mend or delete the line") from error
        if not isinstance(row, dict):
            raise DataError(f"{where} is not a JSON object", found=type(row).__name__)
        yield where, row
