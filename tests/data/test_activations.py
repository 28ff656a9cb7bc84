"""Extraction: positions, layers, early exit, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from nlakit.config.load import parse_config
from nlakit.core.prompts import encode
from nlakit.data.activations import Reader, read_chunk
from nlakit.errors import DataError, ModelError
from nlakit.files.parquet import matrix
from nlakit.models.subject import blocks_of, decoder_of

TEXTS = [f"Document {i}: " + "the quick brown fox jumps over it. " * (2 + i) for i in range(6)]


def build_config(**overrides: Any) -> Any:
    given: dict[str, Any] = {
        "name": "t",
        "subject": {"layer": 1},
        "activations": {"positions_per_document": 3, "max_tokens": 150, "expected_tokens": 2},
    }
    return parse_config(given | overrides)


def build_piece(texts: list[str] = TEXTS) -> pa.Table:
    ids = [f"d{i}" for i in range(len(texts))]
    return pa.table({"doc_id": ids, "source_family": ["f"] * len(ids), "text": texts})


def test_vectors_are_the_full_models_hidden_states(toy_subject: Any) -> None:
    subject = toy_subject("llama", 1)
    config = build_config()
    reader = Reader(subject, [1, 2], 2)
    table = read_chunk(reader, build_piece(), config)
    assert table.num_rows > 10
    vectors, extra = matrix(table), matrix(table, "activation_vector_L2")
    texts = dict(zip(build_piece()["doc_id"].to_pylist(), TEXTS, strict=True))
    for row, record in enumerate(table.to_pylist()):
        ids = encode(subject.tokenizer, texts[record["doc_id"]], special=True)[:150]
        with torch.no_grad():
            out = subject.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        place = record["position"]
        assert np.allclose(vectors[row], out.hidden_states[2][0, place], atol=1e-4)
        assert np.allclose(extra[row], out.hidden_states[3][0, place], atol=1e-4)
        chances, tokens = torch.softmax(out.logits[0, place], -1).topk(2)
        expected = [subject.tokenizer.decode([t]) for t in tokens]
        assert record["expected_tokens"] == expected
        assert record["expected_chances"] == pytest.approx(chances.tolist(), abs=1e-4)
        assert record["detokenized_text_truncated"] == subject.tokenizer.decode(
            ids[: place + 1], skip_special_tokens=True
        )


def test_no_block_above_k_runs(toy_subject: Any) -> None:
    subject = toy_subject("gemma3", 1)
    reader = Reader(subject, [1], 0)
    assert len(blocks_of(reader.decoder)) == 2
    assert len(blocks_of(decoder_of(subject.model))) == 4
    table = read_chunk(reader, build_piece(), build_config())
    assert table["expected_tokens"].to_pylist()[0] == []


def test_chunks_and_order_change_nothing(toy_subject: Any) -> None:
    subject = toy_subject("gemma3", 1)
    reader, config = Reader(subject, [1], 0), build_config()
    whole = read_chunk(reader, build_piece(), config)
    parts = [read_chunk(reader, build_piece().slice(i, 2), config) for i in (0, 2, 4)]
    joined = pa.concat_tables(parts)
    assert joined["row_id"].to_pylist() == whole["row_id"].to_pylist()
    assert np.allclose(matrix(joined), matrix(whole), atol=1e-4)


def test_not_finite_activations_are_an_error(toy_subject: Any) -> None:
    subject = toy_subject("llama", 1)
    with torch.no_grad():
        blocks_of(decoder_of(subject.model))[0].mlp.down_proj.weight.fill_(float("inf"))
    with pytest.raises(DataError, match="not finite"):
        Reader(subject, [1], 0).read([[2, 30, 40, 50]], [[2]])


def test_more_tokens_than_the_subject_knows_are_an_error(toy_subject: Any) -> None:
    subject = toy_subject()
    known = subject.model.get_input_embeddings().num_embeddings
    Reader(subject, [1], known)
    with pytest.raises(ModelError, match=f"{known + 1} of {known}"):
        Reader(subject, [1], known + 1)


def test_vector_columns(tmp_path: Any) -> None:
    from nlakit.files.parquet import read_table, vector_array, write_table

    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_table(tmp_path / "v.parquet", {"activation_vector": vector_array(vectors)})
    table = read_table(tmp_path / "v.parquet")
    assert str(table.schema.field(0).type) == "fixed_size_list<element: float>[3]"
    assert np.array_equal(matrix(table), vectors)
    assert np.array_equal(matrix(table.slice(1, 2)), vectors[1:3])
    lists = pa.table({"activation_vector": [[1.0, 2.0], [3.0, 4.0]]})
    assert matrix(lists).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="different width"):
        matrix(pa.table({"activation_vector": [[1.0], [1.0, 2.0]]}))
    with pytest.raises(DataError, match="no column"):
        matrix(pa.table({"x": [1]}))
    with pytest.raises(DataError, match="no vectors"):
        matrix(pa.table({"activation_vector": [1]}))
    (tmp_path / "v.parquet").write_bytes((tmp_path / "v.parquet").read_bytes()[:-20])
    with pytest.raises(DataError, match="truncated"):
        read_table(tmp_path / "v.parquet")
