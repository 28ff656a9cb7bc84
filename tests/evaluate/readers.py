"""ARs that are rules on words, and a bench of rows whose vectors are made of their texts."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from nlakit.core.metrics import mean_unit
from nlakit.evaluate.bench import Bench
from nlakit.models.reconstructor import Reconstructor
from tests.evaluate.benches import text_bench

D, N = 48, 48
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in ("ra", "sil", "tu", "ven")]


@cache
def meaning(word: str) -> np.ndarray:
    """A random direction `(d,)` that belongs to the word."""
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(D)


def content(tokens: Sequence[str], pairs: float) -> np.ndarray:
    """A common direction, the words, and by `pairs` each word with its successor."""
    made = np.full(D, 6.0)
    for word in tokens:
        made = made + meaning(word)
    for left, right in pairwise(tokens):
        made = made + pairs * meaning(f"{left} {right}")
    return made


def bare(text: str) -> list[str]:
    """Words without the marks around them."""
    return [word for word in (token.strip(".,“”") for token in text.split()) if word]


class FakeAR:
    """An AR that is a function of the text; its tokens are words."""

    def __init__(self, rule: Callable[[str], np.ndarray]) -> None:
        self.rule, self.tokenizer, self.read = rule, self, 0

    def __call__(self, text: str, add_special_tokens: bool, **_: Any) -> dict[str, Any]:
        return {"input_ids": text.split()}

    def decode(self, ids: Sequence[str]) -> str:
        return " ".join(ids)

    def reconstruct(self, texts: Sequence[str]) -> np.ndarray:
        self.read += len(texts)
        return np.stack([self.rule(text) for text in texts]).astype(np.float32)


def honest(text: str) -> np.ndarray:
    """Reads every word and what follows it."""
    return content(bare(text), 0.5)


def explanations() -> list[str]:
    """Three sentences of eight words a row; the last three words are quoted."""
    texts = []
    for row in range(N):
        found = np.random.default_rng([row, 5]).choice(VOCABULARY, size=24, replace=False).tolist()
        said = [" ".join(found[i : i + 8]) for i in (0, 8)]
        texts.append(f"{said[0]}. {said[1]}. {' '.join(found[16:21])} “{' '.join(found[21:])}”.")
    return texts


def reader_bench(rule: Callable[[str], np.ndarray] | None, **more: Any) -> Bench:
    """48 rows of 24 documents. A row's vector is what its text means, with noise."""
    texts = more.pop("texts", None) or explanations()
    noise = np.random.default_rng(3).standard_normal((len(texts), D))
    meant = np.stack([honest(text) for text in explanations()[: len(texts)]])
    vectors = more.pop("vectors", meant + noise)
    ar = None if rule is None else cast(Reconstructor, FakeAR(rule))
    given: dict[str, Any] = {
        "sources": [f"A source that ends in {' '.join(bare(text)[-4:])}" for text in texts],
        "documents": [f"d{i // 2}" for i in range(len(texts))],
        "vectors": vectors.astype(np.float32),
        "mean": mean_unit(vectors),
        "settings": {"profile": "full"},
        "folder": Path(),
        "ar": ar,
    }
    return text_bench(texts=texts, **(given | more))
