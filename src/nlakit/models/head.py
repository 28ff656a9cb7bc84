"""Negative log-likelihood over a large vocabulary without holding its logits.

The plain way keeps `(m, V)` logits and their gradients: for V = 262144 and 500 labelled positions
that is a gigabyte. Here each chunk's gradient to the hidden states is taken at once and the logits
are dropped; the head is frozen, so nothing else is needed: 4 FLOP a weight and position.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK = 64


class _ChunkedNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        losses, gradients = [], []
        wanted = ctx.needs_input_grad[0]
        for start in range(0, len(hidden), CHUNK):
            picked = targets[start : start + CHUNK, None]
            logits = (hidden[start : start + CHUNK] @ weight.T).float()
            if softcap:
                logits = softcap * torch.tanh(logits / softcap)
            total = torch.logsumexp(logits, dim=-1, keepdim=True)
            losses.append((total - logits.gather(1, picked))[:, 0])
            if wanted:
                slope = (1 - (logits / softcap) ** 2) if softcap else None
                gradient = logits.sub_(total).exp_()
                gradient.scatter_add_(1, picked, -torch.ones_like(picked, dtype=logits.dtype))
                if slope is not None:
                    gradient *= slope
                gradients.append(gradient.to(weight.dtype) @ weight)
        if wanted:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        scaled = (gradient.float() * upstream[0][:, None]).to(gradient.dtype)
        return scaled, None, None, None


def chunked_nll(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    softcap: float | None = None,
) -> torch.Tensor:
    """−log p(target) `(m,)` in nats, float32, for hidden states `(m, d)` and a frozen head `(V, d)`.

    `softcap` c applies c·tanh(logits / c) as Gemma 2 does.
    """
    result = _ChunkedNLL.apply(hidden, weight, targets, softcap)
    assert isinstance(result, torch.Tensor)
    return result
