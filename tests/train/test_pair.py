"""Texts of the AV that a restart takes up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nlakit.train import pair


class _Rows:
    row_ids = ("a", "b")

    def __len__(self) -> int:
        return 2


def test_texts_with_line_separators_are_taken_up(tmp_path: Path) -> None:
    texts, rows = ["one\u2028two\x85", "three\u2029\x0c"], _Rows()
    pair._write_lines(tmp_path / pair.TEXTS_FILE, rows.row_ids, texts)
    nothing: Any = None
    found: Any = rows
    assert pair.write_texts(nothing, found, nothing, tmp_path, nothing) == texts
