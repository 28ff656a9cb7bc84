"""Sentence embeddings: order, windows, and models that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig

from nlakit.errors import ModelError
from nlakit.evaluate import embedding
from tests.conftest import VOCAB, toy_tokenizer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=300,
    )  # fmt: skip
    AutoModel.from_config(config).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def test_rows_keep_their_order_and_have_norm_one(encoder: Path) -> None:
    embed = embedding.embedder(str(encoder))
    assert embed is not None
    texts = ["a long text about whales and the sea", "tax", "", "a garden"]
    found = embed(texts)
    assert found.shape == (4, 16)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    for row, text in zip(found, texts, strict=True):
        assert embed([text])[0] == pytest.approx(row, abs=1e-5)
    assert embed([]).shape == (0, 16)


def test_a_long_text_is_read_to_its_end(encoder: Path) -> None:
    embed = embedding.embedder(str(encoder))
    assert embed is not None
    start = "the same words for a while " * 30  # 810 tokens, a letter each
    first, second = embed([start + "whales" * 40, start + "ledger" * 40])
    assert not np.allclose(first, second, atol=1e-4)


def test_a_model_that_cannot_embed_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot embed sentences"):
        embedding.embedder(str(tmp_path / "nothing"))


def test_without_the_package_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PACKAGE", "a_package_that_is_not_there")
    assert embedding.embedder(None) is None


def test_the_packaged_model_knows_what_is_alike() -> None:
    pytest.importorskip(embedding.PACKAGE)
    embed = embedding.embedder(None)
    assert embed is not None
    whale, sea, tax = embed(["A whale dives.", "The sea is deep.", "Tax is due in April."])
    assert whale @ sea > whale @ tax + 0.1
