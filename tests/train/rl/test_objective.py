"""Advantages, weights of tokens and the distance from the start, against values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nlakit.train.rl.objective import advantages, best_of_n, divergence, policy_loss

REWARDS = np.array([[1.0, 3.0], [5.0, 5.0], [0.0, 8.0]])


def test_group_advantages_by_hand() -> None:
    expected = [[-1, 1], [0, 0], [-1, 1]]
    np.testing.assert_allclose(advantages(REWARDS, "group"), expected)


def test_batch_advantages_share_one_scale() -> None:
    scale = math.sqrt((1 + 1 + 0 + 0 + 16 + 16) / 6)
    expected = np.array([[-1, 1], [0, 0], [-4, 4]]) / scale
    np.testing.assert_allclose(advantages(REWARDS, "batch"), expected)


def test_the_furthest_texts_stand_for_their_group() -> None:
    rewards = np.array([[3.0, 1.0, 2.0, 9.0, 2.5]])
    np.testing.assert_allclose(advantages(rewards, "group", 2), [[0, -1, 0, 1, 0]])
    found = advantages(rewards, "group", 4)  # 1 and 2, 3 and 9
    assert found[0, 4] == 0 and found.sum() == pytest.approx(0)
    every = advantages(rewards, "group")
    np.testing.assert_allclose(advantages(rewards, "group", 5), every)


def test_the_best_text_of_a_vector_is_its_label() -> None:
    np.testing.assert_array_equal(best_of_n(REWARDS), [[0, 1], [0, 0], [0, 1]])


@given(
    arrays.arrays(np.float64, (3, 4), elements=st.floats(-5, 5)),
    st.sampled_from(["group", "batch"]),
)
def test_advantages_of_a_vector_sum_to_zero(rewards: np.ndarray, kind: str) -> None:
    found = advantages(rewards, kind)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-6)
    alike = rewards.std(axis=1) <= 1e-6
    assert not found[alike].any()


def test_on_the_policy_both_updates_have_the_gradient_of_reinforce() -> None:
    for update in ("clip", "cispo"):
        log_p = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
        advantage = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        policy_loss(log_p, log_p.detach(), advantage, update, 0.2, 0.28).sum().backward()  # type: ignore[arg-type]
        assert log_p.grad is not None
        torch.testing.assert_close(log_p.grad, -advantage)


@pytest.mark.parametrize(
    ("update", "ratio", "advantage", "gradient"),
    [
        ("clip", 1.1, 1.0, -1.1),  # within the bounds: −ρA
        ("clip", 1.5, 1.0, 0.0),  # too likely already
        ("clip", 1.5, -1.0, 1.5),  # too likely and bad: pushed down
        ("clip", 0.5, -1.0, 0.0),
        ("cispo", 1.5, 1.0, -1.28),  # the weight is bounded, the gradient stays
        ("cispo", 0.5, -1.0, 0.5),
    ],
)
def test_off_the_policy(update: str, ratio: float, advantage: float, gradient: float) -> None:
    log_p = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([advantage], dtype=torch.float64)
    policy_loss(log_p, torch.zeros(1).double(), weight, update, 0.2, 0.28).sum().backward()  # type: ignore[arg-type]
    assert log_p.grad is not None
    assert float(log_p.grad) == pytest.approx(gradient)


def test_divergence_is_unbiased_and_zero_where_nothing_moved() -> None:
    p, q = torch.tensor([0.7, 0.2, 0.1]).double(), torch.tensor([0.5, 0.25, 0.25]).double()
    estimates = divergence(p.log(), q.log())
    assert bool((estimates >= 0).all())
    kl = float((p * (p / q).log()).sum())
    assert float((p * estimates).sum()) == pytest.approx(kl)
    assert not divergence(p.log(), p.log()).any()
