"""Words without their inflection, so that `libraries` and `library` count as one."""

from __future__ import annotations

import re
from functools import cache

from nlakit.core.text.claims import bare

VOWELS = "aeiou"


@cache
def stem(word: str) -> str:
    """The stem of a word: case and possessive go, and from words of ASCII letters what inflects
    them in English: plural, -ed, -ing, final y and e (steps 1 and 5a of Porter, Program 1980).

    Words of one stem are `library` and `libraries`, `build`, `builds` and `building`, `serve`,
    `served` and `serving`; not `nation` and `national`. Other scripts keep their whole words.
    """
    word = bare(word)
    if len(word) < 3 or not (word.isascii() and word.isalpha()):
        return word
    word = _without_past(_without_plural(word))
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = f"{word[:-1]}i"
    if word.endswith("e"):
        rest = word[:-1]
        if _measure(rest) > 1 or (_measure(rest) == 1 and not _short_end(rest)):
            return rest
    return word


def _without_plural(word: str) -> str:
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_past(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        rest = word.removesuffix(ending)
        if rest == word:
            continue
        if not _has_vowel(rest):
            return word
        if rest.endswith(("at", "bl", "iz")):
            return f"{rest}e"
        if len(rest) > 1 and rest[-1] == rest[-2] and rest[-1] not in f"{VOWELS}lsz":
            return rest[:-1]
        return f"{rest}e" if _measure(rest) == 1 and _short_end(rest) else rest
    return word


def _kinds(word: str) -> str:
    """A letter's kind each: v for a vowel, c for a consonant; a y behind a consonant is a vowel."""
    kinds = ""
    for letter in word:
        vowel = letter in VOWELS or (letter == "y" and kinds.endswith("c"))
        kinds += "v" if vowel else "c"
    return kinds


def _measure(word: str) -> int:
    """How often consonants follow vowels: Porter's m."""
    return len(re.findall("v+c+", _kinds(word)))


def _has_vowel(word: str) -> bool:
    return "v" in _kinds(word)


def _short_end(word: str) -> bool:
    """Whether it ends in consonant, vowel, consonant, the last none of w, x, y: Porter's *o."""
    return _kinds(word).endswith("cvc") and word[-1] not in "wxy"
