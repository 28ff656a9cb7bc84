"""Drawn texts: their log-probabilities, keys, and the prompt that a group shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from nlakit.models.decode import Decoding, draw
from nlakit.models.subject import Subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.models.weights import merged_for_now
from nlakit.train.rl.rollout import Rollouts, roll_out, together
from tests.conftest import FAMILIES, SMALL_LORA, D, build_contract

HOW = Decoding(9, temperature=1.0)


def build_av(subject: Subject) -> Verbalizer:
    av = Verbalizer(subject, build_contract(subject), np.full(D, 0.1), SMALL_LORA, 0)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in av.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return av


def drawn(av: Verbalizer, vectors: np.ndarray, at_once: int = 64, merge: bool = True) -> Rollouts:
    return roll_out(av, av.scaled(vectors), 3, HOW, [7, 1], at_once, merge)


@pytest.mark.parametrize(
    ("family", "temperature"), [*((family, 1.0) for family in FAMILIES), ("gemma2", 0.6)]
)
def test_log_p_is_that_of_the_training_forward(
    toy_subject: Callable[..., Subject], vectors: np.ndarray, family: str, temperature: float
) -> None:
    av = build_av(toy_subject(family))
    how = replace(HOW, temperature=temperature)
    found = roll_out(av, av.scaled(vectors[:4]), 3, how, [7, 1], 64)
    assert len({tuple(one) for one in found.tokens}) > 8  # they differ
    injected = av.scaled(vectors[:4])
    marker = av.contract.tokens.injection_token_id
    known = [at for at, tokens in enumerate(found.tokens) if marker not in tokens]
    assert len(known) > 8
    with torch.no_grad():
        told = [found.tokens[at] for at in known]
        again = -av.nll(injected[[at // 3 for at in known]], told, temperature)
    own = torch.tensor([p for at in known for p in found.log_p[at]])
    torch.testing.assert_close(own, again, atol=2e-4, rtol=1e-4)


def test_a_text_depends_on_its_key_alone(
    toy_subject: Callable[..., Subject], vectors: np.ndarray
) -> None:
    av = build_av(toy_subject())
    together = drawn(av, vectors, 64)
    for at_once in (3, 2, 1):  # fewer than are drawn of one vector
        apart = drawn(av, vectors, at_once)
        assert together.tokens == apart.tokens
    other = roll_out(av, av.scaled(vectors), 3, HOW, [7, 2], 64)
    assert other.tokens != together.tokens


def test_merged_weights_change_rounding_alone_and_are_gone_afterwards(
    toy_subject: Callable[..., Subject], vectors: np.ndarray
) -> None:
    av = build_av(toy_subject())
    before = {name: p.clone() for name, p in av.model.named_parameters()}
    merged, plain = drawn(av, vectors), drawn(av, vectors, merge=False)
    assert merged.tokens == plain.tokens
    np.testing.assert_allclose(np.concatenate(merged.log_p), np.concatenate(plain.log_p), atol=1e-4)
    assert all(torch.equal(before[name], p) for name, p in av.model.named_parameters())


def test_merged_weights_are_gone_after_an_error(toy_subject: Callable[..., Subject]) -> None:
    av = build_av(toy_subject())
    shared = [p.data_ptr() for p in av.model.parameters()]

    def interrupted() -> None:
        with merged_for_now(av.model):
            assert [p.data_ptr() for p in av.model.parameters()] != shared
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.data_ptr() for p in av.model.parameters()] == shared


def test_draws_follow_the_chances() -> None:
    size = 1300  # more than two blocks, and not a whole number of them
    logits = torch.randn(size, generator=torch.Generator().manual_seed(0)) * 2
    chances = torch.softmax(logits.double() / 0.7, dim=-1)
    count = 20_000
    numbers = (np.arange(count) + 0.5) / count  # evenly, so that shares are exact to one draw
    tokens, log_p = draw(logits.expand(count, -1), [0.7] * count, numbers.tolist())
    shares = torch.bincount(tokens, minlength=size) / count
    assert float((shares - chances).abs().max()) < 2 / count
    torch.testing.assert_close(log_p.double(), chances[tokens].log(), atol=1e-4, rtol=1e-4)


def test_what_cannot_be_drawn_never_is() -> None:
    logits = torch.full((3, 600), -torch.inf)
    logits[:, 511], logits[:, 599] = 0.0, 0.0
    tokens, log_p = draw(logits, [1.0] * 3, [0.0, 0.5, 1 - 2**-53])
    assert tokens.tolist() == [511, 599, 599]
    torch.testing.assert_close(log_p, torch.full((3,), 0.5).log())


def test_texts_without_their_tag_are_not_whole(
    toy_subject: Callable[..., Subject], vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    av = build_av(toy_subject())
    found = drawn(av, vectors[:2])
    assert not found.whole.any()  # a toy does not end in nine tokens
    assert found.lengths.tolist() == [float(len(one)) for one in found.tokens]
    assert found.vector_of == [0, 0, 0, 1, 1, 1]
    av.close = [found.tokens[1][3]]  # a tag that the second text writes
    found = drawn(av, vectors[:2])
    assert found.whole[1] and found.tokens[1][-1:] == av.close


def test_what_is_drawn_together_covers_every_text_once() -> None:
    for count, samples, at_once in ((5, 3, 7), (5, 3, 3), (2, 5, 2), (1, 4, 100), (3, 1, 2)):
        texts = []
        for vectors, some in together(count, samples, at_once):
            assert some.stop - some.start <= at_once
            own = [text // samples for text in range(some.start, some.stop)]
            assert sorted(set(own)) == list(range(vectors.start, vectors.stop))
            assert len(own) % (vectors.stop - vectors.start) == 0
            texts += range(some.start, some.stop)
        assert texts == list(range(count * samples))
