"""What the subject does next, as a part of the reward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from nlakit.core.prompts import document_ids
from nlakit.models.subject import Subject, activations_of, decoder_of
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.rl.learn import how_it_goes_on
from tests.conftest import SMALL_LORA, D, build_contract


def test_the_subject_goes_on_as_before_with_the_vector_itself(
    toy_subject: Callable[..., Subject],
) -> None:
    subject, source = toy_subject(), "The whale sings near the river."
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0)
    ids = document_ids(subject.tokenizer, source, av.contract.nlakit.special_tokens)
    own = activations_of(decoder_of(subject.model), ids, 1)[-1]
    diverged = how_it_goes_on(subject, av)
    found = diverged(source, np.stack([own, 7 * own, -own]))
    assert found[:2] == pytest.approx(0, abs=1e-4) and found[2] > 10 * found[:2].max()
    assert not diverged("", np.stack([own, -own])).any()
