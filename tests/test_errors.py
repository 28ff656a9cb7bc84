"""Errors: one line each, and every one says what to do."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nlakit import errors
from nlakit.errors import DataError, NlakitError

ROOT = Path(errors.__file__).parent
TYPES = {
    name for name, one in vars(errors).items()
    if isinstance(one, type) and issubclass(one, NlakitError)
}  # fmt: skip


def without_do(source: str) -> list[int]:
    """Lines at which an error is made that does not say what to do."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in TYPES
        and not any(keyword.arg in ("do", None) for keyword in node.keywords)
    ]


def test_planted_error_without_a_way_out() -> None:
    assert without_do("raise DataError('x', found=1)\nraise ConfigError('x', do='y')") == [1]
    assert without_do("raise ValueError('x')") == []


@pytest.mark.parametrize(
    "file", sorted(ROOT.rglob("*.py")), ids=lambda file: file.relative_to(ROOT).as_posix()
)
def test_every_error_says_what_to_do(file: Path) -> None:
    assert without_do(file.read_text(encoding="utf-8")) == []


def test_a_message_is_one_line_whatever_was_found() -> None:
    said = str(DataError("it is odd", found="two\nlines\u2028more", do="mend it"))
    assert said == "it is odd; found: two lines more; do: mend it"
