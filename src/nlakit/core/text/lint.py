"""What is wrong with a label, told without a model.

A good label says what a reader must have understood at this point of the text to predict what
comes next, in two or three whole sentences of which the last is about the very end. A HARD fault
refuses a label; the others are suspicions, for a report. What a label takes from its source (an
apology, a verdict in capitals, a repetition) is the text's, not a fault of the label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nlakit.core.text.stats import (
    MAX_OTHER_SCRIPT,
    SENTENCE_END,
    has_loop,
    other_script_share,
    words,
)

# In order of gravity.
FAULTS = (
    "empty", "unreadable", "refusal", "auditor_leakage", "too_short", "too_long", "unclosed",
    "other_language", "copied_source", "loop", "boilerplate_opening", "topic_summary",
)  # fmt: skip
HARD = frozenset(FAULTS) - {"boilerplate_opening", "topic_summary"}

COPIED_RUN = 5
LAST_WORDS = 10


@dataclass(frozen=True)
class Limits:
    """What a label may be. Lengths in words of the label.

    max_copied_words: source words in a row. max_copied_share: share of the label's words that are
    in runs of five or more source words.
    """

    min_words: int = 6
    max_words: int = 220
    max_copied_words: int = 12
    max_copied_share: float = 0.6


LIMITS = Limits()


def lint(label: str, source: str, limits: Limits = LIMITS) -> list[str]:
    """Names of all faults of a label of `source` (the text up to the position), gravest first."""
    if not label.strip():
        return ["empty"]
    found, plain = words(label), unquoted(label).strip() or label.strip(MARKS)
    hits = {
        "unreadable": UNREADABLE.search(label) or not any(map(str.isalpha, label)),
        "refusal": _says(REFUSAL, plain, source),
        "auditor_leakage": _says(LEAKAGE, label, source),
        "too_short": len(found) < limits.min_words,
        "too_long": len(found) > limits.max_words,
        "unclosed": unclosed(label),
        "other_language": _foreign(plain) and not _foreign(source),
        "copied_source": copies(found, words(source), limits),
        "loop": loops(label, source),
        "boilerplate_opening": BOILERPLATE.match(label),
        "topic_summary": not (ENDING.search(label) or _names_the_end(found, source)),
    }
    return [name for name, hit in hits.items() if hit]


def first_hard(faults: Iterable[str]) -> str | None:
    """The first of the faults for which a label is refused; None if there is none."""
    return next((name for name in faults if name in HARD), None)


def unquoted(label: str) -> str:
    """The label's own words: without what stands between double quotes or backticks."""
    return QUOTED.sub(" ", label)


def unclosed(label: str) -> bool:
    """Whether a label was cut off or carries markup: it does not end like a sentence, opens a
    quote or bracket that nothing closes, or has a heading, a bullet or a code fence."""
    if not SENTENCE_END.search(label.rstrip()):
        return True
    return bool(OPENED.search(_before_tokens(label)) or MARKUP.search(label))


def loops(label: str, source: str) -> bool:
    """Whether a label repeats itself where it does not quote a source that does."""
    own = _before_tokens(label)
    return has_loop(own) and (has_loop(unquoted(own)) or not has_loop(source))


def copied_words(found: Sequence[str], source: Sequence[str], run: int = COPIED_RUN) -> int:
    """How many words of `found` stand in runs of at least `run` words that `source` has too."""
    known = set(_runs(source, run))
    covered: set[int] = set()
    for start, words_in_row in enumerate(_runs(found, run)):
        if words_in_row in known:
            covered.update(range(start, start + run))
    return len(covered)


def copies(found: Sequence[str], source: Sequence[str], limits: Limits) -> bool:
    """Whether a label's words have a longer run, or more runs, of the source than allowed."""
    if copied_words(found, source) > limits.max_copied_share * len(found):
        return True
    return copied_words(found, source, limits.max_copied_words + 1) > 0


def _runs(found: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    return zip(*(found[offset:] for offset in range(size)), strict=False)


def _before_tokens(label: str) -> str:
    """A label without a closing list of next tokens, which may be brackets or look alike."""
    listing = NEXT_TOKENS.match(label)
    return listing[1] if listing else label


def _says(pattern: re.Pattern[str], label: str, source: str) -> bool:
    return any(match.group().strip() not in source for match in pattern.finditer(label))


def _foreign(text: str) -> bool:
    return not text.isascii() and other_script_share(text) > MAX_OTHER_SCRIPT


def _names_the_end(found: Sequence[str], source: str) -> bool:
    """Whether a label has a content word of the last words of its source."""
    last = words(source[-400:])[-LAST_WORDS:]
    return bool({_stem(word) for word in last if _content(word)} & {_stem(word) for word in found})


def _content(word: str) -> bool:
    return word.isdigit() or (len(word) > 2 and word not in FUNCTION_WORDS)


def _stem(word: str) -> str:
    """The first six letters: `completes` and `completed` are one word."""
    return word[:6]


UNREADABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffd]|\r(?!\n)")
MARKS = ' \n"“”`'
QUOTED = re.compile(r"“[^”]*”|\"[^\"]*\"|`[^`]*`")

_I_CANNOT = (
    r"I(?:\s(?:can['’]t|cannot|can\snot|won['’]t)|(?:['’]m|\sam)\s(?:unable|not\sable)\sto)\b"
)
REFUSAL = re.compile(
    rf"""
    \A\s* (?:
        {_I_CANNOT}
      | I(?:['’]m|\sam)\s (?:(?:very|so|deeply)\s)? (?:sorry|afraid)\b,? \s (?:but|that|I)\b
      | (?:my\s)? apologies\b | I\sapologi[sz]e\b
      | sorry\b,? \s (?:but|I|there)\b | unfortunately,? \s I\b
      | I\s (?:don['’]t|do\snot)\s (?:have|see)\b
      | please\s (?:provide|share|paste)\b
      | (?:there\sis\s)?no\s(?:text|passage|input)\s(?:(?:was|is|has\sbeen)\s)?(?:provided|given)\b
    )
    | \bas\san?\s (?:AI|artificial\sintelligence|(?:large\s)?language\smodel)\b
      (?:\s(?:language\s)?(?:model|assistant))? ,? \s (?:I|my)\b
    | \b{_I_CANNOT}\s
      (?:assist|comply|fulfill?|help\swith|label|describe|analy[sz]e|generate|summari[sz]e
        |provide\s(?:an?|the|that|this)\s(?:label|explanation|description))
    """,
    re.IGNORECASE | re.VERBOSE,
)

_VERDICT = r"(?:KEEP|REVISED?|REJECT(?:ED)?)"
_GRADE = r"(?:un)?specific|(?:un)?checkable|generic|faithful|acceptable|a\stopic\ssummary"
LEAKAGE = re.compile(
    rf"""
    \b(?:N|[0-9]+|label|row)\s?[:.)]\s*{_VERDICT}\b
    | \b{_VERDICT}\b
    | (?i:
        \bverdict\s?[:=]\s*["“*]*(?:keep|revise|reject|accept|pass|fail)
      | ["“](?:verdict|score|revised|revision|label|labels|explanation|rationale|reason)["”]\s*:
      | ^[ \t]*(?:audit(?:or)?|verdict|rationale|feedback|critique|reviewer)(?:['’]s\s\w+)?\s*:
      | \b(?:revised|final|improved|corrected|rewritten|original)\s(?:label|explanation)s?\s*:
      | ^[ \t]*revis(?:ed|ion)(?:\s(?:version|text))?\s*:
      | \b(?:the|this|your|each)\s(?:label|explanation)\s(?:is|was|seems|remains)\s
        (?:(?:not|too|very|quite|fairly|sufficiently|mostly|overly)\s)*(?:{_GRADE})\b
      | \b(?:the|this|your)\slabel\s (?:is\s(?:too|not)\b
        |fails\sto|misses|restates|merely|correctly|accurately|captures|omits)
      | (?:^|[.!?]\s)no\s(?:change|revision|edit)s?\s(?:(?:is|are)\s)?(?:needed|required)\b
      | \brubric\b(?!\sof)
      | \bscore\s?[:=]\s*[0-9.]+\s*(?:/|out\sof)\s*[0-9]+
      | ^[ \t]*score\s?[:=]\s*[0-9]
      | \blabell?er(?:['’]s)?\b
      | (?:^|[.!?]\s)(?:reasons?|scores?|verdict|features)\s?[.:]
    )
    """,
    re.MULTILINE | re.VERBOSE,
)

NEXT_TOKENS = re.compile(r"(.*); \w+ next: ", re.DOTALL)
# A closing mark of any kind excuses what is open before it: labels quote code and half sentences.
OPENED = re.compile(r"(?:“[^\s”]|(?<![^\s(])\"\w|[(\[]\w)(?:[^)\]\"”'’`]|['’]\w)*\Z")
MARKUP = re.compile(r"^[ \t]*(?:```|#{1,6} |[-*•] |\*\*\w)|```\s*\Z", re.MULTILINE)

_TEXT = r"(?:text|passage|excerpt|snippet|paragraph|prefix|fragment|document|article|story)"
BOILERPLATE = re.compile(
    rf"""
    [\s*_"“]* (?:
        (?:(?:this|the|our)\s)? (?:(?:given|provided|following|above|input)\s)? {_TEXT}\s
        (?:(?:is|was|seems|appears)\s(?:about|to\sbe|an?\s)
          |discusses|describes|explores|covers|presents|provides|contains|concerns|explains
          |talks\s(?:about|of)|deals\swith|focuses\son|centers\s(?:on|around)|revolves|details)
      | here(?:['’]s|\s(?:is|are))\s (?:the|an?|my|your|what|three|two|some)\b
      | (?:sure|certainly|absolutely|of\scourse|okay|ok|great)\s?[,!.:]
      | (?:in|from)\s(?:this|the)\s (?:(?:given|provided|following|above)\s)? {_TEXT},?\s
      | based\son\sthe\b
      | (?:label|explanation|summary|answer|features?(?:\s1)?)\s*:
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)

_UNIT = r"(?:words?|tokens?|phrases?|clauses?|sentences?|lines?|fragments?|marks?|commas?)"
ENDING = re.compile(
    rf"""
    \b(?:
        ends|ending|stops|unfinished|incomplete|dangling|mid-?\s?(?:{_UNIT}|quot|name|number|thought)
      | (?:break|cut|cutt|trail|leave|leav|broken)(?:s|ing)?\soff | poised|still\sowes
      | next|expect(?:s|ed|ing)?|await(?:s|ing)|about\sto|predict(?:s|ed|able|ion)?|continuation
      | complet(?:es|ing|ion) | what\sfollows
      | (?:must|has\sto|have\sto|needs\sto)\s(?:now\s)?
        (?:follow|continue|be|come|close|complete|name|resolve|begin|give|say)
      | (?:forces|forcing|requires|demands|calls\sfor|sets\sup)\s (?:an?|the|that|some|it)\b
      | (?:final|last|closing)\s(?:\w+\s){{0,2}}{_UNIT} | (?:final|last)\s["“‘'`] | very\send
    )""",
    re.IGNORECASE | re.VERBOSE,
)
FUNCTION_WORDS = frozenset(
    """about after again all also and another any are because been before being both but can could
    did does down each even every few for from had has have her here him his how into its just let
    may more most much must nor not now off one only other our out over own said same shall she
    should since some still such than that the their them then there these they this those though
    through too under until upon very was well were what when where which while who whom whose why
    will with within without would yet you your""".split()
)
