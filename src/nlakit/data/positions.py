"""Which positions of a document are read: drawn from those at which a character ends."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nlakit.config.sections import RunConfig
from nlakit.core.prompts import document_ids
from nlakit.core.text.characters import character_ends, last_tokens


@dataclass(frozen=True)
class Reading:
    """One document to read: its first tokens and the positions wanted."""

    doc_id: str
    source_family: str
    ids: list[int]
    positions: list[int]
    parsed: bool = False

    def shown(self, tokenizer: Any, position: int) -> tuple[str, str, str]:
        """Row id, text up to and including the position, and its token: with those before it where
        it takes several to make the character. Special tokens that were parsed are part of it, but
        for the BOS."""
        ids = self.ids[: position + 1]
        text = ids[1:] if ids[:1] == [tokenizer.bos_token_id] else ids
        prefix = tokenizer.decode(text, skip_special_tokens=not self.parsed)
        return f"{self.doc_id}:{position}", prefix, last_tokens(tokenizer, ids)


def draw_positions(doc_id: str, seed: int, among: Sequence[int], count: int) -> list[int]:
    """`count` of the ascending positions `among`, ascending, or all if there are fewer.

    Keyed on (seed, doc_id) alone: neither order, chunking nor sharding changes them.
    """
    if not among:
        return []
    key = hashlib.blake2b(f"{seed}:{doc_id}".encode(), digest_size=8).digest()
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    drawn = rng.choice(len(among), size=min(count, len(among)), replace=False)
    return sorted(among[int(place)] for place in drawn)


def prepare(tokenizer: Any, piece: pa.Table, config: RunConfig) -> list[Reading]:
    """Tokenise documents, draw positions, cut each document after its last position."""
    settings, readings, how = config.activations, [], config.corpus.special_tokens
    for row in piece.select(["doc_id", "source_family", "text"]).to_pylist():
        ids = document_ids(tokenizer, row["text"], how)[: settings.max_tokens]
        among = [p for p in character_ends(tokenizer, ids) if p >= settings.skip_first]
        count = settings.positions_per_document
        positions = draw_positions(row["doc_id"], config.seed, among, count)
        if positions:
            ids = ids[: positions[-1] + 1]
            made = Reading(row["doc_id"], row["source_family"], ids, positions, how == "parse")
            readings.append(made)
    return readings
