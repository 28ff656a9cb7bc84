"""What the page says of a pair, and of words: floors, levels, deletions, neighbours."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlakit.core.metrics import centred_cosine
from nlakit.serve.engine import Engine
from nlakit.serve.pages import readouts, streams
from nlakit.serve.pages.pairs import Marks, Pair, opening_of
from nlakit.serve.pages.streams import Job
from tests.conftest import D
from tests.serve.explored import RESULTS, ROWS, beside, toy_pair


@pytest.fixture
def pair(toy_subject: Any, tmp_path: Path) -> Any:
    nla = toy_pair(toy_subject("llama"))
    engine = Engine(nla, batch=2)
    yield Pair("toy", engine, beside(tmp_path / "pair", nla))
    engine.close()


def test_a_score_stands_beside_both_floors(pair: Pair, vectors: np.ndarray) -> None:
    nla, assert_close = pair.nla, np.testing.assert_allclose
    (mark,) = pair.marks(vectors[:1], ["A whale."])
    assert mark is not None and pair.rows is not None and nla.mean is not None
    own = nla.score(["A whale."], vectors[:1])[0]
    assert_close(mark.value, own.centred_cosine, atol=1e-9)
    assert_close(mark.fve, own.fve, atol=1e-9)
    assert_close(mark.empty, nla.score([""], vectors[:1])[0].centred_cosine, atol=1e-6)
    others = nla.reconstruct(pair.rows.texts[:16])
    by_hand = centred_cosine(np.tile(vectors[:1], (16, 1)), others, nla.mean)
    assert_close(mark.other, by_hand.mean(), atol=1e-6)
    assert mark.beaten == (mark.value > by_hand).sum()


@pytest.mark.parametrize(
    ("value", "level"), [(0.05, 0), (0.1, 0), (0.2, 1), (0.35, 2), (0.55, 3), (0.75, 4), (-0.3, 0)]
)
def test_a_colour_is_the_score_over_the_higher_floor(value: float, level: int) -> None:
    assert Marks(value, empty=0.1, other=-0.2, beaten=0, cosine=0, fve=None).level == level


@pytest.mark.parametrize("word", ["collapsed", "content-blind", "weak"])
def test_a_pair_that_does_not_read_opens_with_that(word: str) -> None:
    opening = opening_of(RESULTS | {"verdict": {"word": word}})
    assert opening.doubt and opening.word == word
    assert "0.020 [−0.100, 0.100]" in opening.sentence


def test_a_pair_of_which_nothing_is_known_says_so() -> None:
    halves: list[Any] = [None, {}, {"verdict": {"word": "new word"}}, {"verdict": None}]
    assert {opening_of(one).word for one in halves} == {"not evaluated"}
    assert not opening_of(RESULTS).doubt


def fake_ar(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """An AR that reads one word, `key`; the direction that it gives for it."""
    rng = np.random.default_rng(1)
    key, other = rng.standard_normal((2, D))

    def reconstruct(texts: Any) -> np.ndarray:
        noise = rng.standard_normal((len(texts), D)) * 1e-3
        return np.array([key if "key" in text.split() else other for text in texts]) + noise

    monkeypatch.setattr(pair.nla, "reconstruct", reconstruct)
    return key[None]


def test_the_word_that_carries_is_marked_alone(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = fake_ar(pair, monkeypatch)
    words = "It has to do with a key and with nothing else in all of the long text here at hand"
    found, floor = readouts.carried(pair, vector[0], words)
    assert {one.words for one in found if one.strength} == {"key"}
    assert max(one.strength for one in found) == 3
    assert all(abs(one.cost) <= floor for one in found if not one.strength)
    assert readouts.carried(pair, vector[0], "") == ([], 0.0)


def test_an_edit_is_compared_with_what_was(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    vector = fake_ar(pair, monkeypatch)
    found = readouts.moved(pair, vector[0], "the key", "the lock")
    assert found.before.value > 0.99 > found.after.value
    assert found.alike < 0.9 and found.towards is not None
    same = readouts.moved(pair, vector[0], "the key", "a key")
    assert same.alike > 0.99


def test_the_nearest_row_is_found(pair: Pair) -> None:
    assert pair.rows is not None
    found, mean = readouts.nearest(pair, pair.rows.vectors[7] * 3)
    assert found[0].document == "doc-7" and found[0].value == pytest.approx(1)
    assert len(pair.rows) == ROWS and abs(mean) < 0.2


def test_the_subject_guesses_what_it_guesses(pair: Pair) -> None:
    async def read() -> Any:
        return await pair.read("A whale", "text")

    reading = asyncio.run(read())
    found = readouts.guesses(reading, 3)
    import torch

    with torch.no_grad():
        logits = pair.nla.subject.model(torch.tensor([reading.ids[:4]])).logits[0, -1]
    chances = torch.softmax(logits.float(), -1)
    assert [one.chance for one in found] == pytest.approx(chances.topk(8).values.tolist())


def test_words_are_marked_by_how_they_recur() -> None:
    samples = ["A whale and a letter.", "A whale again.", "The whale.", "Nothing."]
    found = readouts.recurring("A passage on whale and harbour.", samples, [])
    assert "".join(one.text for one in found) == "A passage on whale and harbour."
    levels = {one.text: one.level for one in found}
    assert levels["whale"] == "again" and levels["harbour"] == "alone"


def test_marks_come_with_what_they_are_worth(pair: Pair, tmp_path: Path) -> None:
    assert pair.worth is None
    figure = {"auc": {"samples": {"mean": 0.67, "low": 0.6, "high": 0.7}}}
    results = RESULTS | {"parts": {"recurrence": {"detail": {"figure": figure}}}}
    known = Pair("known", pair.engine, beside(tmp_path / "known", pair.nla, results))
    assert known.worth == figure

    async def controls() -> int:
        return len(await known.controls(""))

    assert asyncio.run(controls()) == 8


def test_who_leaves_takes_the_rest_with_him(pair: Pair) -> None:
    async def leave() -> int:
        reading = await pair.read("A whale rises near mark 7.", "text")
        job = Job(reading, range(len(reading.ids)), "a", "")
        events = streams.many(job, lambda told, count: str(count))
        await anext(events)
        await events.aclose()
        return len(reading.told)

    told = asyncio.run(leave())
    for _ in range(200):
        if not pair.engine.writing and not pair.engine.waiting:
            break
        time.sleep(0.05)
    assert pair.engine.writing == pair.engine.waiting == 0
    assert 0 < told < 10


def test_texts_are_held_up_to_a_limit(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nlakit.serve.pages.pairs.HELD", 30)

    async def read() -> list[int]:
        first = await pair.read("A whale rises", "text")
        assert await pair.read("A whale rises", "text") is first
        for text in ("The river turns", "The violin sings", "x" * 40):
            await pair.read(text, "text")
        return [len(one.ids) for one in pair._readings.values()]

    assert asyncio.run(read()) == [41]
