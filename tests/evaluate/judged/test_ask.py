"""Parts that ask a language model, with judges that follow a script."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from nlakit.evaluate.judged import claims as judged_claims
from nlakit.evaluate.judged import quality as judged_quality
from nlakit.evaluate.judged.claims import verdicts_form
from nlakit.evaluate.judged.quality import Quality
from tests.evaluate.benches import Scripted, text_bench

SOURCES = ["a storm at sea", "a feast in Rome", "a trial for theft", "a lost child"]
TEXTS = ["About storm. It has gold.", "About feast. It has iron.", "About trial.", ""]


def by_lookup(form: str, prompt: str) -> Any:
    """Claims: the sentences; true if their last word is in the source. Ratings: 5 if so, else 1."""
    source = re.search(r"<source>\n(.*)\n</source>", prompt)
    if form == "Claims":
        text = re.search(r"<explanation>\n(.*)\n</explanation>", prompt)
        assert source is None, "claims are extracted without a look at the source"
        assert text
        return {"claims": [
            {"span": s + ".", "claim": s, "specificity": "entity" if "has" in s else "theme"}
            for s in text[1].rstrip(".").split(". ")
        ]}  # fmt: skip
    assert source
    if form == "Verdicts":
        said = re.findall(r"(?m)^\d\. .*?(\w+)$", prompt)
        return {"verdicts": ["true" if word in source[1] else "false" for word in said]}
    found = any(word in prompt.split("<explanation>")[1] for word in source[1].split()[1:2])
    return {
        "reasons": "",
        **dict.fromkeys(("validity", "specificity", "relatedness"), 1 + 4 * found),
    }


def test_claims_by_hand() -> None:
    judge = Scripted(by_lookup)
    part = judged_claims.measure(text_bench(SOURCES, TEXTS, judge=judge))
    of = part.of
    assert of("claims", "explanation").tolist() == [2, 2, 1, 0]
    assert of("fabricated", "explanation").tolist() == [1, 1, 0, 0]
    assert of("claim_precision", "explanation")[:3].tolist() == [0.5, 0.5, 1.0]
    assert of("claim_precision_theme", "explanation")[:3].tolist() == [1, 1, 1]
    assert of("claim_precision_entity", "explanation")[:2].tolist() == [0, 0]
    assert np.isnan(of("claim_precision", "explanation")[3])
    assert np.isnan(of("claim_precision_detail", "explanation")).all()
    floor = of("claim_precision", "other_row")
    assert floor[~np.isnan(floor)].max() == 0
    assert part.texts["explanation"] == TEXTS
    assert "no AR: what the claims carry was not measured" in part.notes
    # Three texts are extracted once each, the empty one never; one prompt a row verifies.
    assert sum(form == "Claims" for form, _ in judge.asked) == 3


def test_planted_template_claims_recur() -> None:
    texts = [f"It is English prose. About {source.split()[1]}." for source in SOURCES]
    part = judged_claims.measure(text_bench(SOURCES, texts, judge=Scripted(by_lookup)))
    assert part.detail["claims"][0][0]["recurs_in"] == 3
    assert part.detail["claims"][0][1]["recurs_in"] == 0
    assert part.of("recurrence", "explanation").tolist() == [0.5] * 4


class GoldReader:
    """An AR for which gold is the right direction and everything else the opposite."""

    def reconstruct(self, texts: list[str]) -> Any:
        return np.array([[1.0 if "gold" in text else -1.0, 0] for text in texts], dtype=np.float32)


def test_planted_a_false_claim_that_carries_the_vector_shows_in_delta_fve() -> None:
    """The AR reads “gold”, which no source has: FVE is high and the claim is false."""
    texts = ["About storm. It has gold.", "About feast. It has gold.", "It has gold.", ""]
    bench = text_bench(SOURCES, texts, judge=Scripted(by_lookup), ar=GoldReader())
    part = judged_claims.measure(bench)
    # From u = û to û = −u: ‖u − û‖² from 0 to 4, over a baseline of 1.
    assert part.of("delta_fve_false", "explanation")[:3].tolist() == [4, 4, 4]
    assert part.of("delta_fve_true", "explanation")[:2].tolist() == [0, 0]
    assert part.detail["claims"][0][1]["delta_fve"] == 4
    assert set(part.of("delta_fve_false", "random_span")[:2].tolist()) <= {0.0, 4.0}
    one = next(m for m in part.measured if m.measure == "delta_fve_false")
    assert one.floor == "random_span"


def test_a_claim_without_its_span_is_not_deleted_and_counted() -> None:
    def script(form: str, prompt: str) -> Any:
        found = by_lookup(form, prompt)
        if form == "Claims":
            found["claims"][0]["span"] = "words that stand nowhere"
        return found

    bench = text_bench(SOURCES, TEXTS, judge=Scripted(script), ar=GoldReader())
    part = judged_claims.measure(bench)
    assert "3 claims quote no span of their explanation: not deleted" in part.notes
    assert np.isnan(part.of("delta_fve_true", "explanation")).all()


@pytest.mark.parametrize("fails", ["Claims", "Verdicts"])
def test_planted_failures_of_the_judge_are_counted_and_never_scored(fails: str) -> None:
    def script(form: str, prompt: str) -> Any:
        bad = form == fails and ("About feast" in prompt)
        return None if bad else by_lookup(form, prompt)

    part = judged_claims.measure(text_bench(SOURCES, TEXTS, judge=Scripted(script)))
    for name in ("claims", "fabricated", "claim_precision"):
        assert np.isnan(part.of(name, "explanation")[1]), name
    assert part.of("claims", "explanation")[[0, 2, 3]].tolist() == [2, 1, 0]
    what = {"Claims": "claims could not be extracted", "Verdicts": "verdicts failed"}[fails]
    assert f"explanation: {what} in 1 of 4 rows; not scored" in part.notes


def test_planted_failures_of_ratings_are_counted_and_never_scored() -> None:
    def script(form: str, prompt: str) -> Any:
        return None if "About feast" in prompt else by_lookup(form, prompt)

    part = judged_quality.measure(text_bench(SOURCES, TEXTS, judge=Scripted(script)))
    quality = part.of("quality", "explanation")
    assert np.isnan(quality[1])
    assert quality[[0, 2, 3]].tolist() == [1, 1, 0]
    assert "explanation: ratings failed in 1 of 4 rows; not scored" in part.notes
    assert part.detail["explanation"][1] is None


def test_quality_is_the_product_from_0_to_1_and_an_empty_text_has_none() -> None:
    assert Quality(reasons="", validity=5, specificity=5, relatedness=5).product == 1
    assert Quality(reasons="", validity=1, specificity=1, relatedness=1).product == 0
    assert Quality(reasons="", validity=4, specificity=2, relatedness=3).product == 23 / 124
    judge = Scripted(by_lookup)
    labels = [f"About {source.split()[1]}" for source in SOURCES]
    part = judged_quality.measure(text_bench(SOURCES, TEXTS, labels, judge=judge))
    assert part.of("validity", "explanation").tolist() == [5, 5, 5, 1]
    assert part.of("quality", "label").tolist() == [1, 1, 1, 1]
    assert part.of("quality", "other_row").tolist() == [0, 0, 0, 0]
    assert not any("<explanation>\n\n" in prompt for _, prompt in judge.asked)


def test_planted_a_judge_who_says_yes_to_everything_gains_nothing() -> None:
    def script(form: str, prompt: str) -> Any:
        if form == "Verdicts":
            return {"verdicts": ["true"] * len(re.findall(r"(?m)^\d\. ", prompt))}
        return by_lookup(form, prompt)

    part = judged_claims.measure(text_bench(SOURCES[:3], TEXTS[:3], judge=Scripted(script)))
    real, floor = (part.of("claim_precision", c) for c in ("explanation", "other_row"))
    assert (real - floor).tolist() == [0, 0, 0]


def test_only_the_first_rows_are_judged() -> None:
    bench = text_bench(SOURCES, TEXTS, judge=Scripted(by_lookup), settings={"judge_rows": 2})
    for part, name in (
        (judged_claims.measure(bench), "claims"), (judged_quality.measure(bench), "quality"),
    ):  # fmt: skip
        assert np.isnan(part.of(name, "explanation")).tolist() == [False, False, True, True]
        assert part.texts["explanation"][2:] == [None, None]
        assert "the judge saw 2 of 4 rows" in part.notes


@pytest.mark.parametrize("module", [judged_claims, judged_quality])
def test_without_a_judge_there_is_a_note(module: Any) -> None:
    part = module.measure(text_bench(SOURCES, TEXTS))
    assert part.measured == []
    assert part.notes == ["no judge is configured (eval.judge), so nothing was judged"]


def test_too_few_verdicts_are_no_answer() -> None:
    with pytest.raises(ValidationError):
        verdicts_form(2).model_validate({"verdicts": ["true"]})
    schema = verdicts_form(2).model_json_schema()["properties"]["verdicts"]
    assert (schema["minItems"], schema["maxItems"]) == (2, 2)


def test_a_row_without_a_source_is_not_judged() -> None:
    """Planted: an empty source, against which every claim would be false."""
    judge = Scripted(by_lookup)  # fails on a prompt without a source
    bench = text_bench(["", *SOURCES[1:]], TEXTS, judge=judge)
    part = judged_claims.measure(bench)
    for condition in ("explanation", "other_row"):
        assert np.isnan(part.of("claims", condition)[0])
    assert part.of("claims", "explanation")[1] == 2
    assert "1 of them have no source to be judged by" in part.notes
    rated = judged_quality.measure(bench)
    for condition in ("explanation", "other_row", "label", "label_other_row"):
        assert np.isnan(rated.of("quality", condition)[0]), condition
