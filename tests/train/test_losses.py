"""The AR's loss and the tiled head, by hand and against the plain way."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from nlakit.files.rows import TableRows
from nlakit.models import head
from nlakit.models.head import tiled_nll
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.ar import ar_loss, measure_ar
from nlakit.train.av import measure_av
from tests.conftest import SMALL_LORA, D, build_contract


def test_ar_loss_by_hand() -> None:
    real, mean = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0.5, 0.5])
    made = torch.tensor([[1.0, 0.0], [3.0, 3.0]])
    loss, extras = ar_loss(made, real, mean, 0.5, 0.0, 0.1)
    assert float(loss) == pytest.approx((0 + 2 - math.sqrt(2)) / 2 / 0.5)
    assert extras["train_fve"] == pytest.approx(1 - float(loss), abs=1e-5)


def test_contrastive_term_rewards_the_right_row() -> None:
    real = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    mean = torch.tensor([0.5, 0.5])
    right, _ = ar_loss(real, real, mean, 0.5, 1.0, 0.1)
    wrong, _ = ar_loss(real.flip(0), real, mean, 0.5, 1.0, 0.1)
    # cosines are 1 and −1: cross-entropy log(1 + e^(−20)) and 20 + log(1 + e^(−20))
    assert float(right) == pytest.approx(0, abs=1e-5)
    assert float(wrong) == pytest.approx(4 + 20, rel=1e-4)


def test_loss_survives_a_zero_reconstruction() -> None:
    made = torch.zeros(2, 3, requires_grad=True)
    loss, _ = ar_loss(made, torch.eye(3)[:2], torch.zeros(3), 1.0, 0.1, 0.1)
    loss.backward()
    assert made.grad is not None
    assert torch.isfinite(made.grad).all()


@pytest.mark.parametrize(("softcap", "temperature"), [(None, 1.0), (5.0, 1.0), (5.0, 0.7)])
def test_tiled_nll_equals_the_plain_way(
    softcap: float | None, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "TILE", 16)  # four tiles, the last one short
    torch.manual_seed(0)
    weight = torch.randn(50, 8)
    hidden = torch.randn(150, 8, requires_grad=True)
    targets = torch.randint(0, 50, (150,))
    logits = hidden @ weight.T
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    plain = cross_entropy(logits / temperature, targets, reduction="none")
    scale = torch.rand(150)
    (plain * scale).sum().backward()
    expected, hidden.grad = hidden.grad, None
    found = tiled_nll(hidden, weight, targets, softcap, temperature=temperature)
    (found * scale).sum().backward()
    assert torch.allclose(found, plain, atol=1e-5)
    assert hidden.grad is not None
    assert expected is not None
    assert torch.allclose(hidden.grad, expected, atol=1e-5)


def build_table(vectors: np.ndarray) -> TableRows:
    n = len(vectors)
    names = [f"r{i}" for i in range(n)]
    texts = [f"label number {i}" for i in range(n)]
    return TableRows(
        names, [f"d{i}" for i in range(n)], texts, texts, ["f"] * n, ["x"] * n, [60] * n, vectors
    )


def test_planted_mode_9_posterior_collapse_has_no_gap(
    toy_subject: Any, vectors: np.ndarray
) -> None:
    """An AV that ignores its vector: its loss may be anything, its gap is nothing."""
    subject = toy_subject()
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    rows = build_table(vectors)
    honest = measure_av(av, rows, 64)
    real_scaled = av.scaled
    av.scaled = lambda v: torch.ones_like(real_scaled(v))  # type: ignore[method-assign]
    blind = measure_av(av, rows, 64)
    assert blind["gap_nats"] == 0.0
    assert blind["loss_right"] > 0
    assert honest["gap_nats"] != 0.0


def test_measure_ar_has_its_floors(toy_subject: Any, vectors: np.ndarray) -> None:
    from nlakit.models.reconstructor import Reconstructor

    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    found = measure_ar(ar, build_table(vectors), np.full(D, 0.1))
    assert set(found) == {
        f"{measure}_{name}" for measure in ("fve", "centred") for name in ("real", "empty", "other")
    } | {"gain_fve", "gain_low"}
    assert (
        found["gain_low"]
        <= found["gain_fve"]
        == pytest.approx(found["fve_real"] - found["fve_empty"])
    )
