"""What is measured on held-out rows, also where rows and texts lack something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nlakit.config.rl import BrakesConfig
from nlakit.files.rows import TableRows
from nlakit.train.rl.brakes import fallen, held_out
from nlakit.train.rl.instruments import CONTENT, Instruments, change, summary
from tests.conftest import D
from tests.train.rl.toys import build_rows

NEEDS_SOURCES = ("within_family", "claim_precision")


class Half:
    """Writes given texts, and reads each as the vector of its row, or another where it is empty."""

    def __init__(self, rows: TableRows, texts: Sequence[str]) -> None:
        self.texts = list(texts)
        self.known = dict(zip(texts, rows.vectors, strict=True))

    def eval(self) -> None: ...

    def explain(self, vectors: Any, batch: int) -> list[str]:
        return self.texts

    def reconstruct(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([self.known.get(text, np.arange(D) + 1.0) for text in texts])


def instruments(rows: TableRows, texts: Sequence[str]) -> Instruments:
    half: Any = Half(rows, texts)
    return Instruments(half, half, half, rows, np.full(D, 0.1), 8, 0)


def watched(tool: Instruments, start: Any, now: Any) -> dict[str, Any]:
    names = (*CONTENT, "fve", "frozen_fve")
    return {name: change(name, start, now, tool.rows.doc_ids) for name in names}


def test_a_pair_that_reads_all() -> None:
    rows = build_rows(8)
    found = instruments(rows, rows.sources).measure()
    told = summary(found)
    for name in ("fve", "frozen_fve", "centred", "frozen_centred"):
        assert told[name] == pytest.approx(1)
    assert told["claim_precision"] == 1 and told["unique"] == 1 and told["empty"] == 0
    assert told["empty_centred"] < 1


def test_rows_without_sources_have_no_measure_of_them() -> None:
    rows = replace(build_rows(8), sources=[""] * 8)
    tool = instruments(rows, [f"It is text {at} of whales." for at in range(8)])
    found = tool.measure()
    assert all(np.isnan(found[name]).all() for name in NEEDS_SOURCES)
    assert not set(NEEDS_SOURCES) & set(summary(found))
    changes = watched(tool, found, found)
    assert all(changes[name] is None for name in NEEDS_SOURCES)
    assert held_out(changes, BrakesConfig()) is None and fallen(changes) == []


def test_some_rows_without_a_source_say_nothing_of_the_others() -> None:
    rows = build_rows(8, per_document=1)
    whole = instruments(rows, rows.sources).measure()
    sources = [*rows.sources[:6], "", ""]
    some = instruments(replace(rows, sources=sources), rows.sources).measure()
    for name in NEEDS_SOURCES:
        assert np.isnan(some[name][6:]).all()
        np.testing.assert_array_equal(some[name][:6], whole[name][:6])


def test_families_of_one_document_find_nothing() -> None:
    rows = replace(build_rows(4, per_document=1), families=["a", "b", "c", "d"])
    found = instruments(rows, rows.sources).measure()
    assert np.isnan(found["within_family"]).all() and "within_family" not in summary(found)


def test_empty_texts_everywhere() -> None:
    rows = build_rows(8)
    tool = instruments(rows, rows.sources)
    start = tool.measure()
    tool.av.texts = [""] * 8  # type: ignore[assignment]
    now = tool.measure()
    told = summary(now)
    assert told["empty"] == 1 and told["unique"] == 1 / 8 and told["words"] == 0
    assert told["within_family"] == 0
    brake = held_out(watched(tool, start, now), BrakesConfig())
    assert brake is not None and brake.name == "alike"
