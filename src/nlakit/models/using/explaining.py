"""Which words of an explanation to believe, as far as the pair itself can say: what recurs when the
same token is explained again, and its neighbours; and what a word carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import centred_cosine
from nlakit.core.text.recurrence import TEMPERATURE, Marked, Told, marks, without_span
from nlakit.errors import DataError
from nlakit.models.decode import Text
from nlakit.models.records import Recurrence
from nlakit.models.verbalizer import Verbalizer

CONTROLS = 8  # texts for random directions
Read = Callable[[Sequence[str]], NDArray[Any]]


@dataclass(frozen=True)
class Others:
    """Other texts for n activations: samples of each, position → explanation of its neighbours, and
    what texts for random directions say, which has nothing to do with any token."""

    samples: list[list[str]]
    neighbours: list[dict[int, str]]
    controls: Sequence[Told]


@dataclass(frozen=True)
class Again:
    """How explanations are repeated: `samples` texts a token drawn at `temperature`, sample j of
    row i by (seed, i · samples + j), and greedy ones of `neighbours` tokens before it."""

    samples: int = 0
    neighbours: int = 0
    temperature: float = TEMPERATURE
    seed: int = 0
    batch: int = 32

    def check(self, bare: bool) -> None:
        """Raise DataError for counts that make no sense, and for neighbours of bare vectors."""
        for name, count in (("samples", self.samples), ("neighbours", self.neighbours)):
            if count < 0:
                raise DataError(f"{name} cannot be negative", found=count, do="0 asks for none")
        if self.samples and not self.temperature > 0:
            raise DataError(
                "samples at temperature 0 are all the explanation itself",
                found=self.temperature,
                do=f"take a temperature above 0, such as {TEMPERATURE}",
            )
        if self.neighbours and bare:
            raise DataError(
                "bare vectors have no neighbouring tokens",
                found=f"neighbours {self.neighbours}",
                do="give the text, or ask for samples alone",
            )

    def tell(
        self,
        av: Verbalizer,
        vectors: NDArray[Any],
        beside: Sequence[Mapping[int, NDArray[Any]]],
        controls: Sequence[Told] | None = None,
        on_batch: Any = None,
    ) -> Others:
        """Everything that raw activations `(n, d)` are told again by, written together. beside:
        position → activation of each one's neighbours, told once if it is so of several; controls,
        if they are known already."""
        drawn = replace(av.decoding(), temperature=self.temperature, seed=self.seed)
        count = 0 if controls is not None else CONTROLS
        texts = [Text(drawn, row) for row in range(len(vectors) * self.samples)]
        near = {vector.tobytes(): vector for one in beside for vector in one.values()}
        texts += [Text(av.decoding()) for _ in near]
        # The draws of a control are no sample's.
        texts += [Text(drawn, -1 - row) for row in range(count)]
        norms = np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1)
        rows = [
            np.repeat(vectors, self.samples, axis=0),
            *(vector[None] for vector in near.values()),
            random_directions(count, vectors.shape[1], float(norms.mean()), self.seed),
        ]
        injected = av.scaled(np.concatenate(rows))
        said = iter(av.written(injected, texts, self.batch, on_batch))
        samples = [[next(said) for _ in range(self.samples)] for _ in vectors]
        told = dict(zip(near, said, strict=False))
        return Others(
            samples,
            [{spot: told[vector.tobytes()] for spot, vector in one.items()} for one in beside],
            [Told.of(text) for text in said] if controls is None else controls,
        )

    def recurrences(self, texts: Sequence[str], others: Others) -> list[Recurrence]:
        """The marks of each text."""
        return [
            Recurrence(
                marks(text, drawn, beside.values(), others.controls),
                list(drawn),
                list(beside.values()),
                list(beside),
                self.temperature,
                self.seed,
            )
            for text, drawn, beside in zip(texts, others.samples, others.neighbours, strict=True)
        ]


def random_directions(count: int, d: int, norm: float, seed: int) -> NDArray[np.float32]:
    """Vectors `(count, d)` of that norm in random directions."""
    drawn = np.random.default_rng([seed, 14]).standard_normal((count, d))
    return (drawn * norm / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def nearby(position: int, count: int, tokens: int, first: int) -> list[int]:
    """The `count` tokens before a position, the nearest first; at the beginning of a text, where
    they are too few, the next ones after it. first: the first token that is text."""
    before = list(range(position - 1, first - 1, -1))[:count]
    after = range(position + 1, tokens)
    return [*before, *(one for one in after if one >= first)][:count]


def with_costs(
    found: Sequence[Recurrence],
    texts: Sequence[str],
    vectors: NDArray[Any],
    read: Read,
    mean: NDArray[Any],
) -> list[Recurrence]:
    """Each mark with its cost: centred cosine of the text's reading with its vector, less that of
    the text without the span. read: texts to reconstructions `(n, d)`; mean: ū `(d,)`."""
    spans = [(row, mark) for row, one in enumerate(found) for mark in one.marks]
    cut = [without_span(texts[row], mark.start, mark.end) for row, mark in spans]
    rows = [*range(len(texts)), *(row for row, _ in spans)]
    made = read([*texts, *cut])
    scores = centred_cosine(np.asarray(vectors)[rows], made, mean)
    whole, rest = scores[: len(texts)], iter(scores[len(texts) :])
    return [
        replace(one, marks=[_costing(mark, whole[row] - next(rest)) for mark in one.marks])
        for row, one in enumerate(found)
    ]


def _costing(mark: Marked, cost: float) -> Marked:
    return replace(mark, cost=float(cost))
