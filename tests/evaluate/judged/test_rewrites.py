"""Rewrites by a scripted judge: gated, scored beside the empty text, failures counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from nlakit.evaluate.bench import Part
from nlakit.evaluate.judged.rewrites import PROMPTS, faithful, measure, rewritten
from tests.evaluate.benches import Scripted
from tests.evaluate.readers import D, N, bare, content, honest, meaning, reader_bench

ROWS = 20


def inside(prompt: str) -> str:
    """The text that a prompt holds."""
    return prompt.split("<explanation>\n")[1].split("\n</explanation>")[0]


def obedient(form: str, prompt: str) -> Any:
    """Answers with one word changed, with two sentences of three, or with the first words."""
    words = inside(prompt).split()
    if prompt.startswith(PROMPTS["summary"]):
        words = words[:4]
    elif prompt.startswith(PROMPTS["coherence"]):
        words = words[:16]
    else:
        words[0] = "other"
    return {"text": " ".join(words)}


def embed(texts: Sequence[str]) -> np.ndarray:
    """By the words, in any order."""
    made = [sum((meaning(word) for word in bare(text)), np.zeros(D)) for text in texts]
    return np.stack(made)


def test_rewrites_are_scored_on_the_judges_rows_and_the_controls_lose() -> None:
    part = rewritten(reader_bench(honest), Scripted(obedient), None)
    for name in (*PROMPTS, "back_translation"):
        known = ~np.isnan(part.of("fve", name))
        assert known.tolist() == [True] * ROWS + [False] * (N - ROWS)
        assert next(m for m in part.measured if m.condition == name).floor == "empty"
    kept = {name: found["fve"]["ratio"] for name, found in part.detail["retained"].items()}
    assert kept["light_paraphrase"] > 0.9 > kept["coherence"] > kept["summary"]
    assert any("gated on their length alone" in note for note in part.notes)
    assert Part.parse(part.dump()).texts == part.texts


def test_translation_and_back_asks_twice() -> None:
    judge = Scripted(obedient)
    part = rewritten(reader_bench(honest), judge, None)
    assert len(judge.asked) == ROWS * (len(PROMPTS) + 2)
    assert {form for form, _ in judge.asked} == {"Rewrite"}
    abroad = part.texts["abroad"][0]
    assert abroad is not None and inside(judge.asked[-ROWS][1]) == abroad


def test_unfaithful_rewrites_are_kept_as_texts_counted_and_not_scored() -> None:
    def wild(form: str, prompt: str) -> Any:
        if prompt.startswith(PROMPTS["light_paraphrase"]):
            return {"text": "far too short"}
        if prompt.startswith(PROMPTS["aggressive_paraphrase"]):
            return {"text": " ".join(f"nothing{k}" for k in range(24))}
        return obedient(form, prompt)

    part = rewritten(reader_bench(honest), Scripted(wild), embed)
    for name in ("light_paraphrase", "aggressive_paraphrase"):
        assert np.isnan(part.of("fve", name)).all()
        assert part.texts[name][0] is not None
        assert f"{name}: the rewrite is not faithful in 20 of 20 rows; not scored" in part.notes
    assert np.nanmax(part.of("similarity", "aggressive_paraphrase")) < 0.6
    assert np.nanmin(part.of("similarity", "back_translation")) > 0.6


def test_a_failing_judge_is_counted_and_never_scored() -> None:
    bench = reader_bench(honest)
    judge = Scripted(lambda form, prompt: None if inside(prompt) == bench.texts[1] else
                     obedient(form, prompt))  # fmt: skip
    part = rewritten(bench, judge, None)
    assert np.isnan(part.of("fve", "light_paraphrase")[1])
    assert not np.isnan(part.of("fve", "light_paraphrase")[2])
    assert "back_translation: rewriting failed in 1 of 20 rows; not scored" in part.notes


def test_an_empty_text_is_its_own_rewrite_and_nothing_is_asked() -> None:
    judge = Scripted(obedient)
    part = rewritten(reader_bench(honest, texts=["", "", "", ""]), judge, embed)
    assert judge.asked == []
    assert part.of("fve", "summary").tolist() == part.of("fve", "empty").tolist()


def test_planted_reader_of_wording_alone_loses_by_faithful_paraphrase() -> None:
    known = {text: honest(text) for text in reader_bench(honest).texts}
    part = rewritten(
        reader_bench(lambda text: known.get(text, content([], 0))), Scripted(obedient), embed
    )
    assert part.detail["retained"]["light_paraphrase"]["fve"]["high"] < 0.05


@pytest.mark.parametrize(
    ("ratio", "near", "as_long", "passes"),
    [
        (0.5, 0.6, True, True), (0.49, 0.9, True, False), (2.1, 0.9, True, False),
        (1.0, 0.59, True, False), (0.1, 0.6, False, True), (np.nan, np.nan, True, True),
    ],
)  # fmt: skip
def test_the_gate(ratio: float, near: float, as_long: bool, passes: bool) -> None:
    assert faithful(np.array([ratio]), np.array([near]), as_long).tolist() == [passes]


def test_without_a_judge_or_an_ar_a_note_stands_in_place_of_numbers() -> None:
    assert "no judge" in measure(reader_bench(honest)).notes[0]
    assert "no AR" in measure(reader_bench(None, judge=Scripted(obedient))).notes[0]
