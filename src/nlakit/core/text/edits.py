"""Edits of an explanation: words exchanged in it, and the words that came in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nlakit.core.prompts import encode
from nlakit.core.text.claims import stop_words
from nlakit.core.text.stats import WORD
from nlakit.errors import DataError


def exchanged(text: str, edits: Mapping[str, str]) -> str:
    """The text with each old piece exchanged for the new one, wherever it stands as whole words, in
    any case; one edit after the other. Raises DataError for a piece that stands nowhere."""
    for old, new in edits.items():
        left = r"(?<!\w)" if re.match(r"\w", old) else ""
        right = r"(?!\w)" if re.search(r"\w$", old) else ""
        pattern = left + re.escape(old) + right
        if not old.strip() or not re.search(pattern, text, re.IGNORECASE):
            raise DataError(
                f"the explanation does not have {old!r}",
                found=text,
                do="name words that stand in it",
            )
        text = re.sub(pattern, lambda _, new=new: new, text, flags=re.IGNORECASE)
    return text


def edited_in(original: str, edited: str) -> list[str]:
    """Words that stand in `edited` and not in `original`, each once, as written there: content
    words, or where none of them is one, all."""
    known = {match.group().casefold() for match in WORD.finditer(original)}
    found: dict[str, str] = {}
    for match in WORD.finditer(edited):
        found.setdefault(match.group().casefold(), match.group())
    new = [word for folded, word in found.items() if folded not in known]
    return [word for word in new if word.casefold() not in stop_words()] or new


def first_token(tokenizer: Any, word: str) -> int:
    """The id with which a word begins behind another word: its first token that shows anything."""
    alone = encode(tokenizer, "a", special=False)
    ids = encode(tokenizer, f"a {word}", special=False)
    behind = ids[len(alone) :] if ids[: len(alone)] == alone else ids
    return next((one for one in behind if tokenizer.decode([one]).strip()), behind[-1])


def telling_words(tokenizer: Any, original: str, edited: str) -> dict[str, int]:
    """Edited-in words → their first tokens, without words that begin with the token of another one,
    or of a word of `original`: those tokens say nothing of the edit."""
    taken = {first_token(tokenizer, match.group()) for match in WORD.finditer(original)}
    found: dict[str, int] = {}
    for word in edited_in(original, edited):
        token = first_token(tokenizer, word)
        if token not in taken:
            taken.add(token)
            found[word] = token
    return found


def parse_edits(given: Sequence[str]) -> dict[str, str]:
    """`old=new` lines as a mapping. Raises DataError for another form."""
    found: dict[str, str] = {}
    for one in given:
        old, mark, new = one.partition("=")
        if not mark or not old.strip():
            raise DataError("an edit is old=new", found=repr(one), do="for example whale=ledger")
        found[old.strip()] = new.strip()
    return found
