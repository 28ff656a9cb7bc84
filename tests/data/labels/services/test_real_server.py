"""Labels by a real model behind a real server: llama.cpp on the packaged Gemma 3 270M."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic_ai import models

from nlakit.config.labels import LabelsConfig, RequestsConfig
from nlakit.data.labels.labeler import LabelRequest
from nlakit.data.labels.services.labeler import ServiceLabeler
from nlakit.files.parquet import read_table

ROWS = int(os.environ.get("NLAKIT_REAL_ROWS", "3"))
ROOT = Path(__file__).parents[4]


@pytest.fixture
def llama_server() -> Iterator[str]:
    command = [sys.executable, str(ROOT / "examples/llama_server.py"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()[-1]
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.mark.slow
def test_persona_and_audit_over_llama_cpp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama_server: str
) -> None:
    """NLAKIT_REAL_ROWS sets how many rows are labelled. The model is tiny: its answers are poor,
    the protocol, the constrained JSON and the counts are real."""
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)
    service = {
        "kind": "compatible", "base_url": llama_server, "model": "gemma-3-270m",
        "temperature": 0.7, "max_tokens": 400,
    }  # fmt: skip
    settings = LabelsConfig.model_validate(
        {"labeler": "services", "services": [service], "auditor": service | {"temperature": 0.2}}
    )
    corpus = read_table(ROOT / "src/nlakit/data/demo/corpus.parquet", ["text"])["text"].to_pylist()
    texts = [text[: 300 + 10 * (n % 30)].rsplit(" ", 1)[0] for n, text in enumerate(corpus[:ROWS])]
    asked = [LabelRequest(f"r{n}", text, text.split()[-1]) for n, text in enumerate(texts)]
    requests = RequestsConfig(concurrency=2, timeout=300.0)
    labeler = ServiceLabeler(settings, requests, tmp_path / "a.sqlite", "run", ROWS)
    try:
        labels = labeler.label(asked)
        spent = labeler.ledger.spent()
    finally:
        labeler.close()
    assert [label.row_id for label in labels] == [request.row_id for request in asked]
    for label in labels:
        assert (label.explanation is None) == (label.reason is not None)
        assert label.labeler_model == label.auditor_model == "compatible:gemma-3-270m"
        assert label.cost is None  # nobody priced it
        assert label.attempts
        if label.explanation:
            assert label.verdict in ("KEEP", "REVISE")
            assert label.audit_score is not None
            assert label.tokens_in
            assert label.tokens_out
    assert spent.requests == sum(label.attempts or 0 for label in labels)
