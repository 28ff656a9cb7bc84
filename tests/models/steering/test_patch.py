"""A vector put back at block K: in closed form, against a plain forward, and nothing else moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlakit.errors import DataError
from nlakit.models.steering import patch
from nlakit.models.steering.patch import Patcher, patching
from nlakit.models.subject import activations_of, capture, decoder_of
from nlakit.models.weights import trainable
from tests.conftest import FAMILIES, SMALL_LORA, D

TEXT = [2, 10, 45, 60, 33, 80, 21, 9, 44, 70, 31, 90, 12, 55, 66, 30, 31, 32, 33, 34, 50, 51, 52,
        7, 8, 9, 61, 62]  # fmt: skip
everywhere = pytest.mark.parametrize("family", FAMILIES)


def drawn(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, D)).astype(np.float32) * 7


def patcher_of(subject: Any, layer: int | None = None) -> Patcher:
    at = subject.config.layer if layer is None else layer
    return Patcher(subject.model, decoder_of(subject.model), at)


def divergence(plain: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    p, q = plain.double().log_softmax(-1), other.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


@pytest.mark.parametrize("family", ["gemma3", "llama", "phi"])
def test_behind_the_last_block_the_head_is_all_that_follows(toy_subject: Any, family: str) -> None:
    """logits = head(norm(v)), with v at the norm of the activation."""
    subject = toy_subject(family)
    decoder: Any = decoder_of(subject.model)
    own = torch.tensor(activations_of(decoder, TEXT, subject.blocks - 1)[-1])
    vectors = torch.tensor(drawn())
    put = vectors / vectors.norm(dim=1, keepdim=True) * own.norm()
    norm = decoder.final_layernorm if family == "phi" else decoder.norm
    with torch.no_grad():
        plain, made = (subject.model.lm_head(norm(v)) for v in (own[None], put))
    found = patcher_of(subject, subject.blocks - 1).effect(TEXT, drawn())
    np.testing.assert_allclose(found.kl, divergence(plain, made), rtol=1e-4, atol=1e-5)
    assert found.kept.tolist() == (made.argmax(-1) == plain.argmax()).tolist()
    np.testing.assert_allclose(found.own, own, rtol=1e-4, atol=1e-4)


@everywhere
def test_it_is_the_whole_text_read_with_a_changed_block(toy_subject: Any, family: str) -> None:
    """One forward without a cache, each vector alone; other tokens and other blocks stay."""
    subject = toy_subject(family)
    decoder, layer = decoder_of(subject.model), subject.config.layer
    found = patcher_of(subject).effect(TEXT, drawn())
    ids = torch.tensor([TEXT])
    with torch.no_grad(), capture(decoder, [layer]) as before:
        plain = subject.model(input_ids=ids, use_cache=False).logits[0, -1]
    own = before[layer][0]
    np.testing.assert_allclose(found.own, own[-1], rtol=1e-4, atol=1e-4)
    for row, vector in enumerate(drawn()):
        along = torch.tensor(vector)[None]
        with torch.no_grad(), patching(decoder, layer, along), capture(decoder, [layer]) as after:
            logits = subject.model(input_ids=ids.expand(2, -1), use_cache=False).logits[:, -1]
        put = after[layer]
        assert torch.allclose(put[0], own, atol=1e-5)
        assert torch.equal(put[1, :-1], put[0, :-1])
        wanted = along[0] / along.norm() * own[-1].norm()
        assert torch.allclose(put[1, -1], wanted, rtol=1e-4, atol=1e-5)
        assert torch.allclose(logits[0], plain, atol=1e-4)
        expected = float(divergence(plain, logits[1]))
        assert expected > 1e-4
        assert found.kl[row] == pytest.approx(expected, rel=0.01, abs=1e-5)
        assert found.kept[row] == (logits[1].argmax() == plain.argmax())


@everywhere
def test_its_own_activation_of_any_length_changes_nothing(toy_subject: Any, family: str) -> None:
    subject = toy_subject(family)
    own = activations_of(decoder_of(subject.model), TEXT, subject.config.layer)[-1]
    found = patcher_of(subject).effect(TEXT, np.stack([own, 3 * own, -own]))
    np.testing.assert_allclose(found.kl[:2], 0, atol=1e-5)
    assert found.kept[:2].all()
    assert found.kl[2] > 1e-3


def test_a_recurrent_state_reads_the_whole_text_again(toy_subject: Any) -> None:
    subject = toy_subject("qwen3_5", layer=1)
    own = activations_of(decoder_of(subject.model), TEXT, 1)[-1]
    found = patcher_of(subject).effect(TEXT, np.stack([own, drawn()[0]]))
    assert found.kl[0] == pytest.approx(0, abs=1e-5)
    assert found.kl[1] > 1e-4


def test_many_vectors_are_compared_a_few_at_a_time(
    toy_subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = patcher_of(toy_subject())
    whole = runner.effect(TEXT, drawn(7))
    monkeypatch.setattr(patch, "ROWS", 2)
    some = runner.effect(TEXT, drawn(7))
    np.testing.assert_allclose(some.kl, whole.kl, atol=1e-6)
    assert (some.kept == whole.kept).all()
    alone = runner.effect(TEXT, drawn(7)[5:6])
    np.testing.assert_allclose(alone.kl, whole.kl[5:6], rtol=1e-3)


def test_a_single_token_has_nothing_before_it(toy_subject: Any) -> None:
    assert patcher_of(toy_subject()).effect([2], drawn()).kl.shape == (3,)
    assert patcher_of(toy_subject()).effect([2, 5], drawn(0)).kl.shape == (0,)
    with pytest.raises(DataError, match="no token"):
        patcher_of(toy_subject()).effect([], drawn())


def test_vectors_that_are_not_finite_are_refused(toy_subject: Any) -> None:
    with pytest.raises(DataError, match="not finite"):
        patcher_of(toy_subject()).effect(TEXT, np.full((1, D), np.nan))


def test_adapters_are_off_meanwhile_and_on_again(toy_subject: Any) -> None:
    """The subject goes on, not the AV that is trained on it; and training can go on as well."""
    subject = toy_subject()
    plain = patcher_of(subject).effect(TEXT, drawn())
    model = trainable(subject.model, SMALL_LORA, 0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter))
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    decoder: Any = decoder_of(model.get_base_model())
    before = decoder(input_ids=torch.tensor([TEXT]))[0]
    found = Patcher(model, decoder, subject.config.layer).effect(TEXT, drawn())
    np.testing.assert_allclose(found.kl, plain.kl, rtol=1e-4)
    assert torch.equal(decoder(input_ids=torch.tensor([TEXT]))[0], before)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == trained
