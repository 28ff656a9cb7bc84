"""The corpus stage: what it drops, how it mixes, and that it always writes the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.data import corpus
from nlakit.data.corpus import largest_remainder, order_key, quotas
from nlakit.errors import DataError
from nlakit.run.folder import RunDir


def text(seed: int, length: int = 30) -> str:
    return " ".join(f"word{seed}n{i}" for i in range(length))


def put(path: Path, texts: Sequence[str | None]) -> str:
    rows = [{"id": f"{path.stem}{i}", "text": value} for i, value in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def make(
    tmp_path: Path, sources: list[dict[str, Any]], name: str = "run", seed: int = 0, **settings: Any
) -> tuple[RunConfig, RunDir]:
    sources = [{"id_column": "id", **source} for source in sources]
    section = {"min_characters": 20, **settings, "sources": sources}
    config = parse_config({"name": "t", "seed": seed, "corpus": section})
    return config, RunDir.create(tmp_path / name, config)


def rows(rundir: RunDir) -> list[dict[str, Any]]:
    return pq.read_table(rundir.folder("corpus") / "corpus.parquet").to_pylist()


def test_drops_are_counted_by_reason(tmp_path: Path) -> None:
    first, second = text(1), text(2)
    texts = [first, None, "  ", "short", first.upper() + " ", second, second + " and an end"]
    config, rundir = make(tmp_path, [{"path": put(tmp_path / "a.jsonl", texts)}])
    result = corpus.run(config, rundir).rows
    assert (result.entered, result.kept) == (7, 2)
    assert result.dropped == {
        "empty": 2,
        "exact_duplicate": 1,
        "near_duplicate": 1,
        "too_short": 1,
    }
    assert {row["doc_id"]: row["text"] for row in rows(rundir)} == {"a0": first, "a5": second}
    families = json.loads((rundir.folder("corpus") / "families.json").read_text())
    assert families == {"a": {"documents": 2, "characters": len(first) + len(second)}}


def test_first_source_wins_over_a_copy(tmp_path: Path) -> None:
    one = put(tmp_path / "one.jsonl", [text(1), text(2)])
    two = put(tmp_path / "two.jsonl", [text(2), text(3)])
    config, rundir = make(tmp_path, [{"path": one}, {"path": two}])
    corpus.run(config, rundir)
    assert {row["doc_id"] for row in rows(rundir)} == {"one0", "one1", "two1"}


def test_weights_decide_under_a_bound(tmp_path: Path) -> None:
    one = put(tmp_path / "one.jsonl", [text(i) for i in range(40)])
    two = put(tmp_path / "two.jsonl", [text(i) for i in range(100, 140)])
    sources = [{"path": one, "weight": 3}, {"path": two, "weight": 1}]
    config, rundir = make(tmp_path, sources, max_documents=20)
    result = corpus.run(config, rundir).rows
    families = [row["source_family"] for row in rows(rundir)]
    assert (families.count("one"), families.count("two")) == (15, 5)
    assert result.dropped == {"over_max_documents": 60}
    ids = [row["doc_id"] for row in rows(rundir)]
    assert ids == sorted(ids, key=lambda doc_id: order_key(0, "corpus", doc_id))


def test_bytes_depend_on_seed_and_documents_only(tmp_path: Path) -> None:
    texts = [text(i) for i in range(30)]
    one = {"path": put(tmp_path / "one.jsonl", texts[:15]), "family": "f"}
    two = {"path": put(tmp_path / "two.jsonl", texts[15:]), "family": "f"}
    written = {}
    for name, sources, seed in [("a", [one, two], 0), ("b", [two, one], 0), ("c", [one, two], 1)]:
        config, rundir = make(tmp_path, sources, name, seed)
        corpus.run(config, rundir)
        written[name] = (rundir.folder("corpus") / "corpus.parquet").read_bytes()
    assert written["a"] == written["b"] != written["c"]


def test_nothing_left(tmp_path: Path) -> None:
    config, rundir = make(tmp_path, [{"path": put(tmp_path / "a.jsonl", ["", "short", "s"])}])
    with pytest.raises(DataError, match="3 documents, dropped: empty 1, too_short 2; do: lower"):
        corpus.run(config, rundir)
    assert rundir.manifest("corpus") is None


def test_duplicate_id(tmp_path: Path) -> None:
    one = put(tmp_path / "one.jsonl", [text(1)])
    with pytest.raises(DataError, match="two documents have the id 'one0'"):
        corpus.run(*make(tmp_path, [{"path": one}, {"path": one}]))


def test_demo(tmp_path: Path) -> None:
    config, rundir = make(tmp_path, [{"id_column": None}], max_documents=100)
    assert corpus.run(config, rundir).rows.kept == 100
    assert len({row["source_family"] for row in rows(rundir)}) > 3


def test_seats_by_hand() -> None:
    assert largest_remainder(10, [0.4, 0.4, 0.08, 0.12]) == [4, 4, 1, 1]
    assert largest_remainder(100, [0.29, 0.71]) == [29, 71]
    assert largest_remainder(1, [0.6, 0.4], [-0.6, 0.6]) == [0, 1]
    assert largest_remainder(0, [1.0]) == [0]
    assert quotas([2, 100, 100], [1, 1, 1], 50) == [2, 24, 24]
    assert quotas([5, 5], [1, 9], 10) == [5, 5]


seats = st.lists(st.tuples(st.integers(0, 50), st.floats(0.01, 10)), min_size=1, max_size=6)


@given(seats, st.integers(0, 200))
def test_quotas_fill_the_bound(sources: list[tuple[int, float]], total: int) -> None:
    available = [count for count, _ in sources]
    taken = quotas(available, [weight for _, weight in sources], total)
    assert sum(taken) == min(total, sum(available))
    assert all(0 <= count <= most for count, most in zip(taken, available, strict=True))


@given(st.integers(0, 500), st.lists(st.floats(0.01, 10), min_size=1, max_size=6))
def test_seats_are_within_one_of_the_quota(total: int, weights: list[float]) -> None:
    found = largest_remainder(total, weights)
    assert sum(found) == total
    for count, weight in zip(found, weights, strict=True):
        assert abs(count - total * weight / sum(weights)) < 1 + 1e-6
