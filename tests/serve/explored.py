"""A toy pair with rows and an evaluation beside it, as the explorer shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from fastapi import FastAPI

from nlakit.files.parquet import vector_array, write_table
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from nlakit.serve.settings import Settings
from tests.conftest import SMALL_LORA, D, build_contract

ROWS = 20
SCORE = {"mean": 0.6, "low": 0.5, "high": 0.7, "rows": 40, "documents": 20}
FLOOR = SCORE | {"mean": 0.02, "low": -0.1, "high": 0.1}
RESULTS: dict[str, Any] = {
    "verdict": {"word": "content-sensitive"},
    "scores": {"real": {"centred_cosine": SCORE}, "empty": {"centred_cosine": FLOOR}},
    "gains": {"centred_cosine": {"best_floor": "empty"}},
    "warnings": [{"message": "quotes are invented"}],
}


def toy_pair(subject: Any) -> NLA:
    """A pair of random weights; its ū is small, so that centring changes something."""
    contract = build_contract(subject)
    mean = np.random.default_rng(5).standard_normal(D) / 20
    av = Verbalizer(subject, contract, mean, SMALL_LORA, 0).eval()
    ar = Reconstructor(subject, contract, SMALL_LORA, 0).eval()
    return NLA(subject, av, ar, mean)


def beside(folder: Path, nla: NLA, results: Any = RESULTS) -> Path:
    """A folder as that of a pair, with `results.json` and training rows."""
    (folder / "av").mkdir(parents=True)
    nla.contract.write(folder / "av" / "nla_meta.yaml")
    (folder / "results.json").write_text(json.dumps(results))
    vectors = np.random.default_rng(6).standard_normal((ROWS, D)).astype(np.float32)
    table = {
        "doc_id": [f"doc-{row}" for row in range(ROWS)],
        "token": [" end"] * ROWS,
        "detokenized_text_truncated": [f"Source {row} has <b>an</b> end" for row in range(ROWS)],
        "api_explanation": [f"Label {row}." for row in range(ROWS)],
        "activation_vector": vector_array(vectors),
    }
    (folder / "rows").mkdir()
    write_table(folder / "rows" / "av.parquet", pa.table(table))
    return folder


def application(
    engines: dict[str, Engine], folder: Path, settings: Settings | None = None
) -> FastAPI:
    return create_app(engines, settings or Settings(rate=0), dict.fromkeys(engines, folder))
