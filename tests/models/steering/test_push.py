"""The push at block K: by hand, everywhere else untouched, and the same with a cache as without."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

from nlakit.errors import DataError
from nlakit.models.steering import push
from nlakit.models.steering.push import Places, Steerer, pushed, pushing
from nlakit.models.subject import capture, decoder_of
from tests.conftest import FAMILIES, D

TEXT = [2, 10, 45, 60, 33, 80, 21, 9, 44, 70, 31, 90, 12, 55, 66, 30, 31, 32, 33, 34, 50, 51, 52]
FOLLOW = [40, 41, 42, 43, 44, 45]
WAYS = {"last": Places((22,), 23), "one": Places((5,), 23), "two": Places((3, 20), 23),
        "all": Places(tuple(range(1, 23)), 23, written=True)}  # fmt: skip
everywhere = pytest.mark.parametrize("family", FAMILIES)
each_way = pytest.mark.parametrize("way", WAYS)


def directions(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, D))


def states(
    subject: Any, ids: torch.Tensor, alphas: list[float] | None, places: Places
) -> dict[int, torch.Tensor]:
    """Outputs of every block, steered or not."""
    decoder, layer = decoder_of(subject.model), subject.config.layer
    along = torch.tensor(directions(3), dtype=torch.float32)
    with contextlib.ExitStack() as stack:
        if alphas is not None:  # before the capture, which is to see what is made of the output
            stack.enter_context(pushing(decoder, layer, along, torch.tensor(alphas), places))
        found = stack.enter_context(capture(decoder, range(subject.blocks)))
        with torch.no_grad():
            decoder(input_ids=ids, use_cache=False)
    return found


def test_the_maths_by_hand() -> None:
    """(3, 4) has norm 5: half of it along (0, 2) is (0, 2.5)."""
    hidden = torch.tensor([[[3.0, 4.0], [1.0, 0.0]], [[0.0, 2.0], [-0.0, 8.0]]])
    along, sizes = torch.tensor([[0.0, 2.0], [5.0, 0.0]]), torch.tensor([0.5, -1.0])
    found = pushed(hidden, [0], along, sizes)
    assert torch.equal(found[:, 0], torch.tensor([[3.0, 6.5], [-2.0, 2.0]]))
    assert torch.equal(found[:, 1], hidden[:, 1])


def test_nothing_is_changed_bit_for_bit_without_a_size() -> None:
    """−0 + 0 is 0, which is another number to the bit."""
    hidden = torch.tensor([[[-0.0, 4.0]]], dtype=torch.bfloat16)
    found = pushed(hidden, [0], torch.tensor([[1.0, 0.0]]), torch.zeros(1))
    assert torch.equal(torch.signbit(found), torch.signbit(hidden))


def test_which_columns_of_a_step_are_steered() -> None:
    at = Places((1, 4), 5, written=True)
    assert at.columns(0, 5) == [1, 4]
    assert at.columns(4, 3) == [0, 1, 2]
    assert at.columns(9, 1) == [0]
    assert Places((1, 4), 5).columns(5, 2) == []


@everywhere
@each_way
def test_only_steered_tokens_are_changed(toy_subject: Any, family: str, way: str) -> None:
    """Up to block K nothing, there the steered rows by the formula, and what stands before the
    first of them nowhere."""
    subject, places = toy_subject(family), WAYS[way]
    ids, layer = torch.tensor([[*TEXT, *FOLLOW]] * 3), subject.config.layer
    plain = states(subject, ids, None, places)
    changed = states(subject, ids, [0.5, 0.0, -1.0], places)
    columns = places.columns(0, ids.shape[1])
    others = [at for at in range(ids.shape[1]) if at not in columns]
    for block in plain:
        if block < layer:
            assert torch.equal(plain[block], changed[block])
        assert torch.equal(plain[block][:, : columns[0]], changed[block][:, : columns[0]])
        assert torch.equal(plain[block][1], changed[block][1])  # α = 0
    assert torch.equal(plain[layer][:, others], changed[layer][:, others])
    own, unit = plain[layer][0, columns], torch.tensor(directions()[0], dtype=torch.float32)
    wanted = own + 0.5 * own.norm(dim=-1, keepdim=True) * unit / unit.norm()
    assert torch.allclose(changed[layer][0, columns], wanted, rtol=1e-5, atol=1e-5)
    assert not torch.equal(plain[layer + 1][2], changed[layer + 1][2])


@everywhere
@each_way
def test_log_probabilities_are_those_of_one_steered_forward(
    toy_subject: Any, family: str, way: str
) -> None:
    """Which shares what stands before the first steered token, and adds up few logits alone."""
    subject, places = toy_subject(family), WAYS[way]
    sizes, along = np.array([0.0, 0.5, 2.0]), directions()
    told, own = Steerer(subject, subject.config.layer).log_p(
        TEXT, FOLLOW, along, sizes, places, [7, 300]
    )
    ids = torch.tensor([[*TEXT, *FOLLOW]] * 3)
    decoder = decoder_of(subject.model)
    as_tensors = (torch.tensor(one, dtype=torch.float32) for one in (along, sizes))
    with torch.no_grad(), pushing(decoder, subject.config.layer, *as_tensors, places):
        logits = subject.model(input_ids=ids, use_cache=False).logits[:, len(TEXT) - 1 : -1]
    every = torch.log_softmax(logits.float(), dim=-1)
    assert told.shape == (3, len(FOLLOW), 2) and own.shape == (3, len(FOLLOW))
    assert np.allclose(told, every[:, :, [7, 300]], atol=2e-4)
    picked = every.gather(2, torch.tensor([FOLLOW] * 3)[:, :, None])[:, :, 0]
    assert np.allclose(own, picked, atol=2e-4)


@everywhere
@each_way
def test_what_is_written_is_what_whole_forwards_would_write(
    toy_subject: Any, family: str, way: str
) -> None:
    subject, places = toy_subject(family), WAYS[way]
    runner, along, sizes = Steerer(subject, subject.config.layer), directions(), np.ones(3)
    runner.ends = set()
    texts = runner.write(TEXT, along, sizes, places, 5)
    tensors = (torch.tensor(one, dtype=torch.float32) for one in (along, sizes))
    ids = torch.tensor([[*TEXT, *said[:-1]] for said in texts])
    with torch.no_grad(), pushing(runner.decoder, runner.layer, *tensors, places):
        logits = subject.model(input_ids=ids, use_cache=False).logits[:, len(TEXT) - 1 :]
    best = logits.max(dim=-1).values
    chosen = logits.gather(2, torch.tensor(texts)[:, :, None])[:, :, 0]
    assert (best - chosen).max() < 1e-3  # a tie may fall either way


def test_nothing_is_left_of_a_push(toy_subject: Any) -> None:
    subject = toy_subject()
    ids = torch.tensor([TEXT])
    with torch.no_grad():
        before = subject.model(input_ids=ids).logits
        runner = Steerer(subject, 1)
        runner.write(TEXT, directions(), np.ones(3), WAYS["all"], 3)
        assert torch.equal(subject.model(input_ids=ids).logits, before)


def test_many_rows_are_the_rows_one_by_one(toy_subject: Any, monkeypatch: Any) -> None:
    runner, along = Steerer(toy_subject(), 1), directions(5)
    sizes = np.linspace(0, 1, 5)
    monkeypatch.setattr(push, "BATCH", 2)
    told, own = runner.log_p(TEXT, FOLLOW, along, sizes, WAYS["last"], [7])
    texts = runner.write(TEXT, along, sizes, WAYS["last"], 4)
    for row in range(5):
        one = along[row : row + 1], sizes[row : row + 1], WAYS["last"]
        alone, also = runner.log_p(TEXT, FOLLOW, *one, [7])
        assert np.allclose(told[row], alone[0], atol=1e-4)
        assert np.allclose(own[row], also[0], atol=1e-4)
        assert runner.write(TEXT, *one, 4) == texts[row : row + 1]


def test_samples_differ_by_their_push_alone(toy_subject: Any) -> None:
    """Rows of no size draw alike; another seed draws others."""
    runner, along = Steerer(toy_subject(), 1), directions()
    runner.ends = set()
    sizes = np.array([0.0, 0.0, 4.0])
    drawn = runner.write(TEXT, along, sizes, WAYS["all"], 12, 1.0, 3)
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn == runner.write(TEXT, along, sizes, WAYS["all"], 12, 1.0, 3)
    assert drawn[0] != runner.write(TEXT, along, sizes, WAYS["all"], 12, 1.0, 4)[0]


def test_a_row_ends_before_an_end_of_sequence(toy_subject: Any) -> None:
    runner, along = Steerer(toy_subject(), 1), directions(2)
    runner.ends = set()
    free = runner.write(TEXT, along, np.array([0.0, 3.0]), WAYS["all"], 8)
    runner.ends = {free[0][2]}
    found = runner.write(TEXT, along, np.array([0.0, 3.0]), WAYS["all"], 8)
    for row, said in zip(found, free, strict=True):
        end = said.index(free[0][2]) if free[0][2] in said else len(said)
        assert row == said[:end]


def test_outputs_that_are_not_finite_are_refused(toy_subject: Any) -> None:
    runner = Steerer(toy_subject(), 1)
    with pytest.raises(DataError, match="not finite"):
        runner.log_p(TEXT, FOLLOW, directions(1), np.array([np.inf]), WAYS["last"], [7])
