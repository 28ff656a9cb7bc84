"""Templates, the marker, and the token checks that keep training and use on the same ids."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from nlakit.errors import ConfigError, ContractError, DataError

# Enclosed CJK characters: common enough to be single tokens, rare enough to never occur by chance.
MARKER_CANDIDATES = "㊗㈜㈎㊙㈱㋡㊣㎡℡♀☯◉※"
# Symbols that cannot be markers: those of ASCII, and what stands for part of a character.
PLAIN = "$+<=>^`|~\N{REPLACEMENT CHARACTER}"


def encode(tokenizer: Any, text: str, *, special: bool, parse: bool = False) -> list[int]:
    """Token ids of a text; `special` adds what the tokenizer puts in front (BOS). With `parse`, a
    `<eos>` or `<start_of_turn>` that is written in the text is that token, else it is letters:
    templates are their author's, everything else is text.

    Raises DataError for half a surrogate pair, as a command line of another encoding leaves it.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(
            "a text is no valid Unicode", found=ascii(text[:60]), do="write it in UTF-8"
        )
    made = tokenizer(text, add_special_tokens=special, split_special_tokens=not parse)
    return list(made["input_ids"])


def document_ids(tokenizer: Any, text: str, special_tokens: str) -> list[int]:
    """Token ids of a text that the subject reads, with what the tokenizer puts in front.
    special_tokens: `text` or `parse`; a parsed text that brings its own BOS gets no second one."""
    ids = encode(tokenizer, text, special=True, parse=special_tokens == "parse")
    twice = special_tokens == "parse" and ids[:2] == [tokenizer.bos_token_id] * 2
    return ids[1:] if twice else ids


def ar_ids(tokenizer: Any, template: str, explanation: str, bos: bool = True) -> list[int]:
    """Token ids of an AR prompt, with what the tokenizer puts in front unless `bos` is false:
    special tokens of the template are parsed, never those that an explanation spells."""

    def spells_some(text: str) -> bool:
        ids = encode(tokenizer, text, special=False)
        return ids != encode(tokenizer, text, special=False, parse=True)

    parse = spells_some(template)
    if parse and spells_some(explanation):
        head, tail = template.split("{explanation}")
        middle = encode(tokenizer, explanation, special=False)
        before = encode(tokenizer, head, special=bos, parse=True)
        return [*before, *middle, *encode(tokenizer, tail, special=False, parse=True)]
    prompt = template.replace("{explanation}", explanation)
    return encode(tokenizer, prompt, special=bos, parse=parse)


def find_marker(tokenizer: Any, template: str, texts: Sequence[str] = ()) -> str:
    """The first candidate that is one token of its own inside the AV template and occurs in none of
    `texts`: enclosed CJK characters, then the symbols of the tokenizer's own vocabulary, the rarest
    first. If all of them occur there, the first.

    Raises ContractError if there is none, or no place for one in the template.
    """
    if template.count("{marker}") != 1 or not all(template.split("{marker}")):
        raise ContractError(
            "no marker fits: the AV template must hold {marker} once, between other text",
            found=repr(template),
            do="mend tables.av_template",
        )
    tried, found = 0, None
    for marker in chain(MARKER_CANDIDATES, rare_symbols(tokenizer)):
        try:
            marker_neighbours(tokenizer, template, marker)
        except ContractError:
            tried += 1
            continue
        if not any(marker in text for text in texts):
            return marker
        found = found or marker
    if found:
        return found
    raise ContractError(
        "no marker is a single token of this tokenizer",
        found=f"tried {MARKER_CANDIDATES} and all symbols of the vocabulary, {tried} in all",
        do="set tables.marker to a rare character that is one token",
    )


def rare_symbols(tokenizer: Any) -> Iterator[str]:
    """Single symbols that are tokens, from the highest id down: vocabularies are ordered by
    frequency."""
    special = set(tokenizer.all_special_ids)
    for token in sorted(set(tokenizer.get_vocab().values()) - special, reverse=True):
        text = tokenizer.decode([token])
        if len(text) != 1 or unicodedata.category(text)[0] != "S" or text in PLAIN:
            continue
        if encode(tokenizer, text, special=False, parse=True)[-1] == token:
            yield text


def marker_neighbours(tokenizer: Any, template: str, marker: str) -> tuple[int, int, int]:
    """Ids of the marker's left neighbour, the marker, and its right neighbour in the AV prompt.

    Raises ContractError unless the marker is exactly one token both alone and in context.
    """
    alone = encode(tokenizer, marker, special=False, parse=True)
    # Llama's and Mistral's first tokenizers put a space before every text. A normaliser may make
    # the marker another, common character: the round trip tells.
    if not marker or tokenizer.decode(alone[-1:]) != marker or tokenizer.decode(alone[:-1]).strip():
        raise ContractError(
            f"the marker {marker!r} is not one token of this tokenizer",
            found=f"ids {alone}",
            do="choose another character, or leave tables.marker unset to search for one",
        )
    token = alone[-1]
    ids = encode(tokenizer, template.replace("{marker}", marker), special=True, parse=True)
    at = [i for i, found in enumerate(ids) if found == token]
    if len(at) != 1 or at[0] == 0 or at[0] == len(ids) - 1:
        raise ContractError(
            f"the marker {marker!r} must stand once inside the AV prompt",
            found=f"{len(at)} occurrences among {len(ids)} tokens",
            do="put {marker} once, between other text, into tables.av_template",
        )
    return ids[at[0] - 1], token, ids[at[0] + 1]


def holds_marker(tokenizer: Any, marker: str, text: str) -> bool:
    """Whether the marker occurs in a text, or the tokenizer makes it from another character
    there."""
    token = encode(tokenizer, marker, special=False, parse=True)[-1]
    return marker in text or token in encode(tokenizer, text, special=False)


def suffix_ids(tokenizer: Any, template: str) -> list[int]:
    """Ids with which every AR prompt ends, whatever the explanation: the template's tail after
    `{explanation}`, less what merges with the text before it.

    Raises ContractError if nothing is left: the AR then has no fixed token to read from.
    """
    if "{explanation}" not in template:
        raise ContractError(
            "the AR template has no {explanation}",
            found=template,
            do="write {explanation} into tables.ar_template",
        )
    samples = ("", "a", "one two.", 'He said "no"', "x = 1;", "!?", "\n")
    encoded = [
        encode(tokenizer, template.replace("{explanation}", sample), special=True, parse=True)
        for sample in samples
    ]
    shortest = min(len(ids) for ids in encoded)
    length = 0
    while length < shortest and len({ids[-1 - length] for ids in encoded}) == 1:
        length += 1
    # The template's head is shared too: the tail cannot be longer than the text after the slot.
    tail = encode(tokenizer, template.split("{explanation}")[1], special=False, parse=True)
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


def check_room(max_tokens: int, taken: int, by: str) -> None:
    """Raise ConfigError unless there is room beside the `taken` tokens, which are always there."""
    if max_tokens <= taken:
        raise ConfigError(
            f"max_tokens leave no room for text: {by} take {taken}",
            found=f"max_tokens {max_tokens}",
            do=f"set it to {taken + 1} or more",
        )
