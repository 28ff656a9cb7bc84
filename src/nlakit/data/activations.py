"""Read the subject: layer K at drawn positions, raw float32, with an early exit.

No block above K runs unless the subject's expectation of the next token is asked for, and then
the vocabulary head sees the drawn positions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nlakit.config.sections import RunConfig
from nlakit.core.batches import batches_by_length
from nlakit.data.positions import Reading, prepare
from nlakit.errors import DataError, ModelError
from nlakit.files.parquet import VECTOR, read_table, vector_array, write_table
from nlakit.models.head import head_of
from nlakit.models.precision import check_finite
from nlakit.models.subject import (
    Subject,
    capture,
    check_layer,
    decoder_of,
    load_subject,
    sliced_decoder,
)
from nlakit.run.folder import Rows, RunDir
from nlakit.run.inputs import subject_files
from nlakit.run.progress import ticker
from nlakit.run.stage import stage


class Reader:
    """Activations, and optionally the likeliest next tokens, at positions of token sequences.

    Raises ModelError for a layer that the subject lacks, or more expected tokens than it knows.
    """

    def __init__(self, subject: Subject, layers: Sequence[int], expected: int) -> None:
        for layer in layers:
            check_layer(subject, layer)
        known = subject.model.get_input_embeddings().num_embeddings
        if expected > known:
            raise ModelError(
                "more tokens are expected than the subject knows",
                found=f"{expected} of {known}",
                do="lower activations.expected_tokens",
            )
        self.subject, self.layers, self.expected = subject, list(layers), expected
        self.decoder = (
            shared_full(subject) if expected else sliced_decoder(subject.model, max(layers) + 1)
        )

    @torch.no_grad()
    def read(
        self, ids: Sequence[Sequence[int]], positions: Sequence[Sequence[int]]
    ) -> tuple[dict[int, np.ndarray], list[list[int]], list[list[float]]]:
        """For b sequences: layer → `(n, d)` float32 over all positions in order, and for each
        position the ids and chances of the `expected` likeliest next tokens.

        Raises DataError if an activation is not finite, or a sequence is longer than the subject
        can read.
        """
        width = max(len(row) for row in ids)
        self.subject.check_length(width)
        padded = [[*row, *[0] * (width - len(row))] for row in ids]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in ids]
        device = self.subject.device
        rows = torch.tensor([r for r, found in enumerate(positions) for _ in found], device=device)
        columns = torch.tensor([p for found in positions for p in found], device=device)
        with capture(self.decoder, self.layers) as found:
            hidden = self.decoder(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                use_cache=False,
            )[0]
        vectors = {}
        for layer in self.layers:
            values = found[layer][rows, columns].float()
            check_finite(values, f"activations of layer {layer}", self.subject.config.precision)
            vectors[layer] = values.cpu().numpy()
        if not self.expected:
            return vectors, [[] for _ in rows], [[] for _ in rows]
        logits = head_of(self.subject.model).logits(hidden[rows, columns]).float()
        chances, tokens = torch.softmax(logits, dim=-1).topk(self.expected, dim=-1)
        return vectors, tokens.tolist(), [[round(c, 5) for c in row] for row in chances.tolist()]


def shared_full(subject: Subject) -> Any:
    """The subject's whole decoder, final norm included."""
    return decoder_of(subject.model)


@stage(
    "activations",
    parents=("corpus",),
    sections=("activations", "subject", "seed"),
    outside=subject_files,
)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write `part-NNNNN.parquet`, one a chunk of documents.

    Columns: row_id, doc_id, source_family, position, n_raw_tokens, activation_layer, token,
    detokenized_text_truncated, expected_tokens, expected_chances, activation_vector
    (and activation_vector_L{k} for extra layers).
    """
    settings = config.activations
    corpus = read_table(rundir.need("corpus") / "corpus.parquet")
    chunk = settings.documents_per_chunk
    starts = range(0, corpus.num_rows, chunk)
    reader: Reader | None = None
    with ticker("activations", corpus.num_rows, "documents") as progress:
        for number, start in enumerate(starts):
            target = folder / f"part-{number:05d}.parquet"
            piece = corpus.slice(start, chunk)
            if target.exists():
                progress.skip(piece.num_rows)
                continue
            if reader is None:
                layers = sorted({config.subject.layer, *settings.extra_layers})
                reader = Reader(load_subject(config.subject), layers, settings.expected_tokens)
            write_table(target, read_chunk(reader, piece, config))
            progress.advance(piece.num_rows)
    kept = read_table(folder, ["row_id"]).num_rows
    if not kept:
        raise DataError(
            "no document is long enough",
            found=f"none of {corpus.num_rows} has one to read behind {settings.skip_first} tokens",
            do="use longer documents, lower activations.skip_first, or read other roles",
        )
    asked = corpus.num_rows * settings.positions_per_document
    said = "words_read" if config.corpus.holds_conversations else "text"
    dropped = {f"position_beyond_the_{said}": asked - kept} if asked > kept else {}
    return Rows(entered=asked, kept=kept, dropped=dropped)


def read_chunk(reader: Reader, piece: pa.Table, config: RunConfig) -> pa.Table:
    """Activations of one chunk of documents, in the order of documents and positions."""
    settings, tokenizer = config.activations, reader.subject.tokenizer
    readings = prepare(tokenizer, piece, config)
    found: dict[int, tuple[Any, ...]] = {}
    for batch in batches_by_length([len(r.ids) for r in readings], settings.tokens_per_batch):
        picked = [readings[i] for i in batch]
        vectors, tokens, chances = reader.read(
            [r.ids for r in picked], [r.positions for r in picked]
        )
        start = 0
        for index, reading in zip(batch, picked, strict=True):
            end = start + len(reading.positions)
            own = {k: v[start:end] for k, v in vectors.items()}
            found[index] = (own, tokens[start:end], chances[start:end])
            start = end
    columns = _columns(readings, found, tokenizer, config.subject.layer)
    width = reader.subject.d_model
    for layer in reader.layers:
        name = VECTOR if layer == config.subject.layer else f"{VECTOR}_L{layer}"
        stacked = [found[i][0][layer] for i in range(len(readings))]
        empty = np.zeros((0, width), dtype=np.float32)
        columns[name] = vector_array(np.concatenate(stacked) if stacked else empty)
    return pa.table(columns)


def _columns(
    readings: Sequence[Reading], found: dict[int, tuple[Any, ...]], tokenizer: Any, layer: int
) -> dict[str, pa.Array]:
    lists: dict[str, list[Any]] = {name: [] for name in SCHEMA}
    for index, reading in enumerate(readings):
        _, tokens, chances = found[index]
        for nth, position in enumerate(reading.positions):
            row, prefix, token = reading.shown(tokenizer, position)
            lists["row_id"].append(row)
            lists["doc_id"].append(reading.doc_id)
            lists["source_family"].append(reading.source_family)
            lists["position"].append(position)
            lists["n_raw_tokens"].append(position + 1)
            lists["activation_layer"].append(layer)
            lists["token"].append(token)
            lists["detokenized_text_truncated"].append(prefix)
            lists["expected_tokens"].append([tokenizer.decode([t]) for t in tokens[nth]])
            lists["expected_chances"].append(chances[nth])
    return {name: pa.array(lists[name], type=kind) for name, kind in SCHEMA.items()}


SCHEMA = {
    "row_id": pa.string(),
    "doc_id": pa.string(),
    "source_family": pa.string(),
    "position": pa.int32(),
    "n_raw_tokens": pa.int32(),
    "activation_layer": pa.int32(),
    "token": pa.string(),
    "detokenized_text_truncated": pa.string(),
    "expected_tokens": pa.list_(pa.string()),
    "expected_chances": pa.list_(pa.float32()),
}
