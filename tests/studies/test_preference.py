"""A blind judge between two evaluations of the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlakit.config.load import parse_config
from nlakit.errors import ConfigError, DataError
from nlakit.files.parquet import read_table, write_table
from nlakit.studies.preference import preference, write_preference
from tests.evaluate.benches import Scripted
from tests.publish.evaluated import write_toy


def likes(word: str) -> Any:
    def answer(_: str, prompt: str) -> Any:
        first = prompt.split("Explanation A:")[1].split("Explanation B:")[0]
        return {"reasons": "", "better": "A" if word in first else "B"}

    return answer


def with_texts(folder: Path, said: str, other_ids: bool = False) -> Path:
    """A toy evaluation whose explanations are `said`."""
    rows = read_table(write_toy(folder) / "rows.parquet").to_pylist()
    for i, row in enumerate(rows):
        row["explanation"] = f"{said} {i}"
        row["source"] = f"source {i}"
        row["row_id"] += "x" if other_ids else ""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    write_table(folder / "rows.parquet", columns)
    return folder


def test_the_preferred_pair_is_found_from_either_side(tmp_path: Path) -> None:
    good, poor = with_texts(tmp_path / "good", "fine"), with_texts(tmp_path / "poor", "vague")
    for pair, sign in (((good, poor), 1), ((poor, good), -1)):
        judge = Scripted(likes("fine"))
        found = preference(*pair, judge, rows=6)
        (one,) = (one for one in found["findings"] if one["measure"] == "preference")
        assert (one["mean"], one["rows"]) == (sign, 6)
        assert len(judge.asked) == 12
    assert found["texts"]["first"][0] == "vague 0"


def test_evaluations_of_other_rows_cannot_be_judged(tmp_path: Path) -> None:
    good = with_texts(tmp_path / "good", "fine")
    other = with_texts(tmp_path / "other", "vague", other_ids=True)
    with pytest.raises(DataError, match="share too few rows"):
        preference(good, other, Scripted(likes("fine")), rows=6)


def test_without_a_judge_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no judge"):
        write_preference(tmp_path, tmp_path, parse_config({"name": "x"}), tmp_path / "out")
