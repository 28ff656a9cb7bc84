"""Batches of similar length."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nlakit.core.batches import batches_by_length, padded


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 90), max_size=30), st.integers(10, 200))
def test_batches_keep_their_budget(lengths: list[int], budget: int) -> None:
    batches = list(batches_by_length(lengths, budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


def test_the_shortest_come_first_and_together() -> None:
    assert list(batches_by_length([5, 1, 4, 1], 8)) == [[1, 3], [2], [0]]


def test_widths_are_the_next_multiple_of_8() -> None:
    assert [padded(length) for length in (1, 8, 9, 104)] == [8, 8, 16, 104]
