"""What is written of a pair that went through RL, and what is paid for beside the round trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nlakit.core.prompts import document_ids
from nlakit.models.subject import Subject, activations_of, decoder_of
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.rl.learn import how_it_goes_on, said_of
from tests.conftest import SMALL_LORA, D, build_contract
from tests.train.rl.toys import rl_config

SUMMARY: dict[str, Any] = {
    "last": {"step": 6},
    "kept": {"content": {"step": 4, "frozen_centred": 0.7}, "fve": {"step": 6, "fve": 0.5}},
    "stopped": {"name": "alike", "says": "its greedy texts become alike", "evidence": "0.4"},
}


@pytest.mark.parametrize(("keep", "step"), [("content", 4), ("fve", 6), ("last", 6)])
def test_a_contract_says_which_step_was_kept_and_by_which_settings(keep: str, step: int) -> None:
    said = said_of(rl_config(keep=keep, kl=0.5), SUMMARY)
    assert (said["steps"], said["keep"], said["step"], said["stopped"]) == (6, keep, step, "alike")
    assert said["settings"]["kl"] == 0.5 and said["settings"]["samples"] == 3
    assert "temperature" not in said["settings"]  # it is the default


def test_nothing_stopped_and_nothing_done() -> None:
    kept = {"content": {"step": 0}, "fve": {"step": 0}}
    said = said_of(rl_config(), {"last": {}, "kept": kept, "stopped": None})
    assert (said["steps"], said["step"], said["stopped"]) == (0, 0, None)


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
