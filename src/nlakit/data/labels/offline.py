"""The offline labeler: plain sentences from a text's last word, its clause and its commoner words.

What the activation is sure to hold comes first: the kind of writing, the last word, and what the
subject expects next. Then what the clause does and names, and last what the passage is about. Of
the source only the last word is quoted: an AV cannot know a longer stretch, and would invent it.
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
CLAUSE_WORDS, TOPIC_WORDS = 3, 4
KNOWN_DOCUMENTS, UNKNOWN_WEIGHT = 3, 0.3
STEM = 5  # letters: `file` and `files` are one word
LEAST_CHANCE = 0.05  # of a next token that is named beside the best
FUNCTION_WORDS = frozenset(
    """a about above after again against all already also always am among an and any anything are
    around as at away back be became because become been before being below better between both but
    came can certain come could did do does doing done down during each else even ever every
    everything few first for from further get give given go going gone got had has have having he
    her here hers herself him himself his how however i if in indeed instead into is it its itself
    just know known last later least less let like made make makes many may me might more most much
    must my myself near need never next no none nor not nothing now of off often on once one only or
    other others our out over own part perhaps quite rather said same say says see seem seemed seen
    several shall she should since so some something still such take taken tell than that the their
    theirs them themselves then there therefore these they thing things this those though through
    thus till to together too took two under until unto up upon us use used using usually very was
    way we well went were what when where whether which while who whole whom whose why will with
    within without would yet you your yours""".split()
)
SENTENCE_END = re.compile(r"[.!?;:]['\"”’)\]]*\s+|\n+")


class Background:
    """The words of a corpus: how many documents have each, and which begin with a small letter."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.counts: Counter[str] = Counter()
        self.small: set[str] = set()
        self.documents = 0
        for text in texts:
            self.documents += 1
            found = {match.group() for match in WORD.finditer(text)}
            self.counts.update({word.lower() for word in found})
            self.small.update(word for word in found if word[0].islower())

    def rarity(self, word: str) -> float:
        """Inverse document frequency; a word never seen counts as seen once."""
        return math.log((1 + self.documents) / (1 + self.counts[word]))

    def known(self, word: str) -> bool:
        """Whether so many documents have the word that an AV can learn to name it."""
        return self.counts[word] >= KNOWN_DOCUMENTS

    def spelled(self, word: str) -> str:
        """A word as it is written inside a sentence: names keep their capital."""
        return word.lower() if word.lower() in self.small else word


class OfflineLabeler:
    """Labels from text statistics and the subject's own expectation; needs no key."""

    name = "offline-4"

    def __init__(self, background: Background) -> None:
        self.background = background

    def label(self, requests: Sequence[LabelRequest], advance: Advance = ignore) -> list[Label]:
        made = [self._one(request) for request in requests]
        advance(len(made))
        return made

    def close(self) -> None:
        pass

    def _one(self, request: LabelRequest) -> Label:
        text: str | None = self._compose(request)
        reason = None
        if longest_copied_run(text, request.text) > MAX_COPIED_WORDS:
            text, reason = None, "copied_source"
        return Label(
            request.row_id, text, reason, self.name, tokens_in=0, tokens_out=0, cost=0.0, attempts=1
        )

    def _compose(self, request: LabelRequest) -> str:
        head, last = split_last(request.text)
        clause = SENTENCE_END.split(head)[-1]
        nearby = self._clause_words(clause, words(last))
        topic = self._topic_words(head, [*words(last), *map(str.lower, nearby)])
        parts = [f"{kind(request.text)} that {ending(request, last)}"]
        if nearby:
            parts.append(f"{act(clause + last)} {listed(nearby)}.")
        if topic:
            parts.append(f"The passage is about {listed(topic)}.")
        return " ".join(parts)

    def _topic_words(self, text: str, leave_out: Sequence[str]) -> list[str]:
        """Words of the passage: rare in the corpus but known there, and near the end."""
        scores: dict[str, float] = {}
        written: dict[str, str] = {}
        found = [match.group() for match in WORD.finditer(text)]
        for place, form in enumerate(found):
            word = form.lower()
            near = 0.5 ** ((len(found) - place) / 60)
            weight = near * self.background.rarity(word)
            if not self.background.known(word):
                weight *= UNKNOWN_WEIGHT
            scores[word] = scores.get(word, 0.0) + weight
            written[word] = form
        best = sorted(scores, key=lambda word: (-scores[word], word))
        return [self.background.spelled(written[w]) for w in distinct(best, leave_out, TOPIC_WORDS)]

    def _clause_words(self, clause: str, leave_out: Sequence[str]) -> list[str]:
        """Content words of the clause, latest first, so out of order; known ones if there are."""
        found = [match.group() for match in WORD.finditer(clause)][-14:]
        written = {form.lower(): form for form in found}
        latest = [*reversed(written)]
        known = [word for word in latest if self.background.known(word)]
        picked = distinct(known, leave_out, CLAUSE_WORDS) or distinct(latest, leave_out, 1)
        return [self.background.spelled(written[word]) for word in picked]


def distinct(candidates: Sequence[str], leave_out: Sequence[str], count: int) -> list[str]:
    """The first `count` words that say something, no two of one stem and none of `leave_out`."""
    stems = {word[:STEM] for word in leave_out}
    picked: list[str] = []
    for word in candidates:
        plain = word in FUNCTION_WORDS or not 2 < len(word) <= 20 or not word[0].isalpha()
        if not plain and word[:STEM] not in stems and not any(map(str.isdigit, word)):
            stems.add(word[:STEM])
            picked.append(word)
    return picked[:count]


def split_last(text: str) -> tuple[str, str]:
    """The text before, and from, its last word; 24 characters of that at most."""
    start = max((match.start() for match in WORD.finditer(text)), default=0)
    start = max(start, len(text.rstrip()) - 24)
    return text[:start], text[start:]


def listed(items: Sequence[str], last: str = "and") -> str:
    """a; a and b; a, b and c."""
    return f" {last} ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def kind(text: str) -> str:
    """What kind of writing the end of a text looks like."""
    sample = text[-600:]
    lines = sample.splitlines() or [sample]
    if sum(sample.count(mark) for mark in "(){}[]=_;<>") > len(sample) / 30:
        return "Code"
    if sum(bool(re.match(r"\W*\d+[:.]", line)) for line in lines) > 1:
        return "A numbered list"
    found = words(sample)
    if sum(sample.count(mark) for mark in '"“”') >= 4:
        return "Talk"
    if sum(word in {"thou", "thee", "thy", "ye", "unto", "hath", "shalt"} for word in found) > 1:
        return "Archaic prose"
    if sum(word in {"i", "my", "me", "myself"} for word in found) > 4:
        return "A first-person account"
    if sum(word in {"we", "our", "us", "nation", "congress"} for word in found) > 3:
        return "An address"
    return "Prose"


def act(clause: str) -> str:
    """What the clause being read does."""
    found = set(words(clause))
    start = words(clause)[:1]
    if start and start[0] in {"who", "what", "why", "how", "where", "whom"}:
        return "It asks about"
    if found & {"if", "unless", "whether"}:
        return "It sets a condition on"
    if found & {"not", "no", "never", "nor", "neither", "cannot"}:
        return "It denies something of"
    if found & {"because", "since", "therefore", "thus", "hence"}:
        return "It reasons from"
    if found & {"shall", "will", "must", "should"}:
        return "It promises or demands"
    if found & {"said", "says", "cried", "replied", "asked", "answered"}:
        return "Someone speaks of"
    if clause.count(",") >= 3:
        return "It lists"
    if found & {"was", "were", "had", "did"}:
        return "It tells of"
    return "It speaks of"


def ending(request: LabelRequest, last: str) -> str:
    """The last word of the text, and what the subject expects to follow."""
    shown = " ".join(last.split())
    inside = bool(re.search(r"\w$", last))
    pieces = [(token, chance) for token, chance in request.expected if token]
    broken = inside and any(t[0].isalnum() and chance > 0.5 for t, chance in pieces[:1])
    said = f"{'breaks off inside' if broken else 'stops at'} “{shown}”"
    if "\n" in last[len(last.rstrip()) :]:
        said += ", at the end of a line"
    likely = [token for token, chance in pieces if chance >= LEAST_CHANCE]
    named: dict[str, str] = {}  # `The` and `the` are one
    for option in [spell(token, inside) for token in likely or [token for token, _ in pieces[:1]]]:
        named.setdefault(option.lower(), option)
    if not named:
        return f"{said}."
    best = pieces[0][1]
    sure = "surely" if best > 0.8 else "likely" if best > 0.3 else "perhaps"
    return f"{said}; {sure} next: {listed([*named.values()], 'or')}."


MARKS = {
    ",": "a comma", ".": "a full stop", ";": "a semicolon", ":": "a colon", "-": "a hyphen",
    "?": "a question mark", "!": "an exclamation mark", "(": "a bracket", ")": "a closing bracket",
    "[": "a square bracket", "]": "a closing square bracket", "{": "a brace",
    "}": "a closing brace", "<": "a less-than sign", ">": "a greater-than sign",
    "'": "an apostrophe",
    "’": "an apostrophe", "‘": "a quote", '"': "a quote", "“": "a quote", "”": "a closing quote",
    "`": "a backtick", "_": "an underscore", "—": "a dash", "–": "a dash", "=": "an equals sign",
    "+": "a plus sign", "*": "an asterisk", "/": "a slash", "\\": "a backslash", "|": "a bar",
    "#": "a hash sign", "@": "an at sign", "$": "a dollar sign", "%": "a percent sign",
    "&": "an ampersand", "…": "dots",
}  # fmt: skip
WHOLE = {"<eos>": "the end", "--": "a dash", "...": "dots"}


def spell(token: str, inside: bool) -> str:
    """A next token in words: marks by name, and with a hyphen what goes on with a word if the text
    ends `inside` one."""
    marks = token.strip(" ")
    if marks in WHOLE:
        return WHOLE[marks]
    if marks and all(mark in MARKS for mark in marks):
        names = [MARKS[mark] for mark in marks]
        return " and ".join(names if len(names) < 3 else [names[0], "more marks"])
    if not token.strip():
        return "a line break" if "\n" in token else "a gap"
    cleaned = " ".join(token.split())
    if UNREADABLE.search(cleaned):
        return "part of a character"  # a byte of one, or a control code
    return f"-{cleaned}" if inside and token[0].isalnum() else cleaned
