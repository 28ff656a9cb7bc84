"""What a text is worth: each part by itself, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nlakit.config.rl import RewardConfig
from nlakit.train.rl.reward import ORTHOGONAL, Rewarder, worth
from nlakit.train.rl.rollout import Rollouts

REAL = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
MEAN = np.array([0.5, 0.5])


class Reads:
    """An AR that knows what each text is of."""

    def __init__(self, **known: list[float]) -> None:
        self.known, self.seen = known, list[str]()

    def eval(self) -> None: ...

    def reconstruct(self, texts: list[str]) -> np.ndarray:
        self.seen += texts
        return np.array([self.known[text.split()[0]] for text in texts], dtype=np.float32)


class Spells:
    """An AV whose tokens are words; the last of a whole text is its tag."""

    close = (9,)

    def text_of(self, tokens: list[int]) -> str:
        return " ".join(["right", "b", "c", "d"][: len(tokens)])


def rollouts(*texts: str, whole: tuple[bool, ...] = (True,) * 4) -> Rollouts:
    tokens = [list(range(len(text.split()))) for text in texts]
    log_p = [[-0.5 * (at + 1)] * len(one) for at, one in enumerate(tokens)]
    return Rollouts(2, tokens, log_p, list(texts), np.array(whole[: len(texts)]))


def rewarder(live: Reads, frozen: Reads, goes_on: Any = None, **given: Any) -> Rewarder:
    settings = RewardConfig.model_validate(given)
    av: Any = Spells()
    ars: Any = (live, frozen)
    return Rewarder(settings, av, *ars, MEAN, 10, goes_on)


def test_worth_by_hand() -> None:
    made = np.array([[3.0, 0.0], [1.0, 1.0]])
    half = 2 - math.sqrt(2)
    np.testing.assert_allclose(worth("mse", REAL, made, MEAN), [0, -half], atol=1e-6)
    np.testing.assert_allclose(worth("log_mse", REAL, made, MEAN)[1], -math.log(half))
    np.testing.assert_allclose(worth("centred", REAL[:1], made[:1], MEAN), [1.0])


@pytest.mark.parametrize("kind", ORTHOGONAL)
def test_a_failed_text_is_worth_an_orthogonal_reconstruction(kind: Any) -> None:
    right = np.array([[0.0, 1.0]])
    if kind != "centred":  # of which it is 0 by definition
        np.testing.assert_allclose(worth(kind, REAL[:1], right, MEAN), ORTHOGONAL[kind])
    drawn = rollouts("right", "right", whole=(True, False))
    live = Reads(right=[1.0, 0.0])
    parts = rewarder(live, live, kind=kind).parts(drawn, REAL[:1], [""], [0])
    total = sum(parts.values())
    assert total[1] == pytest.approx(ORTHOGONAL[kind]) and total[0] > total[1]


def test_the_frozen_ar_pays_its_share() -> None:
    live, frozen = Reads(code=[1.0, 0.0]), Reads(code=[0.0, 1.0])
    for share, expected in ((0.0, [0, 0]), (1.0, [-2, -2]), (0.25, [-0.5, -0.5])):
        drawn = rollouts("code", "code")
        parts = rewarder(live, frozen, frozen_share=share).parts(drawn, REAL[:1], [""], [0])
        np.testing.assert_allclose(sum(parts.values()), expected, atol=1e-6)
    assert set(parts) == {"live", "frozen"}


def test_length_and_entropy() -> None:
    live = Reads(a=[1.0, 0.0])
    drawn = rollouts("a b c", "a b c d e")
    given = {"length": 2.0, "free_tokens": 3, "entropy": 0.1}
    parts = rewarder(live, live, **given).parts(drawn, REAL[:1], [""], [0])
    np.testing.assert_allclose(parts["length"], [0, -2 * 2 / 10])
    np.testing.assert_allclose(parts["entropy"], [0.05, 0.1])


def test_a_prefix_is_what_the_ar_sees() -> None:
    live = Reads(right=[1.0, 0.0])
    drawn = rollouts("right b c d", "right b c d")
    rewarder(live, live, prefix_share=1.0).parts(drawn, REAL[:1], [""], [3])
    assert live.seen and all(len(text.split()) < 4 for text in live.seen)
    long = rollouts("right b c", "right b c")
    for key in range(8):
        live.seen.clear()
        rewarder(live, live, prefix_share=1.0).parts(long, REAL[:1], [""], [key])
        assert set(live.seen) == {"right"}  # a cut behind b would be one inside the tag
    live.seen.clear()
    rewarder(live, live).parts(drawn, REAL[:1], [""], [3])
    assert set(live.seen) == {"right b c d"}


def test_sentences_in_another_order_are_paid_too() -> None:
    live = Reads(**{"One": [1.0, 0.0], "Two": [0.0, 1.0]})
    drawn = rollouts("One is. Two is.", "One is. Two is.")
    parts = rewarder(live, live, shuffle=0.5).parts(drawn, REAL[:1], [""], [0])
    np.testing.assert_allclose(parts["shuffle"], [-1, -1], atol=1e-6)  # it is read as Two


def test_what_the_subject_does_is_paid_by_source() -> None:
    seen: list[tuple[str, list[list[float]]]] = []

    def functional(source: str, made: np.ndarray) -> np.ndarray:
        seen.append((source, made.tolist()))
        return np.array([1.0, 2.0])

    live = Reads(right=[1.0, 0.0])
    drawn = rollouts("right", "right", "right", "right", whole=(True, False, True, True))
    made = rewarder(live, live, functional, functional=0.5)
    parts = made.parts(drawn, REAL, ["first", "second"], [0])
    np.testing.assert_allclose(parts["functional"], [-0.5, -1, -0.5, -1])
    assert seen == [("first", [[1, 0], [0.5, 0.5]]), ("second", [[1, 0], [1, 0]])]
