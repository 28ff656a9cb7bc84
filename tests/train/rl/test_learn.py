"""What is written of a pair that went through RL."""

from __future__ import annotations

from typing import Any

import pytest

from nlakit.train.rl.learn import said_of
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
