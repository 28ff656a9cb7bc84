"""The subject's next token when block K puts out another vector at the last token of a text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch.nn.functional import normalize

from nlakit.errors import DataError
from nlakit.models.families import active_stream, changed_output
from nlakit.models.head import head_of
from nlakit.models.precision import check_finite
from nlakit.models.steering.front import begun
from nlakit.models.subject import blocks_of

ROWS = 12  # of logits over the whole vocabulary that are held at once


@dataclass(frozen=True)
class Effect:
    """What m vectors do to the next token, each in the place of `own` `(d,)`, the output of block K
    in the untouched run. kl `(m,)`: KL(untouched ‖ patched) in nats. kept `(m,)`: whether the
    likeliest token stays the likeliest."""

    kl: NDArray[np.float64]
    kept: NDArray[np.bool_]
    own: NDArray[np.float32]


class Patcher:
    """A causal LM of which block `layer` is made to put out given vectors. Adapters of the model
    are off meanwhile: the model that goes on is the one under them."""

    def __init__(self, model: Any, decoder: Any, layer: int) -> None:
        self.model, self.decoder, self.layer = model, decoder, layer
        self.head = head_of(model)

    def effect(self, ids: Sequence[int], vectors: NDArray[Any]) -> Effect:
        """Put m vectors `(m, d)` back at the last of t tokens, each by its direction and at the
        norm of what it replaces: a reconstruction has no norm of its own.

        What stands before the last token is read once; then one forward of m + 1 rows, the first
        untouched. Raises DataError without tokens, or if outputs are not finite.
        """
        return self.effects([ids], [vectors])[0]

    @torch.no_grad()
    def effects(
        self,
        texts: Sequence[Sequence[int]],
        vectors: Sequence[NDArray[Any]],
        advance: Callable[[int], None] = lambda count: None,
    ) -> list[Effect]:
        """The effect in each of several texts. Adapters are off during all of them at once:
        switching them takes as long as some tokens."""
        adapted, found = isinstance(self.model, PeftModel), []
        with self.model.disable_adapter() if adapted else nullcontext():
            for ids, some in zip(texts, vectors, strict=True):
                found.append(self._effect(ids, some))
                advance(1)
        return found

    def _effect(self, ids: Sequence[int], vectors: NDArray[Any]) -> Effect:
        if not len(ids):
            raise DataError("no token to put a vector at", found="an empty text", do="give a text")
        device = next(self.decoder.parameters()).device
        along = torch.as_tensor(np.asarray(vectors), dtype=torch.float32, device=device)
        cache, rest = begun(self.decoder, ids, len(ids) - 1, len(along) + 1)
        row = torch.tensor([rest], device=device).expand(len(along) + 1, -1)
        with patching(self.decoder, self.layer, along) as replaced:
            hidden = self.decoder(input_ids=row, past_key_values=cache, use_cache=True)[0]
        last = hidden[:, -1]
        check_finite(last, "the patched subject's outputs", str(last.dtype).split(".")[-1])
        kl, kept = self._compared(last)
        return Effect(kl[1:], kept[1:], replaced[0].cpu().numpy())

    def _compared(self, last: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """KL(first ‖ each) and whether the likeliest token is that of the first, of outputs
        `(m, d)`. The head is walked once for `ROWS` of them: it costs as much for one."""
        plain = chances = best = torch.empty(0)
        divergences, same = [], []
        for at, some in enumerate(last.split(ROWS)):
            logits = self.head.logits(some).float()
            logits -= logits.logsumexp(dim=-1, keepdim=True)
            likeliest = logits.argmax(dim=-1)
            if at == 0:
                plain, best = logits[0].clone(), likeliest[0]
                chances = plain.exp()
            divergences.append(logits.neg_().add_(plain) @ chances)  # terms of equal rows are 0
            same.append(likeliest == best)
        return torch.cat(divergences).double().cpu().numpy(), torch.cat(same).cpu().numpy()


@contextmanager
def patching(decoder: Any, layer: int, along: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """A forward of m + 1 rows inside the body, of which all but the first get, at their last token,
    directions `(m, d)` as the output of block `layer`, at the norm of what they replace. Gives a
    list, which holds after the forward the first row's own output there `(d,)`, in float32."""
    stream, replaced = active_stream(decoder), list[torch.Tensor]()

    def change(hidden: torch.Tensor) -> torch.Tensor:
        own = hidden[:, -1].float()
        replaced.append(own[0])
        changed = hidden.clone()
        norms = own[1:].norm(dim=-1, keepdim=True)
        changed[1:, -1] = (normalize(along, dim=-1) * norms).to(hidden.dtype)
        return changed

    handle = blocks_of(decoder)[layer].register_forward_hook(
        lambda module, args, output: changed_output(output, stream, change)
    )
    try:
        yield replaced
    finally:
        handle.remove()
