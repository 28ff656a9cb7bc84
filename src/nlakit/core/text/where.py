"""Which tokens of a text are worth reading: four criteria, each from one pass of the subject.

For a text of t tokens, with p_i the subject's distribution of the token after token i, h_i its
activation, u = h/‖h‖ and ū the pair's mean unit vector:

    entropy_i   −Σ p_i log p_i, in nats: how open the next token is
    surprise_i  −log p_{i−1}(token i), in nats: how little the token was expected
    change_i    1 − cos(u_i − ū, u_{i−1} − ū), in [0, 2]: how far the activation turned here
    spread_i    ‖u_i − ū‖, in [0, 2]: how unlike the mean direction the activation is

The spread is taken from ū and not from the text's own mean: ū is what the centred cosine is
measured from, and a token then has one value, however long the text around it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from nlakit.core.metrics import unit
from nlakit.core.statistics import Estimate, estimate
from nlakit.errors import ConfigError

Criterion = Literal["entropy", "surprise", "change", "spread"]
CRITERIA: tuple[Criterion, ...] = ("entropy", "surprise", "change", "spread")
SMALLEST_WINDOW = 16  # tokens
Values = NDArray[np.float64]


def entropies(log_chances: NDArray[Any]) -> Values:
    """Entropy `(n,)` in nats of log probabilities `(n, v)`; what is impossible counts nothing."""
    logs = np.asarray(log_chances, dtype=np.float64)
    return -np.sum(np.exp(logs) * np.where(np.isfinite(logs), logs, 0.0), axis=1)


def changes(vectors: NDArray[Any], mean: NDArray[Any]) -> Values:
    """Change `(n,)` along consecutive vectors `(n, d)`; NaN at the first, 1 next to one that is the
    mean itself."""
    centred = unit(vectors) - mean
    norms = np.linalg.norm(centred, axis=1)
    products = np.sum(centred[1:] * centred[:-1], axis=1)
    scale = norms[1:] * norms[:-1]
    cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 1e-12)
    return np.concatenate([[np.nan], 1.0 - cosines])[: len(norms)]


def spreads(vectors: NDArray[Any], mean: NDArray[Any]) -> Values:
    """Spread `(n,)` of vectors `(n, d)`."""
    return np.linalg.norm(unit(vectors) - mean, axis=1)


def ranked(values: Values, places: Sequence[int], top: int) -> list[int]:
    """The `top` of `places` with the largest values, largest first, ties by place; those without a
    value (NaN) are left out."""
    known = [place for place in places if not np.isnan(values[place])]
    return sorted(known, key=lambda place: (-values[place], place))[:top]


def rank_correlation(first: Values, second: Values, clusters: Sequence[str]) -> Estimate:
    """Spearman's ρ of two measures of n rows, with a 95% interval over documents: the mean of the
    products of standardised ranks, whose scale is taken as given. 0 where a measure is constant.
    """
    ranks = []
    for values in (first, second):
        found = rankdata(values)
        ranks.append((found - found.mean()) / (found.std() or 1.0))
    return estimate(ranks[0] * ranks[1], clusters)


@dataclass(frozen=True)
class Window:
    """Tokens `start` to `end` are read together; the values from `kept` on are theirs."""

    start: int
    kept: int
    end: int


def windows(tokens: int, size: int | None) -> list[Window]:
    """Windows over a text, each begun half a window before the end of the one before: every token
    is kept from the earliest that holds it, where it has the most context, at least half a window
    behind the first one. One for all without a size.

    Raises ConfigError for windows of fewer than 16 tokens.
    """
    if size is None or tokens <= size:
        return [Window(0, 0, tokens)]
    if size < SMALLEST_WINDOW:
        raise ConfigError("the windows are too small", found=size, do=f"{SMALLEST_WINDOW} or more")
    made = [Window(0, 0, size)]
    while made[-1].end < tokens:
        start, kept = made[-1].end - size // 2, made[-1].end
        made.append(Window(start, kept, min(start + size, tokens)))
    return made
