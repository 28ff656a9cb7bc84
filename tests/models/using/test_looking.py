"""One pass over a text: criteria as the model itself gives them, and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlakit import NLA
from nlakit.core.text.messages import Conversation
from nlakit.core.text.where import CRITERIA
from nlakit.errors import ConfigError, ContractError, DataError
from nlakit.models.using.looking import look
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, D, build_contract

TEXT = "The river turns, and the violin waits near mark 81. "
LONG = TEXT * 12  # 624 tokens of the toy's, whose models have 512 positions


@pytest.fixture
def nla(toy_subject: Any) -> NLA:
    subject = toy_subject("llama", 1)
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    return NLA(subject, av, None, np.full(D, 0.1))


def test_entropy_and_surprise_are_the_models_own(nla: NLA) -> None:
    ids = nla.tokens(TEXT).ids
    found = look(nla.subject, ids, 1, np.zeros(D))
    with torch.no_grad():
        logits = nla.subject.model(input_ids=torch.tensor([ids])).logits[0].double()
    logs = torch.log_softmax(logits, dim=-1).numpy()
    expected = -(np.exp(logs) * logs).sum(axis=1)
    assert np.isnan(found["entropy"][0])
    assert found["entropy"][1:] == pytest.approx(expected[1:], rel=1e-4)
    own = [-logs[at - 1, ids[at]] for at in range(1, len(ids))]
    assert found["surprise"][1:] == pytest.approx(own, rel=1e-4)


def test_change_and_spread_are_of_the_pairs_activations(nla: NLA) -> None:
    ids, _, vectors = nla.activations(TEXT)
    mean = np.full(D, 0.1)
    found = look(nla.subject, ids, 1, mean)
    centred = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) - mean
    assert found["spread"][1:] == pytest.approx(np.linalg.norm(centred, axis=1)[1:], rel=1e-4)
    first, second = centred[5], centred[6]
    turn = 1 - first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert found["change"][6] == pytest.approx(turn, rel=1e-3)
    assert np.isnan(found["change"][:2]).all() and not np.isnan(found["change"][2:]).any()


def test_the_logits_of_other_places_are_not_made(nla: NLA) -> None:
    ids = nla.tokens(TEXT).ids
    whole, some = look(nla.subject, ids, 1, np.zeros(D)), look(
        nla.subject, ids, 1, np.zeros(D), places=[7, 20]
    )  # fmt: skip
    for name in ("entropy", "surprise"):
        assert np.flatnonzero(~np.isnan(some[name])).tolist() == [7, 20]
        assert some[name][[7, 20]] == pytest.approx(whole[name][[7, 20]], rel=1e-4)


@pytest.mark.parametrize("by", CRITERIA)
def test_tokens_are_ranked_and_explained(nla: NLA, by: Any) -> None:
    found = nla.rank(TEXT, by, 5)
    values = look(nla.subject, nla.tokens(TEXT).ids, 1, np.full(D, 0.1))[by]
    assert [one.value for one in found] == pytest.approx(sorted(values[~np.isnan(values)])[:-6:-1])
    places = [one.position for one in found]
    assert [one.token for one in nla.explain(TEXT, places)] == [one.token for one in found]


def test_a_long_text_is_refused_or_read_in_windows(nla: NLA) -> None:
    message = r"found: 625 tokens, 512 positions.*do: read it in windows \(--window\)"
    with pytest.raises(DataError, match=message):
        nla.rank(LONG, "change")
    with pytest.raises(DataError, match=message):
        nla.explain(LONG)
    with pytest.raises(DataError, match="600 tokens, 512 positions"):
        nla.rank(LONG, "change", window=601)
    ids, places, vectors = nla.activations(LONG, window=512)
    assert places == list(range(625)) and vectors.shape == (625, D)
    # The BOS takes room in each window: 511 tokens, and the next begins 255 before its end.
    assert np.array_equal(vectors[:511], nla.activations(LONG[:510])[2])
    assert np.array_equal(vectors[511:], nla.activations(LONG[255:])[2][256:])
    values = look(nla.subject, ids, 1, np.zeros(D), 512)
    assert all(not np.isnan(values[name][2:]).any() for name in CRITERIA)
    assert len(nla.explain(LONG, [0, -1], window=512)) == 2


def test_in_a_conversation_the_roles_words_are_ranked(nla: NLA) -> None:
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    found = nla.rank(Conversation(messages, template="plain"), "surprise", 10)
    assert sorted(one.token.strip() for one in found) == [".", "S", "o"]


def test_what_cannot_be_ranked_is_said(nla: NLA) -> None:
    with pytest.raises(ConfigError, match="ranked by a criterion"):
        nla.rank(TEXT, "depth")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ranked by a criterion"):
        nla.rank(TEXT, "change", 0)
    nla.mean = None
    with pytest.raises(ContractError, match="no mean unit vector"):
        nla.rank(TEXT, "change")
