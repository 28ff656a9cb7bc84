"""The subject's own model, pushed along a direction at the output of one block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from nlakit.models.decode import draw, end_ids
from nlakit.models.families import active_stream, changed_output
from nlakit.models.head import head_of
from nlakit.models.precision import check_finite
from nlakit.models.steering.front import begun
from nlakit.models.subject import Subject, blocks_of, decoder_of

BATCH = 32  # rows of one text that run together


@dataclass(frozen=True)
class Places:
    """Which tokens are steered: `tokens` of the text by index, and, with `written`, each one that
    is written behind it."""

    tokens: tuple[int, ...]
    text: int  # tokens of the text
    written: bool = False

    def columns(self, start: int, count: int) -> list[int]:
        """Those of the tokens start, ..., start + count − 1, counted from `start`."""
        named = [at - start for at in self.tokens if start <= at < start + count]
        behind = range(max(self.text - start, 0), count) if self.written else ()
        return [*named, *behind]


def pushed(
    hidden: torch.Tensor, columns: Sequence[int], directions: torch.Tensor, alphas: torch.Tensor
) -> torch.Tensor:
    """A copy of `hidden` `(b, t, d)` in which h at each of `columns` is h + α‖h‖ v/‖v‖, in float32:
    v row by row of `directions` `(b, d)`, α of `alphas` `(b,)`. Rows with α = 0 and all other
    columns stay as they are, bit for bit."""
    at = torch.tensor(columns, device=hidden.device)
    own = hidden[:, at]
    here, sizes = own.float(), alphas.to(hidden.device)[:, None, None]
    unit = normalize(directions.to(hidden.device).float(), dim=-1)[:, None]
    moved = (here + sizes * here.norm(dim=-1, keepdim=True) * unit).to(own.dtype)
    changed = hidden.clone()
    changed[:, at] = torch.where(sizes != 0, moved, own)  # −0 + 0 would be 0
    return changed


@contextmanager
def pushing(
    decoder: Any,
    layer: int,
    directions: torch.Tensor,
    alphas: torch.Tensor,
    places: Places,
    start: int = 0,
) -> Iterator[None]:
    """Steer forwards of b rows inside the body at the output of block `layer`.

    The forwards go on from each other in one cache; `start` tokens lie in it already. So a decode
    step steers the token that it takes in, if that one is to be steered, and no earlier one again:
    blocks above `layer` have keys and values of steered tokens in the cache.
    """
    stream, passed = active_stream(decoder), start

    def hook(module: Any, args: Any, output: Any) -> Any:
        nonlocal passed
        count = (output[0] if isinstance(output, tuple) else output).shape[-2]
        columns = places.columns(passed, count)
        passed += count
        if not columns:
            return None
        return changed_output(output, stream, lambda h: pushed(h, columns, directions, alphas))

    handle = blocks_of(decoder)[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class Steerer:
    """A subject whose next tokens are asked for while its block `layer` is pushed.

    Rows are variants of one text: they share what stands before the first steered token, which is
    read once.
    """

    def __init__(self, subject: Subject, layer: int) -> None:
        self.layer, self.device = layer, subject.device
        self.decoder: Any = decoder_of(subject.model)
        self.head, self.ends = head_of(subject.model), end_ids(subject.model)

    @torch.no_grad()
    def log_p(
        self,
        ids: Sequence[int],
        follow: Sequence[int],
        directions: NDArray[Any],
        alphas: NDArray[Any],
        places: Places,
        tokens: Sequence[int],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """log p in nats after text `ids` and along `follow`, n tokens: of each of w `tokens` at
        each of the n places, `(b, n, w)`, and of `follow` itself, `(b, n)`. One row a direction
        `(b, d)` with its α `(b,)`; one forward, no decoding.

        Raises DataError if outputs are not finite.
        """
        told = []
        wanted = torch.tensor([[one, *tokens] for one in follow], device=self.device)
        for rows in _chunks(len(directions)):
            with self._begun(ids, directions[rows], alphas[rows], places) as (cache, rest):
                row = torch.tensor([[*rest, *follow[:-1]]], device=self.device)
                taken = row.expand(len(alphas[rows]), -1)
                hidden = self.decoder(input_ids=taken, past_key_values=cache, use_cache=True)[0]
            last = hidden[:, -len(follow) :]
            check_finite(last, "the steered subject's outputs", str(last.dtype).split(".")[-1])
            asked = wanted.expand(len(last), -1, -1).reshape(-1, wanted.shape[1])
            found = self.head.log_p(last.reshape(-1, last.shape[-1]), asked)
            told.append(found.view(len(last), len(follow), -1).cpu().numpy())
        made = np.concatenate(told)
        return made[:, :, 1:], made[:, :, 0]

    @torch.no_grad()
    def write(
        self,
        ids: Sequence[int],
        directions: NDArray[Any],
        alphas: NDArray[Any],
        places: Places,
        new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[list[int]]:
        """Token ids that follow the text, a row each; a row ends before an end-of-sequence token.

        At a temperature each row draws with the same random numbers, so that rows differ by their
        push alone.
        """
        made: list[list[int]] = []
        for rows in _chunks(len(directions)):
            count = len(alphas[rows])
            numbers = np.random.default_rng(seed)
            texts: list[list[int]] = [[] for _ in range(count)]
            ended = [False] * count
            with self._begun(ids, directions[rows], alphas[rows], places) as (cache, rest):
                taken = torch.tensor([rest], device=self.device).expand(count, -1)
                for _ in range(new_tokens):
                    hidden = self.decoder(input_ids=taken, past_key_values=cache, use_cache=True)[0]
                    logits = self.head.logits(hidden[:, -1])
                    taken = _chosen(logits, temperature, numbers)[:, None]
                    for at, token in enumerate(taken[:, 0].tolist()):
                        ended[at] |= token in self.ends
                        if not ended[at]:
                            texts[at].append(token)
                    if all(ended):
                        break
            made += texts
        return made

    @contextmanager
    def _begun(
        self, ids: Sequence[int], directions: NDArray[Any], alphas: NDArray[Any], places: Places
    ) -> Iterator[tuple[Any, list[int]]]:
        """A cache of `b` rows with the tokens before the first steered one, and the tokens that are
        still to read; forwards inside the body are steered."""
        before = min(places.tokens, default=0)
        cache, rest = begun(self.decoder, ids, before, len(alphas))
        along = torch.as_tensor(np.asarray(directions), dtype=torch.float32, device=self.device)
        sizes = torch.as_tensor(np.asarray(alphas), dtype=torch.float32, device=self.device)
        start = len(ids) - len(rest)
        with pushing(self.decoder, self.layer, along, sizes, places, start):
            yield cache, rest


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + BATCH, count)) for start in range(0, count, BATCH)]


def _chosen(logits: torch.Tensor, temperature: float, numbers: np.random.Generator) -> torch.Tensor:
    if temperature == 0:
        return logits.max(dim=-1).indices
    count = len(logits)
    return draw(logits, [temperature] * count, [numbers.random()] * count)[0]
