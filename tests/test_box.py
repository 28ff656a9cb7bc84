"""The pair in the box answers without training, and reads its text."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlakit import NLA
from nlakit.config.sections import SourceConfig
from nlakit.core.text.stats import has_loop
from nlakit.data.sources import read_source

BOX = Path(str(files("nlakit") / "box"))


@pytest.fixture(scope="module")
def nla() -> Any:
    return NLA.load("demo", device="cpu")


@pytest.fixture(scope="module")
def read(nla: Any) -> tuple[np.ndarray, list[str]]:
    """Sixteen activations of eight demo documents, and what the AV says of them."""
    documents = list(read_source(SourceConfig(path="demo")))[::180][:8]
    found = [nla.activations(document.text[:700], [-1, -20])[2] for document in documents]
    vectors = np.concatenate(found)
    return vectors, [item.explanation for item in nla.explain(vectors)]


def test_small_enough_and_with_its_notice() -> None:
    assert sum(path.stat().st_size for path in BOX.rglob("*.safetensors")) <= 25_000_000
    assert "Gemma Terms of Use" in (BOX / "NOTICE").read_text(encoding="utf-8")
    results = json.loads((BOX / "results.json").read_text(encoding="utf-8"))
    assert results["verdict"]["word"] == "content-sensitive"


def test_texts_are_different_and_do_not_loop(read: tuple[np.ndarray, list[str]]) -> None:
    _, texts = read
    assert len(set(texts)) == len(texts) == 16
    assert all(len(text.split()) > 5 for text in texts)
    assert sum(has_loop(text) for text in texts) <= 2


def test_the_words_carry_the_vector(nla: Any, read: tuple[np.ndarray, list[str]]) -> None:
    vectors, texts = read
    real = np.mean([score.centred_cosine for score in nla.score(texts, vectors)])
    other = np.mean([s.centred_cosine for s in nla.score(texts[4:] + texts[:4], vectors)])
    empty = np.mean([score.centred_cosine for score in nla.score([""] * 16, vectors)])
    assert real > 0.3
    assert max(other, empty) < 0.15


def test_one_text_in_three_lines(nla: Any) -> None:
    found = nla.explain("She opened the letter and began to")
    assert len(found) == 1
    assert found[0].token == " to"
    assert found[0].centred_cosine is not None
    assert "NLA(AV + AR of gemma-3-270m, layer 12, d = 640)" in repr(nla)
