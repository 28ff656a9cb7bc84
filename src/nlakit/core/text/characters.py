"""Which tokens end a whole character. Tokenizers that work on bytes make several tokens of one
character that is not in their vocabulary: an emoji, a letter of Hebrew, Arabic or Japanese."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"  # what decoding gives for bytes that are no whole character
LONGEST = 8  # tokens a character; UTF-8 has at most four bytes, each a token at most


def character_ends(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Ascending positions, among t token ids, at which a character ends.

    A U+FFFD of the text itself is taken for a broken character: nothing can be said of it.
    """
    if tokenizer.decode(list(ids)).isascii():
        return list(range(len(ids)))
    alone = {token: tokenizer.decode([token]) for token in set(ids)}
    ends, start = [], 0
    for position, token in enumerate(ids):
        # What is whole alone starts no character that another token ends.
        whole = BROKEN not in alone[token]
        if whole or not tokenizer.decode(list(ids[start : position + 1])).endswith(BROKEN):
            ends.append(position)
            start = position + 1
    return ends


def cut_whole(tokenizer: Any, ids: Sequence[int], count: int) -> list[int]:
    """The first `count` token ids, less those that begin a character which others would end."""
    kept = list(ids[:count])
    if len(ids) <= count:
        return kept
    ends = character_ends(tokenizer, kept)
    return kept[: ends[-1] + 1] if ends else []


def last_tokens(tokenizer: Any, ids: Sequence[int], count: int = 1) -> str:
    """The text of the last `count` tokens, and of those before them that a character needs."""
    for more in range(LONGEST):
        text = tokenizer.decode(list(ids[-count - more :]))
        if BROKEN not in text:
            return text
    return tokenizer.decode(list(ids[-count:]))


def spelled(tokenizer: Any, ids: Sequence[int]) -> list[tuple[str, int, int]]:
    """The text of each of t tokens, its place among the tokens of one character, and their number.
    A token of part of a character has the whole character's text; what is no character at all
    stands alone as U+FFFD."""
    made: list[tuple[str, int, int]] = []
    ends = {*character_ends(tokenizer, ids), len(ids) - 1}
    start = 0
    for end in sorted(ends) if ids else []:
        run = list(ids[start : end + 1])
        text = tokenizer.decode(run)
        if len(run) > 1 and BROKEN in text:
            made += [(tokenizer.decode([token]), 0, 1) for token in run]
        else:
            made += [(text, place, len(run)) for place in range(len(run))]
        start = end + 1
    return made
