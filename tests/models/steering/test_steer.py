"""`NLA.steer` on a toy pair: its direction, its places, its records, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlakit.core.metrics import unit
from nlakit.errors import ConfigError, ContractError, DataError
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.steering.push import Places, Steerer
from nlakit.models.steering.steer import edit_direction, random_directions
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, D, build_contract

TEXT, FROM, TO = "A whale.", "It is about rain.", "It is about zebras."
SHORT: dict[str, Any] = {"random": 4, "window": 3, "new_tokens": 4, "alphas": [0.5, 2.0]}


@pytest.fixture
def nla(toy_subject: Any) -> NLA:
    subject = toy_subject()
    contract = build_contract(subject)
    ar = Reconstructor(subject, contract, SMALL_LORA, 0).eval()
    av = Verbalizer(subject, contract, np.zeros(D), SMALL_LORA, 0).eval()
    return NLA(subject, av, ar, np.zeros(D))


def test_the_direction_is_between_unit_vectors(nla: NLA) -> None:
    """The AR's lengths are not trained: scaling what it puts out changes nothing."""
    assert nla.ar is not None
    before, after = unit(nla.reconstruct([FROM, TO]))
    assert np.allclose(edit_direction(nla.ar, FROM, TO), after - before)
    with torch.no_grad():
        nla.ar.head.weight.mul_(7)
    assert np.allclose(edit_direction(nla.ar, FROM, TO), after - before, atol=1e-6)


def test_a_record_a_size_beside_no_steering_and_random_directions(nla: NLA) -> None:
    found = nla.steer(TEXT, FROM, TO, **SHORT)
    assert (found.words, found.written, found.at) == (["zebras"], False, [8])
    assert found.chance == 1 / 5
    records = found.as_dicts()
    assert [record["alpha"] for record in records] == [0.5, 2.0]
    for record in records:
        assert len(record["random_log_p"]) == len(record["random_own_log_p"]) == 4
        assert len(record["random_continuations"]) == 3
        assert record["rise"] == pytest.approx(record["log_p"] - record["unsteered_log_p"])
        assert record["gain"] == pytest.approx(record["log_p"] - np.mean(record["random_log_p"]))
        assert (record["original"], record["edited"]) == (FROM, TO)
    assert "nats over random" in repr(found)


def test_log_p_is_that_of_the_words_first_token(nla: NLA) -> None:
    """The unsteered figure, from the model's own logits: z, after text and continuation."""
    found = nla.steer(TEXT, FROM, TO, **SHORT)
    tokenizer = nla.subject.tokenizer
    read = nla._token_ids(TEXT, None)
    none, at = np.zeros((1, D)), Places((len(read) - 1,), len(read))
    (follow,) = Steerer(nla.subject, 1).write(read, none, np.zeros(1), at, 3)
    ids = torch.tensor([[*read, *follow]])
    with torch.no_grad():
        logits = nla.subject.model(input_ids=ids).logits[0, -len(follow) - 1 : -1]
    (z,) = tokenizer("z", add_special_tokens=False)["input_ids"]
    assert len(follow) == 3
    expected = torch.log_softmax(logits.float(), dim=-1)
    assert found.unsteered_log_p == pytest.approx(float(expected[:, z].mean()), abs=1e-4)
    assert found.unsteered_next_log_p == pytest.approx(float(expected[0, z]), abs=1e-4)
    own = expected[torch.arange(3), torch.tensor(follow)].mean()
    assert found.unsteered_own_log_p == pytest.approx(float(own), abs=1e-4)


def test_no_size_is_no_steering(nla: NLA) -> None:
    for positions in ("last", "all", [2]):
        found = nla.steer(TEXT, FROM, TO, positions=positions, **SHORT | {"alphas": [0.0]})
        (one,) = found.sizes
        assert one.continuation == found.unsteered
        assert (one.log_p, one.own_log_p) == (found.unsteered_log_p, found.unsteered_own_log_p)
        assert one.rise == 0 and not one.success


def test_a_push_along_a_words_own_direction_makes_it_likelier(nla: NLA, monkeypatch: Any) -> None:
    """A planted AR: TO stands for the direction that the head reads as z, FROM for nothing."""
    assert nla.ar is not None
    (z,) = nla.subject.tokenizer("z", add_special_tokens=False)["input_ids"]
    z_row = nla.subject.model.get_output_embeddings().weight[z].detach().double().numpy()
    monkeypatch.setattr("nlakit.models.nla.edit_direction", lambda ar, old, new: z_row)
    last = nla.subject.blocks - 1
    nla.contract.extraction.layer_index = last
    (one,) = nla.steer(TEXT, FROM, TO, positions="all", **SHORT | {"alphas": [4.0]}).sizes
    assert one.success is True and one.gain is not None and one.gain > 1


def test_all_leaves_out_what_the_tokenizer_puts_in_front(nla: NLA) -> None:
    found = nla.steer(TEXT, FROM, TO, positions="all", **SHORT)
    assert (found.at, found.written) == (list(range(1, 9)), True)
    assert nla.steer(TEXT, FROM, TO, positions=[0, 3, -6], **SHORT).at == [0, 3]


def test_the_pairs_own_explanation_and_words_to_exchange(nla: NLA) -> None:
    own = nla.explain(TEXT, [3])[0].explanation
    found = nla.steer(TEXT, None, TO, positions=[3], **SHORT)
    assert found.original == own
    assert nla.steer(TEXT, FROM, {"rain": "zebras"}, **SHORT).edited == TO


def test_the_same_seed_is_the_same_record(nla: NLA) -> None:
    sampled = SHORT | {"temperature": 1.0}
    first = nla.steer(TEXT, FROM, TO, seed=1, **sampled)
    assert first == nla.steer(TEXT, FROM, TO, seed=1, **sampled)
    assert first != nla.steer(TEXT, FROM, TO, seed=2, **sampled)
    assert len(np.unique(random_directions(5, D, 0), axis=0)) == 5


def test_an_edit_that_brings_no_word_in(nla: NLA) -> None:
    found = nla.steer(TEXT, FROM, "rain.", **SHORT)
    assert found.words == [] and found.unsteered_log_p is None
    assert [one.success for one in found.sizes] == [None, None]
    assert all(np.isfinite(one.own_log_p) for one in found.sizes)


def test_other_directions_stand_beside(nla: NLA) -> None:
    assert nla.ar is not None
    mine = edit_direction(nla.ar, FROM, TO)
    (one, _) = nla.steer(TEXT, FROM, TO, others=np.stack([mine, -mine]), **SHORT).sizes
    assert one.log_p is not None
    assert one.other_log_p[0] == pytest.approx(one.log_p, abs=1e-4)
    assert one.other_gain == pytest.approx(one.log_p - np.mean(one.other_log_p))


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"edited": FROM}, DataError, "no direction"),
        ({"edited": f" {FROM} "}, DataError, "no direction"),
        ({"edited": {"snow": "zebras"}}, DataError, "does not have 'snow'"),
        ({"text": " "}, DataError, "empty"),
        ({"positions": [9]}, DataError, "no such token position"),
        ({"positions": []}, DataError, "no token"),
        ({"alphas": [float("nan")]}, ConfigError, "finite"),
        ({"text": "a" * 505, "window": 8}, DataError, "longer than the subject can read"),
    ],
)
def test_what_cannot_be_done_is_refused(nla: NLA, given: Any, error: Any, said: str) -> None:
    words = {"text": TEXT, "original": FROM, "edited": TO} | SHORT | given
    with pytest.raises(error, match=said):
        nla.steer(**words)


def test_an_av_alone_steers_nothing(nla: NLA) -> None:
    with pytest.raises(ContractError, match="needs the AR"):
        NLA(nla.subject, nla.av, None, None).steer(TEXT, FROM, TO)
    with pytest.raises(ContractError, match="holds no AV"):
        NLA(nla.subject, None, nla.ar, None).steer(TEXT, None, TO)
