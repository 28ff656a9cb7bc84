"""Other texts made from a text by rule: its order, parts, quotes, copies or names changed.

Each tells what a reader of the text depends on. Those that draw at random take a generator, so that
a seed decides them. Pieces are joined by single spaces; no form of the text is presumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from nlakit.core.prompts import encode
from nlakit.core.text.characters import character_ends
from nlakit.core.text.lists import movable_items
from nlakit.core.text.stats import WORD, words

COPIED_RUN = 3  # words in a row; shorter runs are shared by chance
# A text that was cut at its token limit leaves the last quote open: it is a quote all the same.
QUOTED = re.compile(
    r"“[^”]*(?:”|$)|„[^“”]*(?:[“”]|$)|«[^»]*(?:»|$)|「[^」]*(?:」|$)|\"[^\"\n]*\"|`[^`\n]*`"
    r"|(?<!\w)[‘'](?:[^‘’'\n]|(?<=\w)[’'](?=\w))+[’'](?!\w)"
)
CLOSING = r"[”’\"')\]»」]*"
SENTENCE_END = re.compile(rf"[.!?…]+{CLOSING}\s+|[。！？]+|\n+")
CONJUNCTIONS = "and|or|but|because|while|which|who|that|so|if|when|where"
CLAUSE_END = re.compile(
    rf"[,;:.!?…]+{CLOSING}\s+|\s+[–—-]\s+|[。！？，；：、]+|\n+|\s+(?=(?:{CONJUNCTIONS})\b)"
)
NUMBER_OR_NAME = re.compile(r"\d+|(?<!\w)[^\W\d_][^\W\d_]+(?:['’-][^\W\d_]+)*")
BEFORE_CAPITAL = ".!?:…“„«\"'‘(`"
NAMES = (
    *"Aldous Brixton Calder Dunmore Elstree Farrow Gilroy Hartwell Ivers Jessop Kelmscott".split(),
    *"Lorimer Marlowe Norbury Ormond Prescott Quimby Renshaw Selwyn Tarrant Upton Verity".split(),
)


def sentences(text: str) -> list[str]:
    """The sentences of a text; a quote is never split. Lines end a sentence, and so do
    abbreviations."""
    return _split(text, SENTENCE_END)


def clauses(text: str) -> list[str]:
    """The text split at punctuation, dashes and before conjunctions, never inside a quote."""
    return _split(text, CLAUSE_END)


def _split(text: str, end: re.Pattern[str]) -> list[str]:
    quotes = [match.span() for match in QUOTED.finditer(text)]
    cuts = [0]
    for match in end.finditer(text):
        if not any(start < match.start() and match.end() < stop for start, stop in quotes):
            cuts.append(match.end())
    pieces = [text[a:b].strip() for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]
    return [piece for piece in pieces if piece]


def sentence_shuffle(text: str, rng: np.random.Generator) -> str:
    """The sentences in another order."""
    return " ".join(_shuffled(sentences(text), rng))


def word_shuffle(text: str, rng: np.random.Generator) -> str:
    """All words in another order, each with the punctuation that it touches."""
    return " ".join(_shuffled(text.split(), rng))


def word_shuffle_in_sentences(text: str, rng: np.random.Generator) -> str:
    """The words of each sentence in another order; the sentences stay where they are."""
    return " ".join(word_shuffle(sentence, rng) for sentence in sentences(text))


def _shuffled(pieces: list[str], rng: np.random.Generator) -> list[str]:
    if len(set(pieces)) < 2:
        return pieces
    # Short lists often fall back into their original order, which would test nothing.
    while (found := [pieces[i] for i in rng.permutation(len(pieces))]) == pieces:
        pass
    return found


def fewer(pieces: Sequence[str], rng: np.random.Generator) -> str:
    """The pieces without a random third of them, at least one; a single piece stays."""
    if len(pieces) < 2:
        return " ".join(pieces)
    gone = set(rng.choice(len(pieces), size=max(1, round(len(pieces) / 3)), replace=False).tolist())
    return " ".join(piece for i, piece in enumerate(pieces) if i not in gone)


def without_each(pieces: Sequence[str]) -> list[str]:
    """As many texts as there are pieces, each without one of them."""
    return [" ".join([*pieces[:i], *pieces[i + 1 :]]) for i in range(len(pieces))]


def first_words(text: str, count: int) -> str:
    """The first `count` words."""
    return " ".join(text.split()[:count])


def after_words(text: str, count: int) -> str:
    """All but the first `count` words."""
    return " ".join(text.split()[count:])


def first_tokens(tokenizer: Any, text: str, count: int) -> str:
    """The first `count` tokens as text, less a character that they break; a text no longer than
    that is returned as it is."""
    ids = encode(tokenizer, text, special=False)
    if len(ids) <= count:
        return text
    ends = character_ends(tokenizer, ids[:count])
    return tokenizer.decode(ids[: ends[-1] + 1]) if ends else ""


def without_quotes(text: str) -> str:
    """The text without what stands in quotation marks or backticks, marks included."""
    return _tidy(QUOTED.sub("", text))


def quotes_only(text: str) -> str:
    """What stands in quotation marks or backticks, marks included; nothing else."""
    return " ".join(match.group() for match in QUOTED.finditer(text))


def without_copied(text: str, source: str, run: int = COPIED_RUN) -> str:
    """The text without the words of runs of at least `run` words that stand in `source`.

    Case and punctuation do not count. The punctuation of the text stays.
    """
    known = set(_runs(words(source), run))
    starts = [i for i, found in enumerate(_runs(words(text), run)) if found in known]
    copied = {start + k for start in starts for k in range(run)}
    if not copied:
        return text
    kept, last = [], 0
    for place, match in enumerate(WORD.finditer(text)):
        if place in copied:
            kept.append(text[last : match.start()])
            last = match.end()
    return _tidy("".join([*kept, text[last:]]))


def _runs(found: Sequence[str], run: int) -> list[tuple[str, ...]]:
    return [tuple(found[i : i + run]) for i in range(len(found) - run + 1)]


def other_names(text: str, rng: np.random.Generator) -> str:
    """Numbers and capitalised words replaced by others, equal ones by equal ones. A word that
    opens a sentence or a quote stays: its capital says nothing."""
    made: dict[str, str] = {}

    def other(match: re.Match[str]) -> str:
        word = match.group()
        before = text[: match.start()].rstrip()[-1:]
        opens = not before or before in BEFORE_CAPITAL
        if not word.isdecimal() and (opens or not word[0].isupper()):
            return word
        if word not in made:
            made[word] = _other_number(word, rng) if word.isdecimal() else _other_name(word, rng)
        return made[word]

    return NUMBER_OR_NAME.sub(other, text)


def _other_number(number: str, rng: np.random.Generator) -> str:
    """As many digits, each a different one."""
    return "".join(str((int(digit) + int(rng.integers(1, 10))) % 10) for digit in number)


def _other_name(name: str, rng: np.random.Generator) -> str:
    return str(rng.choice([other for other in NAMES if other != name]))


def paraphrase(text: str, rng: np.random.Generator) -> str:
    """The same said in other words, by rule: the items of lists in another order, and function
    words, verbs of saying, frames and contractions exchanged as `equivalents.yaml` has them.

    What stands in quotes stays, and so do numbers and names. A text to which no rule applies is
    returned as it is. The rules are English.
    """
    return _reworded(_reordered(text, rng), rng)


def _reordered(text: str, rng: np.random.Generator) -> str:
    quotes = [match.span() for match in QUOTED.finditer(text)]
    pieces, last = [], 0
    for spans in movable_items(text):
        if _touches(quotes, spans[0][0], spans[-1][1]):
            continue
        for (start, end), item in zip(
            spans, _shuffled([text[a:b] for a, b in spans], rng), strict=True
        ):
            pieces += [text[last:start], item]
            last = end
    return "".join([*pieces, text[last:]])


def _reworded(text: str, rng: np.random.Generator) -> str:
    exchanges, phrases = _equivalents()
    quotes = [match.span() for match in QUOTED.finditer(text)]
    curly = "’" in text

    def other(match: re.Match[str]) -> str:
        article, found = match["article"] or "", match["phrase"]
        known = found.replace("’", "'")
        options = exchanges.get(known, exchanges.get(known[0].lower() + known[1:], ()))
        opens = text[: match.start()].rstrip()[-1:] in ("", *BEFORE_CAPITAL)
        capital = known not in exchanges
        if not options or (capital and not opens) or _touches(quotes, *match.span()):
            return match.group()
        new = str(rng.choice(options))
        if article and (new[0] in "aeiou") != (found[0].lower() in "aeiou"):
            article = f"{article[0]}n " if new[0] in "aeiou" else f"{article[0]} "
        new = new[0].upper() + new[1:] if capital else new
        return article + (new.replace("'", "’") if curly else new)

    return phrases.sub(other, text)


def _touches(quotes: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    return any(left < end and start < right for left, right in quotes)


@cache
def _equivalents() -> tuple[Mapping[str, Sequence[str]], re.Pattern[str]]:
    """Phrase → what may stand in its place, nothing for one that stays; and a pattern of them all,
    the longest first, each as it is or with a capital. Before a number and inside a compound, an
    address or a path none is found."""
    table = yaml.safe_load(
        files("nlakit.core.text").joinpath("equivalents.yaml").read_text("utf-8")
    )
    exchanges = {
        phrase: [other for other in group if other != phrase]
        for group in table["either"]
        for phrase in group
    }
    exchanges |= table["only"] | dict.fromkeys(table["stays"], ())
    longest = sorted(exchanges, key=len, reverse=True)
    either = "|".join(
        f"[{phrase[0].upper()}{phrase[0]}]" + re.escape(phrase[1:]).replace("'", "['’]")
        for phrase in longest
    )
    return exchanges, re.compile(
        rf"(?:(?=,)|(?<![\w'’./@#$-]))(?P<article>[Aa]n? )??(?P<phrase>{either})"
        r"(?![\w/@(-]|['’.]\w|\s*[\d$£€])"
    )


def _tidy(text: str) -> str:
    """Single spaces, and none before punctuation, where something was cut out."""
    return re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
