"""Conversations in files of users: a list of messages, or one conversation a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nlakit.errors import DataError
from nlakit.files.text import decoded_lines, ending


def read_conversations(path: Path) -> list[list[Any]]:
    """The conversations of a file, each a list of messages as it stands there: JSON, which is one
    list of messages, one object that holds one under `messages`, or a list of either; or JSON
    lines, a conversation a line.

    Raises DataError if the file cannot be read or holds something else.
    """
    text = "".join(decoded_lines(path))
    if ending(path) in (".jsonl", ".ndjson"):
        lines = [(f"{path} line {n}", line) for n, line in enumerate(text.split("\n"), start=1)]
        found = [
            conversation_in(_parsed(line, where), where) for where, line in lines if line.strip()
        ]
    else:
        found = [*_conversations(_parsed(text, str(path)), str(path))]
    if not found:
        raise DataError(f"{path} holds no conversation", found="no messages", do="give some")
    return found


def conversation_in(value: Any, where: str) -> list[Any]:
    """The list of messages that a value is, holds under `messages`, or has as JSON. Raises
    DataError if it is none."""
    if isinstance(value, str):
        value = _parsed(value, where)
    if isinstance(value, dict):
        value = value.get("messages")
    if not isinstance(value, list):
        raise DataError(
            f"{where} holds no conversation",
            found=type(value).__name__,
            do='give a list of {"role": ..., "content": ...}',
        )
    return value


def _conversations(value: Any, where: str) -> Iterator[list[Any]]:
    several = isinstance(value, list) and value and not (
        isinstance(value[0], dict) and "role" in value[0]
    )  # fmt: skip
    for number, one in enumerate(value if several else [value], start=1):
        yield conversation_in(one, f"{where} item {number}" if several else where)


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON", found=str(error), do="mend the file") from error
