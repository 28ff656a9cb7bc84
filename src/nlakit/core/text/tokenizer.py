"""What a tokenizer must do for texts to be read as the model was trained: give them back, and begin
them as the model knows beginnings."""

from __future__ import annotations

import difflib
from typing import Any

from nlakit.core.prompts import encode
from nlakit.errors import ConfigError, ModelError

SAMPLE = (
    "The library opened at nine. A woman with two children returned seven books, asked for a map "
    "of the river, and sat down near the window to read the newspaper until it began to rain."
)
SCRIPTS = "naïve Ärger, 3.14 €: 日本語 שלום مرحبا 👩"
NEAR = 0.9  # share of the letters; what is decoded may lack a first space or be in lower case


def check_round_trip(tokenizer: Any, name: str) -> bool:
    """Whether texts of other scripts come back too. Raises ModelError if plain English does not."""
    back = tokenizer.decode(encode(tokenizer, SAMPLE, special=False))
    same = difflib.SequenceMatcher(None, back.casefold(), SAMPLE.casefold(), autojunk=False).ratio()
    if same < NEAR:
        raise ModelError(
            f"the tokenizer of {name} does not give texts back",
            found=f"{back[:40]!r} instead of {SAMPLE[:40]!r}",
            do="name a checkpoint with the tokenizer that it was trained with",
        )
    return tokenizer.decode(encode(tokenizer, SCRIPTS, special=False)).strip() == SCRIPTS


def begins_with_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer has a BOS and puts it before a text by itself."""
    bos = tokenizer.bos_token_id
    return bos is not None and encode(tokenizer, "a", special=True)[:1] == [bos]


def put_bos(tokenizer: Any) -> None:
    """Make the tokenizer put its BOS before every text, ahead of what it puts there already; saving
    the tokenizer keeps the change.

    Raises ConfigError if it has none, or is not a tokenizer of the tokenizers library.
    """
    from tokenizers.processors import TemplateProcessing

    bos, backend = tokenizer.bos_token, getattr(tokenizer, "backend_tokenizer", None)
    if bos is None or backend is None:
        raise ConfigError(
            "subject.bos: add needs a tokenizer with a BOS that can be put before texts",
            found=f"bos_token {bos}, {type(tokenizer).__name__}",
            do="set subject.bos: tokenizer",
        )
    plain, full = (encode(tokenizer, "a", special=special) for special in (False, True))
    behind = full[len(plain) :] if full[: len(plain)] == plain else []
    names = tokenizer.convert_ids_to_tokens(behind)
    known = {bos: tokenizer.bos_token_id, **dict(zip(names, behind, strict=True))}
    # One template: of processors in a row, each takes what the one before it added for text.
    backend.post_processor = TemplateProcessing(
        single=[bos, "$A", *names],
        pair=[bos, "$A", *names, bos, "$B", *names],
        special_tokens=list(known.items()),
    )
