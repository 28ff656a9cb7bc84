"""One pass of the subject over a text: its activations, and which tokens are worth reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.core.text.characters import character_ends
from nlakit.core.text.where import (
    CRITERIA,
    Criterion,
    Window,
    changes,
    entropies,
    ranked,
    spreads,
    windows,
)
from nlakit.errors import ConfigError
from nlakit.models.head import head_of
from nlakit.models.precision import check_finite
from nlakit.models.subject import Subject, activations_of, capture, decoder_of
from nlakit.models.using.reading import Tokens

POSITIONS_AT_ONCE = 32  # whose logits are in memory at a time


@dataclass(frozen=True)
class Ranked:
    """A token that is worth reading, and its value under the criterion."""

    position: int
    token: str
    by: Criterion
    value: float


def fronted(subject: Subject, ids: Sequence[int], window: Window) -> tuple[list[int], int]:
    """The ids of a window as the subject reads them, and how many were put before them: a text that
    begins with a BOS does so in every window."""
    bos = subject.tokenizer.bos_token_id
    front = [bos] if window.start and bos is not None and ids[0] == bos else []
    return [*front, *ids[window.start : window.end]], len(front)


def look(
    subject: Subject,
    ids: Sequence[int],
    layer: int,
    mean: NDArray[Any],
    window: int | None = None,
    places: Sequence[int] | None = None,
) -> dict[Criterion, NDArray[np.float64]]:
    """Each criterion `(t,)` for t token ids; NaN where it has no value: at a BOS, the surprise
    where nothing stands before, the change at the text's first token. places: where entropy and
    surprise are wanted, everywhere unless given: the vocabulary head is most of the work of a small
    model.

    Raises DataError for a text longer than the subject can read in one, or in a window.
    """
    wanted = set(range(len(ids)) if places is None else places)
    values: dict[Criterion, NDArray[np.float64]] = {
        name: np.full(len(ids), np.nan) for name in CRITERIA
    }
    decoder: Any = decoder_of(subject.model)
    first = int(ids[0] == subject.tokenizer.bos_token_id)
    for part in windows(len(ids), window and window - first):  # a BOS takes room in each
        row, shift = fronted(subject, ids, part)
        subject.check_length(len(row), by_window=True)
        hidden, vectors = _forward(decoder, row, layer, subject)
        own = slice(part.start + (first if part.start == 0 else 0), part.end)
        held = vectors[own.start - part.start + shift : len(row)]
        kept = slice(max(part.kept, own.start), part.end)
        inside = slice(kept.start - own.start, None)
        values["change"][kept] = changes(held, mean)[inside]
        values["spread"][kept] = spreads(held, mean)[inside]
        for place, entropy, chances in _next(subject, hidden, part, shift, wanted):
            if place >= max(part.kept, first) and place in wanted:
                values["entropy"][place] = entropy
            after = place + 1
            if max(part.kept, first) <= after < part.end and after in wanted:
                values["surprise"][after] = -chances[ids[after]]
    return values


def read_in_windows(
    subject: Subject, reader: Any, ids: Sequence[int], layer: int, window: int | None
) -> NDArray[np.float32]:
    """Raw activations `(t, d)` of a layer by a decoder that has it, in windows if a size is given.
    Errors as in `look`."""
    first = int(ids[0] == subject.tokenizer.bos_token_id)
    found = []
    for part in windows(len(ids), window and window - first):
        row, shift = fronted(subject, ids, part)
        subject.check_length(len(row), by_window=True)
        found.append(activations_of(reader, row, layer)[part.kept - part.start + shift :])
    return np.concatenate(found)


@torch.no_grad()
def _forward(
    decoder: Any, ids: Sequence[int], layer: int, subject: Subject
) -> tuple[torch.Tensor, NDArray[np.float32]]:
    """The decoder's output `(t, d)`, and activations `(t, d)` of a layer."""
    with capture(decoder, [layer]) as found:
        row = torch.tensor([list(ids)], device=subject.device)
        hidden = decoder(input_ids=row, use_cache=False)[0][0]
    vectors = found[layer][0].float()
    check_finite(vectors, f"activations of layer {layer}", subject.config.precision)
    return hidden, vectors.cpu().numpy()


@torch.no_grad()
def _next(
    subject: Subject, hidden: torch.Tensor, part: Window, shift: int, wanted: set[int]
) -> Iterator[tuple[int, float, NDArray[np.float32]]]:
    """Position, entropy and log probabilities `(v,)` of the next token, where it or the token after
    it is wanted."""
    head = head_of(subject.model)
    places = [at for at in range(part.start, part.end) if at in wanted or at + 1 in wanted]
    for begin in range(0, len(places), POSITIONS_AT_ONCE):
        some = places[begin : begin + POSITIONS_AT_ONCE]
        rows = torch.tensor([at - part.start + shift for at in some], device=hidden.device)
        logs = torch.log_softmax(head.logits(hidden[rows]).float(), dim=-1).cpu().numpy()
        yield from zip(some, entropies(logs).tolist(), logs, strict=True)


def rank(
    subject: Subject,
    tokens: Tokens,
    layer: int,
    mean: NDArray[Any],
    by: Criterion,
    top: int,
    window: int | None = None,
) -> list[Ranked]:
    """The `top` tokens by a criterion, largest first, among those that end a character and, in a
    conversation, at which its roles speak. Errors as in `look`; ConfigError for another criterion,
    or fewer than one token."""
    if by not in CRITERIA or top < 1:
        raise ConfigError(
            "tokens are ranked by a criterion, at least one of them",
            found=f"{top} by {by}",
            do=f"--top 10 --by {'|'.join(CRITERIA)}",
        )
    ends = set(character_ends(subject.tokenizer, tokens.ids))
    places = [place for place in tokens.places("all") if place in ends]
    logits = places if by in ("entropy", "surprise") else []
    values = look(subject, tokens.ids, layer, mean, window, logits)[by]
    spelled = tokens.described(subject.tokenizer)
    return [
        Ranked(place, spelled[place].token, by, float(values[place]))
        for place in ranked(values, places, top)
    ]
