"""A synthetic evaluation, written by the battery itself with a reconstructor that is a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlakit.config.sections import EvalConfig
from nlakit.core.metrics import mean_unit
from nlakit.evaluate import battery
from nlakit.evaluate.bench import Bench
from nlakit.files.rows import TableRows

PROVENANCE = {
    "pair": "ab" * 32,
    "git_commit": "abc123",
    "versions": {"nlakit": "0.1.0"},
    "base_model": "owner/subject",
    "layer": 1,
    "data_sha256": {"test": "cd" * 32},
}
WIDTH = 16


class Words:
    """A tokenizer that splits at spaces."""

    def __call__(self, text: str, add_special_tokens: bool = False, **_: Any) -> dict[str, Any]:
        return {"input_ids": text.split(" ")}

    def decode(self, words: list[str]) -> str:
        return " ".join(words)


class Table:
    """A reconstructor that knows some texts' vectors, and answers all others alike."""

    tokenizer = Words()

    def __init__(self, known: dict[str, np.ndarray]) -> None:
        self.known = known

    def reconstruct(self, texts: list[str]) -> np.ndarray:
        lost = 3 * np.eye(WIDTH)[0] + 0.3 * np.eye(WIDTH)[1]
        return np.stack([self.known.get(text, lost) for text in texts]).astype(np.float32)


def toy_rows(count: int = 30, seed: int = 0, prefix: str = "r") -> TableRows:
    """Two rows a document; sources with what could break a card's tables and fences."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, WIDTH)) + 3 * np.eye(WIDTH)[0]
    return TableRows(
        row_ids=[f"{prefix}{i}" for i in range(count)],
        doc_ids=[f"{prefix}doc{i // 2}" for i in range(count)],
        texts=[f"label {i}" for i in range(count)],
        sources=["word " * 90 + f"``` | <b> last{i}" for i in range(count)],
        families=[("news", "code")[i // 2 % 2] for i in range(count)],
        tokens=["x"] * count,
        positions=[50 + i for i in range(count)],
        vectors=vectors.astype(np.float32),
    )


def write_toy(
    folder: Path,
    noise: float = 0.6,
    rows: TableRows | None = None,
    day: str = "2026-11-24",
    **provenance: Any,
) -> Path:
    """An evaluation's folder; less noise makes a better pair. The second row's text is empty."""
    rows = rows or toy_rows()
    texts = [f"explanation {i}" for i in range(len(rows))]
    texts[1] = ""
    rng = np.random.default_rng(1)
    drawn = rng.standard_normal(rows.vectors.shape)
    known = dict(zip(texts, rows.vectors + noise * drawn, strict=True))
    known |= dict(zip(rows.texts, rows.vectors + 0.3 * drawn, strict=True))
    del known[""]
    folder.mkdir(parents=True, exist_ok=True)
    settings = EvalConfig(rows=len(rows), permutations=50)
    mean = mean_unit(toy_rows(200, seed=5).vectors)
    bench = Bench(rows, texts, mean, settings, 7, folder, ar=Table(known))  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(battery, "wanted", lambda bench: ["roundtrip"])
        battery.write_evaluation(bench, {**PROVENANCE, **provenance})
    begin = {"started": f"{day}T10:00:00+00:00"}
    (folder / "begin.json").write_text(json.dumps(begin), encoding="utf-8")
    return folder
