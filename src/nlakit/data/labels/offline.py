"""The offline labeler: sentences from the text's own rare words, its clause and its very end.

Three features: what the passage is about, what the clause being read does and names, and where it
stops with what the subject expects next. At most four source words stand in a row, so that a
reconstructor has to understand and cannot replay.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from nlakit.core.text.lint import UNREADABLE
from nlakit.core.text.stats import WORD, longest_copied_run, words
from nlakit.data.labels.labeler import Advance, Label, LabelRequest, ignore

MAX_COPIED_WORDS = 4
FUNCTION_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before
    being below between both but by can could did do does doing down during each few for from
    further had has have having he her here hers herself him himself his how i if in into is it
    its itself just let may me might more most must my myself no nor not now of off on once one
    only or other our ours out over own same shall she should so some such than that the their
    theirs them themselves then there these they this those through thus to too under until up
    upon us very was we were what when where whether which while who whom whose why will with
    within without would yet you your yours""".split()
)
SENTENCE_END = re.compile(r"[.!?;:]['\"”’)\]]*\s+|\n+")


class Background:
    """Document frequencies of words: what makes a word rare."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.counts: Counter[str] = Counter()
        self.documents = 0
        for text in texts:
            self.documents += 1
            self.counts.update(set(words(text)))

    def rarity(self, word: str) -> float:
        """Inverse document frequency; a word never seen counts as seen once."""
        return math.log((1 + self.documents) / (1 + self.counts[word]))


class OfflineLabeler:
    """Labels from text statistics and the subject's own expectation; needs no key."""

    name = "offline-3"

    def __init__(self, background: Background) -> None:
        self.background = background

    def label(self, requests: Sequence[LabelRequest], advance: Advance = ignore) -> list[Label]:
        made = [self._one(request) for request in requests]
        advance(len(made))
        return made

    def close(self) -> None:
        pass

    def _one(self, request: LabelRequest) -> Label:
        for tail_words in range(MAX_COPIED_WORDS, 0, -1):
            text = self._compose(request, tail_words)
            if longest_copied_run(text, request.text) <= MAX_COPIED_WORDS:
                return self._made(request, text, None)
        return self._made(request, None, "copied_source")

    def _made(self, request: LabelRequest, text: str | None, reason: str | None) -> Label:
        return Label(
            request.row_id, text, reason, self.name, tokens_in=0, tokens_out=0, cost=0.0, attempts=1
        )

    def _compose(self, request: LabelRequest, tail_words: int) -> str:
        head, tail = split_tail(request.text, tail_words)
        clause = SENTENCE_END.split(head)[-1]
        tail_set = set(words(tail))
        nearby = self._clause_words(clause, tail_set)
        topic = self._topic_words(head, {*tail_set, *nearby})
        opener = f"{register(request.text)} {listed(topic)}." if topic else ""
        middle = f"{act(clause + tail)} {listed(nearby)}." if nearby else ""
        parts = (opener, middle, ending(request, tail))
        return " ".join(part for part in parts if part)

    def _topic_words(self, text: str, leave_out: set[str], count: int = 4) -> list[str]:
        """Rare words of the passage; a mention nearer to the end weighs more."""
        scores: dict[str, float] = {}
        found = words(text)
        for place, word in enumerate(found):
            if len(word) > 2 and word not in FUNCTION_WORDS and word not in leave_out:
                near = 0.5 ** ((len(found) - place) / 60)
                scores[word] = scores.get(word, 0.0) + near * self.background.rarity(word)
        return sorted(scores, key=lambda word: (-scores[word], word))[:count]

    def _clause_words(self, clause: str, leave_out: set[str], count: int = 4) -> list[str]:
        """Content words of the clause before its quoted end, latest first, so out of order."""
        picked: list[str] = []
        for word in reversed(words(clause)[-14:]):
            plain = word in FUNCTION_WORDS or len(word) < 2
            if not plain and word not in leave_out and word not in picked:
                picked.append(word)
        return picked[:count]


def split_tail(text: str, count: int) -> tuple[str, str]:
    """The text before, and from, its last `count` words."""
    starts = [match.start() for match in WORD.finditer(text)]
    cut = starts[-count] if len(starts) >= count else 0
    cut = max(cut, len(text) - 60)
    return text[:cut], text[cut:]


def listed(items: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def register(text: str) -> str:
    """How the passage opens its description, by what kind of writing it looks like."""
    sample = text[-600:]
    lines = sample.splitlines() or [sample]
    if sum(sample.count(mark) for mark in "(){}[]=_;<>") > len(sample) / 30:
        return "Code about"
    if sum(bool(re.match(r"\W*\d+[:.]", line)) for line in lines) > 1:
        return "Numbered lines about"
    found = words(sample)
    if sum(sample.count(mark) for mark in '"“”') >= 4:
        return "Talk of"
    if sum(word in {"thou", "thee", "thy", "ye", "unto", "hath", "shalt"} for word in found) > 1:
        return "Old verse of"
    if sum(word in {"i", "my", "me", "myself"} for word in found) > 4:
        return "A first-person account of"
    if sum(word in {"we", "our", "us", "nation", "congress"} for word in found) > 3:
        return "An address on"
    return "A passage on"


def act(clause: str) -> str:
    """What the clause being read does."""
    found = set(words(clause))
    start = words(clause)[:1]
    if start and start[0] in {"who", "what", "why", "how", "where", "whom"}:
        return "It asks or introduces"
    if found & {"if", "unless", "whether"}:
        return "A condition on"
    if found & {"not", "no", "never", "nor", "neither", "cannot"}:
        return "It denies something about"
    if found & {"because", "since", "therefore", "thus", "hence"}:
        return "It reasons from"
    if found & {"shall", "will", "must", "should"}:
        return "A rule or promise about"
    if found & {"said", "says", "cried", "replied", "asked", "answered"}:
        return "Someone speaks of"
    if clause.count(",") >= 3:
        return "It lists"
    if found & {"was", "were", "had", "did"}:
        return "It tells of"
    return "It speaks of"


def ending(request: LabelRequest, tail: str) -> str:
    """The very end: its last words, and what the subject expects to follow."""
    shown = re.sub(r"\s*\n\s*", " / ", tail).strip(" ")
    inside = bool(re.search(r"\w$", tail)) and any(
        token[:1].isalnum() and chance > 0.5 for token, chance in request.expected[:1]
    )
    verb = "It breaks off inside" if inside else "It stops at"
    sentence = f"{verb} “{shown}”"
    expected = [spell(token) for token, _ in request.expected]
    expected = list(dict.fromkeys(item for item in expected if item))
    if not expected:
        return f"{sentence}."
    best = request.expected[0][1]
    sure = "surely" if best > 0.8 else "likely" if best > 0.3 else "perhaps"
    options = " or ".join(filter(None, [", ".join(expected[:-1]), *expected[-1:]]))
    return f"{sentence}; {sure} next: {options}."


NAMES = {
    ",": "a comma", ".": "a full stop", ";": "a semicolon", ":": "a colon", "-": "a hyphen",
    "?": "a question mark", "!": "an exclamation mark", "(": "a bracket", ")": "a closing bracket",
    "'": "an apostrophe", '"': "a quote", "<eos>": "the end", "_": "an underscore",
    "—": "a dash", "--": "a dash", "=": "an equals sign",
}  # fmt: skip


def spell(token: str) -> str:
    """A next token in words: marks by name, a piece that continues a word with a hyphen."""
    if token.strip(" ") in NAMES:
        return NAMES[token.strip(" ")]
    if not token.strip():
        return "a line break" if "\n" in token else "a gap"
    cleaned = " ".join(token.split())
    if UNREADABLE.search(cleaned):
        return "part of a character"  # a byte of one, or a control code
    return cleaned if token[0] in " \n\t" or not token[0].isalnum() else f"-{cleaned}"
