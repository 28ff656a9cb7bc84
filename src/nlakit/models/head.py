"""Negative log-likelihood over a large vocabulary without ever holding its logits.

The plain way keeps `(m, V)` logits and their gradients: for V = 262144 and 800 positions that is
1.7 GB. Here the vocabulary is walked in tiles that fit the processor's cache, with a running
maximum and sum (the online softmax of Milakov and Gimelshein 2018), and the gradient to the hidden
states is gathered on the same walk. The head is frozen, so nothing else is needed: 4 FLOP a weight
and position, and each weight is read once.
"""

from __future__ import annotations

import math
from typing import Any

import torch

TILE = 4096
LOG2_E = math.log2(math.e)


class _TiledNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        top = hidden.new_full((len(hidden), 1), -math.inf, dtype=torch.float32)
        total, gathered = torch.zeros_like(top), torch.zeros_like(hidden, dtype=torch.float32)
        for start in range(0, len(weight), TILE):
            tile = weight[start : start + TILE]
            logits = hidden @ tile.T
            values = logits.float()
            slope = _cap_(values, softcap)
            new = torch.maximum(top, values.amax(dim=-1, keepdim=True))
            values.sub_(new).mul_(LOG2_E).exp2_()  # exp2 is several times faster than exp
            fade = torch.exp(top - new)
            total.mul_(fade).add_(values.sum(dim=-1, keepdim=True))
            top = new
            if wanted:
                if slope is not None:
                    values.mul_(slope)
                gathered.mul_(fade).add_(logits.copy_(values) @ tile)
        chosen = weight[targets]
        own = (hidden.float() * chosen.float()).sum(dim=-1, keepdim=True)
        own_slope = _cap_(own, softcap)
        if wanted:
            pull = chosen.float() if own_slope is None else chosen.float() * own_slope
            ctx.save_for_backward((gathered / total - pull).to(hidden.dtype))
        return (top + total.log() - own)[:, 0]

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        scaled = (gradient.float() * upstream[0][:, None]).to(gradient.dtype)
        return scaled, None, None, None


def _cap_(logits: torch.Tensor, softcap: float | None) -> torch.Tensor | None:
    """Cap logits in place; returns the slope of the cap, None without one."""
    if not softcap:
        return None
    logits.div_(softcap).tanh_()
    slope = 1 - logits.square()
    logits.mul_(softcap)
    return slope


def tiled_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float | None = None,
) -> torch.Tensor:
    """−log p(target) `(m,)` in nats, float32, for hidden states `(m, d)`, a frozen head `(V, d)`.

    `softcap` c applies c·tanh(logits / c) as Gemma 2 does.
    """
    result = _TiledNLL.apply(hidden.to(weight.dtype), weight, targets, softcap)
    assert isinstance(result, torch.Tensor)
    return result
