"""Findings: the interval of a share stays where shares lie."""

from __future__ import annotations

import numpy as np
import pytest

from nlakit.evaluate.bench import Measured
from nlakit.evaluate.findings import SHARES, finding

DOCUMENTS = [f"d{i // 2}" for i in range(96)]


@pytest.mark.parametrize("measure", sorted(SHARES))
@pytest.mark.parametrize("right", [0, 1, 95, 96])
def test_shares_and_their_gains_stay_in_range(measure: str, right: int) -> None:
    values = (np.arange(96) < right).astype(float)
    found = finding("p", Measured(measure, "real", values, "f"), 1 - values, DOCUMENTS)
    assert 0 <= found["low"] <= found["mean"] <= found["high"] <= 1
    assert found["low"] < found["high"]
    assert -1 <= found["gain_low"] <= found["gain"] <= found["gain_high"] <= 1


def test_a_score_that_is_zero_by_definition_is_no_share() -> None:
    found = finding("p", Measured("centred_cosine", "mean", np.zeros(96)), None, DOCUMENTS)
    assert (found["low"], found["high"]) == (0, 0)
