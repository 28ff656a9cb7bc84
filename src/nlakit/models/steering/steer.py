"""Steering by words: push the subject from what one explanation says to what another one says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import unit
from nlakit.core.text.edits import telling_words
from nlakit.errors import DataError
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.steering.push import Places, Steerer
from nlakit.models.steering.record import Asked, AtSize, Steered, chance_of_success
from nlakit.models.subject import Subject

RANDOM_TEXTS = 3  # random directions whose continuations are written too


def edit_direction(ar: Reconstructor, original: str, edited: str) -> NDArray[np.float64]:
    """AR(edited) − AR(original) `(d,)`, between unit vectors: the AR's lengths mean nothing.

    Raises DataError if the texts, or what the AR makes of them, are the same.
    """
    found = np.zeros(1)
    if original.strip() != edited.strip():
        before, after = unit(ar.reconstruct([original, edited]))
        found = after - before
    if not np.linalg.norm(found) > 1e-6:
        raise DataError(
            "the two explanations are the same to the AR: there is no direction to steer along",
            found=repr(edited),
            do="edit a word of the explanation, before the place where the AR cuts long texts",
        )
    return found


def random_directions(count: int, width: int, seed: int) -> NDArray[np.float64]:
    """Directions `(count, d)` drawn evenly from the sphere."""
    return np.random.default_rng(seed).standard_normal((count, width))


def steer(
    subject: Subject,
    layer: int,
    ids: Sequence[int],
    places: Places,
    texts: tuple[str, str, str],
    direction: NDArray[Any],
    asked: Asked,
    others: NDArray[Any] | None = None,
) -> Steered:
    """Steer a text of token `ids` along a direction `(d,)`, and along random ones.

    texts: the text, the original and the edited explanation. others `(m, d)`: further directions
    whose words are listened for. Raises DataError where the subject has no room for the window.
    """
    text, original, edited = texts
    subject.check_length(len(ids) + max(asked.window, asked.new_tokens))
    runner, tokenizer = Steerer(subject, layer), subject.tokenizer
    words = telling_words(tokenizer, original, edited)
    random = random_directions(asked.random, len(direction), asked.seed)
    others = np.zeros((0, len(direction))) if others is None else others
    none = np.zeros((1, len(direction)))
    follow = runner.write(ids, none, np.zeros(1), places, asked.window)[0]
    follow = follow or [sorted(runner.ends)[0]]  # it would end here

    every = np.concatenate([direction[None], random, others])
    pushes = np.concatenate([none, *[every] * len(asked.alphas)])
    sizes = np.concatenate([np.zeros(1), np.repeat(asked.alphas, len(every))])
    told, own = runner.log_p(ids, follow, pushes, sizes, places, list(words.values()))
    mean = told.mean(axis=(1, 2)) if words else np.full(len(told), np.nan)
    first = told[:, 0].mean(axis=1) if words else np.full(len(told), np.nan)
    own = own.mean(axis=1)
    shown = 1 + min(asked.random, RANDOM_TEXTS)
    written = _written(runner, ids, every[:shown], asked, places)

    made = []
    for place, alpha in enumerate(asked.alphas):
        rows = np.arange(len(every)) + 1 + place * len(every)
        chosen, drawn, further = rows[0], rows[1 : 1 + len(random)], rows[1 + len(random) :]
        said = [tokenizer.decode(one) for one in written[1 + place * shown :][:shown]]
        made.append(
            AtSize(
                alpha,
                said[0],
                _known(mean[chosen]),
                _known(mean[chosen] - mean[0]),
                _known(first[chosen]),
                float(own[chosen]),
                mean[drawn].tolist() if words else [],
                first[drawn].tolist() if words else [],
                own[drawn].tolist(),
                said[1:],
                mean[further].tolist() if words else [],
            )
        )
    return Steered(
        text, original, edited, list(words), list(places.tokens), places.written,
        tokenizer.decode(follow), tokenizer.decode(written[0]), _known(mean[0]), _known(first[0]),
        float(own[0]), chance_of_success(asked.random), made,
    )  # fmt: skip


def _written(
    runner: Steerer, ids: Sequence[int], every: NDArray[Any], asked: Asked, places: Places
) -> list[list[int]]:
    """Continuations without a push, then under each direction a size."""
    if not asked.new_tokens:
        return [[]] * (1 + len(every) * len(asked.alphas))
    pushes = np.concatenate([np.zeros_like(every[:1]), *[every] * len(asked.alphas)])
    sizes = np.concatenate([np.zeros(1), np.repeat(asked.alphas, len(every))])
    return runner.write(ids, pushes, sizes, places, asked.new_tokens, asked.temperature, asked.seed)


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
