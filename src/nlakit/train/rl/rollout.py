"""Explanations that the AV draws for vectors, with what the update needs to know of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from nlakit.models.decode import Decoding, Text
from nlakit.models.verbalizer import Verbalizer
from nlakit.models.weights import merged_for_now


@dataclass(frozen=True)
class Rollouts:
    """G texts of each of n vectors, vector after vector.

    tokens: of each text, with the closing tag. log_p: of each token in nats, as it was drawn.
    texts: the explanations. whole: `(n·G,)`, whether a text says something, ends
    with the tag, and does not hold the marker.
    """

    samples: int
    tokens: list[list[int]]
    log_p: list[list[float]]
    texts: list[str]
    whole: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def vector_of(self) -> list[int]:
        """The vector, of the n, that each text is of."""
        return [at // self.samples for at in range(len(self))]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, the closing tag included, `(n·G,)`."""
        return np.array([len(tokens) for tokens in self.tokens], dtype=np.float64)


@torch.no_grad()
def roll_out(
    av: Verbalizer,
    injected: torch.Tensor,
    samples: int,
    decoding: Decoding,
    key: Sequence[int],
    at_once: int,
    merge: bool = True,
) -> Rollouts:
    """Draw `samples` texts of each injected vector `(n, d)`, as many together as fit `at_once`.

    Texts of a vector that are drawn together share its prompt's keys and values. `key` decides
    every draw: a text does not depend on which others are drawn beside it.
    """
    state = np.random.SeedSequence(list(key)).generate_state(2, np.uint32)
    how = replace(decoding, seed=int(state[0]) << 31 | int(state[1]) >> 1)
    texts = [Text(how, row) for row in range(len(injected) * samples)]
    av.eval()
    with merged_for_now(av.model) if merge else nullcontext():
        running = av.running()
        for vectors, some in together(len(injected), samples, at_once):
            av.begin(running, injected[vectors], texts[some])
            while running.texts:
                running.step()
    said = [av.text_of(text.ids) for text in texts]
    marker = av.contract.tokens.injection_token_id
    ends = [
        text.written[-len(av.close) :] == av.close and marker not in text.written for text in texts
    ]
    return Rollouts(
        samples,
        [text.written for text in texts],
        [text.log_p for text in texts],
        said,
        np.array([bool(one) and end for one, end in zip(said, ends, strict=True)]),
    )


def together(count: int, samples: int, at_once: int) -> Iterator[tuple[slice, slice]]:
    """Which of `count` vectors, and which of all their texts, are drawn together: whole groups, or
    a part of one that is larger than `at_once`."""
    each = at_once // samples
    for start in range(0, count, max(each, 1)):
        vectors = slice(start, min(start + max(each, 1), count))
        first, last = vectors.start * samples, vectors.stop * samples
        for text in range(first, last, last - first if each else at_once):
            yield vectors, slice(text, min(text + at_once, last))
