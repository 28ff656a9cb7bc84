"""Text files of users, line by line, so that what is wrong is found with its line."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from nlakit.errors import DataError, first_line

CODECS = {".gz": "gzip", ".zst": "zstd"}
TEXTS = (".txt", ".jsonl", ".ndjson", ".json", ".csv")


def ending(path: Path) -> str:
    """The ending that says what a file holds, in lower case: `.jsonl` of `a.jsonl.gz`. A compressed
    file that is not text keeps the ending of its compression."""
    last = path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    return inner if last in CODECS and inner in TEXTS else last


def bare_name(path: Path) -> str:
    """The name of a file without folder and endings: `a` of `b/a.jsonl.gz`."""
    return path.stem if ending(path) == path.suffix.lower() else Path(path.stem).stem


def _opened(path: Path) -> BinaryIO:
    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        return path.open("rb")
    import pyarrow as pa

    raw: Any = pa.input_stream(str(path), compression=codec)
    return io.BufferedReader(raw)


def decoded_lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends, without a byte order mark; `.gz` and `.zst` are unpacked.
    Lines end at line feeds alone. Raises DataError if the file cannot be read, or a line is not
    UTF-8."""
    offset = 0
    try:
        with _opened(path) as handle:
            for number, raw in enumerate(handle, start=1):
                yield _decoded(path, number, offset, raw)
                offset += len(raw)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read",
            found=first_line(error),
            do="check the path, and that you may read it",
        ) from error


def _decoded(path: Path, number: int, offset: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8",
            found=f"byte 0x{raw[error.start]:02x} in line {number}, offset {offset + error.start}",
            do="convert the file to UTF-8",
        ) from error


def read_jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each object of a file of JSON lines stands, and the object; empty lines are passed
    over. Raises DataError if a line is not UTF-8, not JSON, no object or no valid Unicode."""
    for number, line in enumerate(decoded_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
            if "\\u" in line:  # half a surrogate pair is JSON, but not text
                as_json(row).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where} is not valid Unicode",
                found="half of a surrogate pair",
                do="mend or delete the line",
            ) from error
        except (ValueError, RecursionError) as error:
            what = f"{where} is not JSON"
            raise DataError(what, found=str(error), do="mend or delete the line") from error
        if not isinstance(row, dict):
            raise DataError(
                f"{where} is not a JSON object",
                found=type(row).__name__,
                do="write an object, {...}, a line",
            )
        yield where, row


def read_record(path: Path) -> dict[str, Any]:
    """A mapping that nlakit wrote as JSON. Raises DataError if it cannot be read or is something
    else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        do = "copy or make it again"
        raise DataError(f"{path} cannot be read", found=first_line(error), do=do) from error
    if not isinstance(found, dict):
        raise DataError(
            f"{path} is no record of nlakit",
            found=type(found).__name__,
            do="copy it again from where it was made",
        )
    return found


def as_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes, not in ASCII alone: NaN and infinities, which JSON lacks, are
    null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """As `read_jsonl`, for a file that is a JSON array of objects, one object over several lines,
    or JSON lines by another name.

    An array is held in memory as a whole.
    """
    first = next((line for line in decoded_lines(path) if line.strip()), "").strip()
    # One object over several lines: its first line is not one by itself.
    whole = first.startswith("[") or (ending(path) == ".json" and not _is_json(first))
    if not whole:
        yield from read_jsonl(path)
        return
    try:
        items = json.loads("".join(decoded_lines(path)))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON", found=str(error), do="mend the file") from error
    for number, item in enumerate(items if isinstance(items, list) else [items], start=1):
        if not isinstance(item, dict):
            what = f"{path} item {number} is not a JSON object"
            raise DataError(what, found=type(item).__name__, do="write objects, {...}, in the list")
        yield f"{path} item {number}", item


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def holds_rows(path: Path) -> bool:
    """Whether a JSON file is an array or lines of objects: a single object is settings, no rows."""
    first, second, *_ = [*islice(filter(str.strip, decoded_lines(path)), 2), "", ""]
    return first.lstrip().startswith("[") or second.lstrip().startswith("{")
