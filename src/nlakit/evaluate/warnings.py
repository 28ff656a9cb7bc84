"""Named failures that the verdict's one word does not tell apart, each by a rule on findings.

A warning is a code, a sentence and the figures behind it. The rules and their thresholds are argued
for in docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nlakit.core.scaling import GATE
from nlakit.evaluate.bench import Bench, Part

Record = dict[str, Any]
MOVES = 0.01  # of E‖u − ū‖²: an AR that moves less answers everything alike
# A change that the AR does not see, on texts that it changes: this much of the gain is kept, and
# the reconstruction moves by no more than this share of what the empty text moves it.
KEPT, UNMOVED, CHANGED = 0.98, 0.05, 0.5
# A channel of quoted text: of the gain, at most this is left without the quotes, and this in them.
LITTLE, MOST = 0.25, 0.75
CUT = 0.05  # share of texts cut at one length
LEAST_GAP = 0.01  # nats a token
BETTER = 0.10  # centred cosine by which another norm must beat the contract's
QUOTING = 0.5  # share of texts with a quote from which on their truth is spoken of
MIDDLE = 0.5  # percentile of a document found by chance


class Findings:
    """Findings by part, measure and condition, all rows together."""

    def __init__(self, found: Iterable[Mapping[str, Any]]) -> None:
        self.known = {
            (one["part"], one["measure"], one["condition"]): one
            for one in found
            if one["group"] == "all" and one["rows"]
        }

    def get(self, part: str, measure: str, condition: str) -> Mapping[str, Any] | None:
        return self.known.get((part, measure, condition))

    def mean(self, part: str, measure: str, condition: str) -> float | None:
        one = self.get(part, measure, condition)
        return None if one is None else one["mean"]


def warnings_of(
    bench: Bench, parts: Iterable[Part], found: Iterable[Mapping[str, Any]]
) -> list[Record]:
    """Every warning that the findings call for, in the order of the rules."""
    details = {part.name: part.detail for part in parts}
    known = Findings(found)
    made = [rule(known, details, bench) for rule in RULES]
    return [one for one in made if one]


def warning(code: str, message: str, **evidence: Any) -> Record:
    return {"code": code, "message": message, "evidence": evidence}


def constant_reconstructor(found: Findings, details: Any, bench: Bench) -> Record | None:
    moves = found.mean("roundtrip", "moves", "real")
    if moves is None or moves >= MOVES * bench.base:
        return None
    return warning(
        "constant-reconstructor",
        "the AR answers every text alike: what it reconstructs differs from its answer to the "
        f"empty text by {moves:.2g}, of a spread of {bench.base:.2g} among the vectors",
        moves=moves,
        spread=bench.base,
    )


def _unseen(found: Findings, details: Any, condition: str) -> Record | None:
    """The record of a change that the AR does not see: the score is kept, and the reconstruction
    does not move. None where it sees the change or too few texts are changed by it."""
    kept = details.get("ar_reading", {}).get("retained", {}).get(condition)
    lost = found.get("ar_reading", "centred_cosine_lost", condition)
    if not kept or not lost or kept["centred_cosine"] is None or kept["changed"] < CHANGED:
        return None
    unseen = kept["centred_cosine"]["ratio"] >= KEPT and lost["low"] <= 0
    return kept if unseen and kept["moved_share"] <= UNMOVED else None


def reads_opening_only(found: Findings, details: Any, bench: Bench) -> Record | None:
    kept = _unseen(found, details, "opening_kept_rest_other")
    if kept is None:
        return None
    return warning(
        "reads-opening-only",
        "with its first 8 words kept and the rest of another row's, a text is reconstructed as "
        "before: the AR reads the opening alone",
        retained=kept,
    )


def order_free(found: Findings, details: Any, bench: Bench) -> Record | None:
    kept = _unseen(found, details, "word_shuffle")
    if kept is None:
        return None
    return warning(
        "order-free",
        "with its words shuffled a text is reconstructed as before: the AR reads a bag of words, "
        "and no statement of the text",
        retained=kept,
    )


def quoted_text_channel(found: Findings, details: Any, bench: Bench) -> Record | None:
    kept = details.get("ar_reading", {}).get("retained", {})
    bare, quoted = (kept.get(name) or {} for name in ("no_quotes", "quotes_only"))
    without, alone = bare.get("centred_cosine"), quoted.get("centred_cosine")
    if not (without and alone) or bare["changed"] < CHANGED:
        return None
    if without["high"] > LITTLE or alone["ratio"] < MOST:
        return None
    return warning(
        "quoted-text-channel",
        f"the strings in quotes alone keep {alone['ratio']:.0%} of the gain, and the text without "
        f"them {without['ratio']:.0%}: pasted text, not description",
        without_quotes=bare,
        quotes_alone=quoted,
    )


def av_ignores_vector(found: Findings, details: Any, bench: Bench) -> Record | None:
    gap = found.get("av_reading", "gap", "labels")
    own = found.get("av_reading", "same_text", "other_row")
    same = own["mean"] if own else 0.0
    blind = gap is not None and (gap["low"] <= 0 or gap["mean"] < LEAST_GAP)
    if not blind and same < 0.5:
        return None
    return warning(
        "av-ignores-vector",
        "the AV writes the same for another row's vector, or its labels cost as much with the "
        "wrong vector as with the right one: it does not read what is injected",
        gap=dict(gap) if gap else None,
        same_text_share=same,
    )


def routing(found: Findings, details: Any, bench: Bench) -> Record | None:
    """Silent where the labels do not find their documents inside a family either: then the test
    cannot see content."""
    measure = "within_family_percentile"
    families, inside, possible = [], [], []
    for method in ("tfidf", "embedding"):
        families.append(found.get("retrieval", "family_top1", f"{method}:explanation"))
        inside.append(found.get("retrieval", measure, f"{method}:explanation"))
        possible.append(found.get("retrieval", measure, f"{method}:label"))
    routed = [one for one in families if one and (one["gain_low"] or 0) > 0]
    known = [one for one in inside if one]
    if not routed or not known or any(one["low"] > MIDDLE for one in known):
        return None
    if any(possible) and not any(one["low"] > MIDDLE for one in possible if one):
        return None
    return warning(
        "routing",
        "the texts name the right family above chance, and inside it no document: routing, not "
        "content",
        family_gain=routed[0]["gain"],
        within_family_percentile=known[0]["mean"],
    )


def texts_cut(found: Findings, details: Any, bench: Bench) -> Record | None:
    share = found.mean("collapse", "cut", "explanation")
    if share is None or share <= CUT:
        return None
    return warning(
        "truncated-texts",
        f"{share:.0%} of the texts end at one and the same length without an end: they were cut "
        "when they were stored, and every count of repetitions is wrong",
        share=share,
    )


def scale_mismatch(found: Findings, details: Any, bench: Bench) -> Record | None:
    """By the norms alone, and by the sweep: another norm reads better than the contract's."""
    injection = details.get("av_reading", {}).get("injection") or {}
    ratios = [
        ratio
        for name in ("to_embedding_norm", "to_activation_norm")
        if (ratio := injection.get(name))
    ]
    if ratios and all(not 1 / GATE <= ratio <= GATE for ratio in ratios):
        return warning(
            "scale-mismatch",
            f"vectors are injected at norm {injection['norm']:.4g}, more than {GATE:.0f} times "
            "away from every norm of the subject: empty or constant texts are what follows",
            **injection,
        )
    for factor in (0.25, 0.5, 2, 4):
        over = found.get("av_sweep", "over_scale_1", f"scale_{factor:g}")
        own = found.get("av_sweep", "centred_cosine", f"scale_{factor:g}")
        if not (over and own) or over["mean"] < BETTER or over["low"] <= 0:
            continue
        if (own["gain_low"] or 0) > 0:
            return warning(
                "scale-mismatch",
                f"the AV reads better at {factor:g} times the norm of its contract: it was "
                "trained at another scale",
                factor=factor,
                gain=over["mean"],
                low=over["low"],
                high=over["high"],
            )
    return None


def beaten_by_neighbour(found: Findings, details: Any, bench: Bench) -> Record | None:
    own = found.get("baselines", "centred_cosine", "real")
    if own is None or own["floor"] != "nearest_label" or own["gain_low"] > 0:
        return None
    return warning(
        "beaten-by-nearest-neighbour",
        "the label of the nearest training vector does as well as the AV's text: no NLA is needed "
        "for what this one says",
        gain=own["gain"],
        low=own["gain_low"],
        high=own["gain_high"],
    )


def unsupported_quotes(found: Findings, details: Any, bench: Bench) -> Record | None:
    own = found.get("truth", "quote_precision", "explanation")
    label = found.get("truth", "quote_precision", "label")
    if own is None or own["rows"] < QUOTING * len(bench) or (own["gain_low"] or 0) > 0:
        return None
    return warning(
        "unsupported-quotes",
        f"{own['mean']:.0%} of what the texts put in quotes stands in the source, no more than in "
        "another document's: the quoted words are invented",
        quote_precision=own["mean"],
        gain=own["gain"],
        labels=label["mean"] if label else None,
    )


Rule = Callable[[Findings, Any, Bench], Record | None]
RULES: tuple[Rule, ...] = (
    constant_reconstructor,
    reads_opening_only,
    order_free,
    quoted_text_channel,
    av_ignores_vector,
    routing,
    texts_cut,
    scale_mismatch,
    beaten_by_neighbour,
    unsupported_quotes,
)
