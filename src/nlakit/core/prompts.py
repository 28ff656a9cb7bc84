"""Templates, the marker, and the token checks that keep training and use on the same ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nlakit.errors import ContractError

# Enclosed CJK characters: common enough to be single tokens, rare enough to never occur by chance.
MARKER_CANDIDATES = "㊗㈜㈎㊙㈱㋡㊣㎡℡♀☯◉※"


def encode(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """Token ids of a text; `special` adds what the tokenizer puts in front (BOS)."""
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])


def find_marker(tokenizer: Any, template: str) -> str:
    """The first candidate that is one token of its own inside the AV template.

    Raises ContractError if there is none.
    """
    for marker in MARKER_CANDIDATES:
        try:
            marker_neighbours(tokenizer, template, marker)
        except ContractError:
            continue
        return marker
    raise ContractError(
        "no marker is a single token of this tokenizer",
        found=f"tried {' '.join(MARKER_CANDIDATES)}",
        do="set tables.marker to a rare character that is one token",
    )


def marker_neighbours(tokenizer: Any, template: str, marker: str) -> tuple[int, int, int]:
    """Ids of the marker's left neighbour, the marker, and its right neighbour in the AV prompt.

    Raises ContractError unless the marker is exactly one token both alone and in context.
    """
    alone = encode(tokenizer, marker, special=False)
    if len(alone) != 1 or alone[0] == getattr(tokenizer, "unk_token_id", None):
        raise ContractError(
            f"the marker {marker!r} is not one token of this tokenizer",
            found=f"ids {alone}",
            do="choose another character, or leave tables.marker unset to search for one",
        )
    ids = encode(tokenizer, template.replace("{marker}", marker), special=True)
    at = [i for i, token in enumerate(ids) if token == alone[0]]
    if len(at) != 1 or at[0] == 0 or at[0] == len(ids) - 1:
        raise ContractError(
            f"the marker {marker!r} must stand once inside the AV prompt",
            found=f"{len(at)} occurrences among {len(ids)} tokens",
            do="put {marker} once, between other text, into tables.av_template",
        )
    return ids[at[0] - 1], alone[0], ids[at[0] + 1]


def suffix_ids(tokenizer: Any, template: str) -> list[int]:
    """Ids with which every AR prompt ends, whatever the explanation: the template's tail after
    `{explanation}`, less what merges with the text before it.

    Raises ContractError if nothing is left: the AR then has no fixed token to read from.
    """
    if "{explanation}" not in template:
        raise ContractError("the AR template has no {explanation}", found=template)
    samples = ("", "a", "one two.", 'He said "no"', "x = 1;", "!?", "\n")
    encoded = [
        encode(tokenizer, template.replace("{explanation}", sample), special=True)
        for sample in samples
    ]
    shortest = min(len(ids) for ids in encoded)
    length = 0
    while length < shortest and len({ids[-1 - length] for ids in encoded}) == 1:
        length += 1
    # The template's head is shared too: the tail cannot be longer than the text after the slot.
    tail = encode(tokenizer, template.split("{explanation}")[1], special=False)
    length = min(length, len(tail))
    if length == 0:
        raise ContractError(
            "the AR template does not end in fixed tokens",
            found=repr(template),
            do="end it with a closing tag that the tokenizer keeps apart",
        )
    return encoded[0][-length:]


def check_suffix(ids: Sequence[int], suffix: Sequence[int]) -> None:
    """Raise ContractError unless a prompt's ids end in the AR's suffix ids."""
    if list(ids[-len(suffix) :]) != list(suffix):
        raise ContractError(
            "an AR prompt does not end in the suffix of its contract",
            found=f"{list(ids[-len(suffix) :])} instead of {list(suffix)}",
            do="the tokenizer differs from the one the AR was trained with",
        )
