"""What a pair is good for and what it is not, by fixed rules on its evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """A sentence about a use, and the evaluations of which it is true."""

    good: bool
    applies: Callable[[Results], bool]
    sentence: str


# Warning of the evaluation → the use that it rules out.
WARNED = {
    "constant-reconstructor": "Any use of the reconstructor: it answers every text alike.",
    "reads-opening-only": "Scoring more than the first words of a text: no later word is read.",
    "order-free": "Scoring statements: the reconstructor reads words without their order.",
    "quoted-text-channel": "Reading explanations as descriptions: what counts is pasted text.",
    "av-ignores-vector": "Reading explanations at all: they do not depend on the activation.",
    "routing": "Reading more than the kind of text: inside a family no document is recognised.",
    "truncated-texts": "Trusting the counts of repetitions here: texts were cut when they"
    " were stored.",
    "scale-mismatch": "Use as it is: vectors are injected at a norm far from the subject's.",
    "beaten-by-nearest-neighbour": "Anything for which the label of the nearest training vector is"
    " at hand: it does as well.",
    "unsupported-quotes": "Taking what stands in quotes as words of the text: it is invented.",
    "contaminated-split": "Expecting these scores on new documents: training has seen some of the"
    " evaluated ones.",
    "wrong-baseline": "Comparing its recorded FVE with others: the recorded baseline is not that"
    " of its vectors.",
}


def _verdict(*words: str) -> Callable[[Results], bool]:
    return lambda results: results["verdict"]["word"] in words


def _warned(code: str) -> Callable[[Results], bool]:
    return lambda results: any(one["code"] == code for one in results.get("warnings", ()))


def _topic_only(results: Results) -> bool:
    """Whether another position of the document explains a row as well, or nobody has looked."""
    gain = results["verdict"]["evidence"].get("gain_over_same_document")
    return gain is None or gain["low"] is None or gain["low"] <= 0


def _copies(results: Results) -> bool:
    """Whether the last source tokens, pasted, do at least as well as the explanations."""
    scores = results["scores"]
    pasted = scores.get("last_10_tokens", {}).get("centred_cosine")
    return bool(pasted) and pasted["mean"] >= scores["real"]["centred_cosine"]["mean"]


def _always(_: Results) -> bool:
    return True


RULES = (
    Rule(True, _verdict("content-sensitive"),
         "Reading what activations of this subject and layer hold, on texts like the evaluated"
         " ones, with the source at hand."),
    Rule(True, _verdict("content-sensitive"),
         "Comparing explanations of a row by their reconstruction score, beside its floors."),
    Rule(True, _verdict("weak"),
         "Exploring, where each statement is checked by other means."),
    Rule(True, _verdict("content-blind", "collapsed"),
         "Repeating this evaluation, and as a baseline for a better pair."),
    Rule(False, _verdict("weak"),
         "Ranking or filtering explanations by reconstruction score: the gain over text that does"
         " not describe the row is not surely large enough."),
    Rule(False, _verdict("content-blind"),
         "Taking a reconstruction score as a sign that an explanation fits: text that does not"
         " describe the row scores about as well."),
    Rule(False, _verdict("collapsed"),
         "Reading explanations at all: they repeat, or are missing, whatever the activation."),
    Rule(False, _topic_only,
         "Telling positions of one document apart: that the explanation of another position does"
         " worse has not been shown."),
    Rule(False, _copies,
         "Saying that more is read than the last words: pasted as they are, they score as well."),
    *(Rule(False, _warned(code), sentence) for code, sentence in WARNED.items()),
    Rule(False, _always,
         "Taking a statement as true because it reconstructs well: explanations that are false"
         " throughout can reach nearly the FVE of true ones."),
    Rule(False, _always,
         "Other subjects, layers or precisions, and kinds of text that were not evaluated."),
)  # fmt: skip


def uses(results: Results, good: bool) -> list[str]:
    """The sentences that are true of an evaluation, in the order of the table."""
    return [rule.sentence for rule in RULES if rule.good == good and rule.applies(results)]
