"""Properties of the demo corpus that ships with the package."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

DEMO = Path(__file__).resolve().parents[2] / "src/nlakit/data/demo"

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def rows() -> Rows:
    return pq.read_table(DEMO / "corpus.parquet").to_pylist()


def shingles(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[at : at + 8]) for at in range(max(1, len(words) - 7))}


def test_it_is_small_enough_to_ship() -> None:
    assert (DEMO / "corpus.parquet").stat().st_size <= 3_500_000


def test_it_has_the_promised_columns_and_breadth(rows: Rows) -> None:
    families = Counter(row["source_family"] for row in rows)
    assert set(rows[0]) == {"doc_id", "source_family", "text"}
    assert len(rows) >= 600
    assert len(families) >= 5
    assert min(families.values()) >= 100


def test_identifiers_are_unique_and_plain(rows: Rows) -> None:
    identifiers = [row["doc_id"] for row in rows]
    assert len(set(identifiers)) == len(identifiers)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name) for name in identifiers)


def test_every_text_is_a_passage_of_the_stated_length(rows: Rows) -> None:
    assert all(row["text"].strip() == row["text"] for row in rows)
    assert all(1200 <= len(row["text"]) <= 2400 for row in rows)


def test_text_is_decoded_cleanly(rows: Rows) -> None:
    accident = re.compile("\ufffd|\u00c3[\u0080-\u00bf]|\u00e2\u20ac|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
    assert [row["doc_id"] for row in rows if accident.search(row["text"])] == []
    for row in rows:
        ascii_share = sum(character.isascii() for character in row["text"]) / len(row["text"])
        assert ascii_share > 0.95, row["doc_id"]


def test_no_two_documents_share_much_text(rows: Rows) -> None:
    own = {row["doc_id"]: shingles(row["text"]) for row in rows}
    holders: dict[str, list[str]] = defaultdict(list)
    too_close = []
    for name, mine in own.items():
        shared = Counter(other for shingle in mine for other in holders[shingle])
        too_close += [
            (name, other)
            for other, count in shared.items()
            if count > 0.3 * min(len(mine), len(own[other]))
        ]
        for shingle in mine:
            holders[shingle].append(name)
    assert too_close == []


def test_the_table_of_sources_gives_the_same_counts(rows: Rows) -> None:
    text = (DEMO / "SOURCES.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| ([a-z-]+) \|.*\| (\d+) \|$", text, re.MULTILINE)
    assert {name: int(count) for name, count in stated} == Counter(
        row["source_family"] for row in rows
    )
    assert f"holds {len(rows)} passages" in text
