"""Which rows share a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

WIDTH_STEP = 8  # batch widths are multiples of this


def padded(length: int) -> int:
    """Width of a batch whose longest row has `length` tokens."""
    return -(-length // WIDTH_STEP) * WIDTH_STEP


def batches_by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of rows in batches of similar length, at most `budget` padded tokens each (or one
    row that is longer)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        if batch and (len(batch) + 1) * lengths[index] > budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def labels_beside(texts: int, share: float) -> int:
    """How many labelled rows stand beside so many other texts, so that they make up `share` of the
    whole; at most 20 times as many."""
    return round(texts * share / max(1 - share, 0.05))
