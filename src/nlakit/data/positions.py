"""Which positions of a document are read: drawn from those at which a character ends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nlakit.config.sections import RunConfig
from nlakit.core.prompts import document_ids
from nlakit.core.text.characters import character_ends, last_tokens
from nlakit.core.text.messages import Conversation
from nlakit.errors import DataError
from nlakit.models.using.reading import Tokens, tokens_of
from nlakit.run.progress import say

SPEAKING = ("assistant",)  # whose words are read in a conversation unless settings say so


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
    """Tokenise documents, draw positions, cut each document after its last position. A conversation
    that the subject's template refuses is not read."""
    settings, readings = config.activations, []
    for row in piece.to_pylist():
        try:
            tokens = document_tokens(tokenizer, row, config)
        except DataError as error:
            if not row.get("messages"):
                raise
            say(f"{row['doc_id']} is not read: {error}")
            continue
        ids = tokens.ids[: settings.max_tokens]
        among = [p for p in character_ends(tokenizer, ids) if p >= settings.skip_first]
        if tokens.spans is not None:
            roles = settings.roles or SPEAKING
            among = [p for p in among if tokens.spans[p].voice in roles]
        count = settings.positions_per_document
        positions = draw_positions(row["doc_id"], config.seed, among, count)
        if positions:
            ids = ids[: positions[-1] + 1]
            parsed = tokens.spans is not None or config.corpus.special_tokens == "parse"
            made = Reading(row["doc_id"], row["source_family"], ids, positions, parsed)
            readings.append(made)
    return readings


def document_tokens(tokenizer: Any, row: Mapping[str, Any], config: RunConfig) -> Tokens:
    """The tokens of a document of the corpus, in the subject's template if it is a conversation.
    Errors as in `tokens_of`."""
    if not row.get("messages"):
        return Tokens(
            row["text"], document_ids(tokenizer, row["text"], config.corpus.special_tokens)
        )
    talk = Conversation(json.loads(row["messages"]), template=config.corpus.chat_template)
    return tokens_of(tokenizer, talk, name=config.subject.model)
