"""Negative log-likelihood over a large vocabulary without ever holding its logits.

The plain way keeps `(m, V)` logits and their gradients: for V = 262144 and 800 positions that is
1.7 GB. Here the vocabulary is walked in tiles that fit the processor's cache, with a running
maximum and sum (the online softmax of Milakov and Gimelshein 2018), and the gradient to the hidden
states is gathered on the same walk. The head is frozen, so nothing else is needed: 4 FLOP a weight
and position, and each weight is read once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from nlakit.core.memory import TILE

LOG2_E = math.log2(math.e)


class _TiledNLL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        softcap: float | None,
        bias: torch.Tensor | None,
        temperature: float,
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0]
        top = hidden.new_full((len(hidden), 1), -math.inf, dtype=torch.float32)
        total, gathered = torch.zeros_like(top), torch.zeros_like(hidden, dtype=torch.float32)
        for start in range(0, len(weight), TILE):
            tile = weight[start : start + TILE]
            logits = hidden @ tile.T
            values = logits.float()
            if bias is not None:
                values += bias[start : start + TILE].float()
            slope = _cap_(values, softcap)
            if temperature != 1:
                values.div_(temperature)
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
        if bias is not None:
            own += bias[targets].float()[:, None]
        own_slope = _cap_(own, softcap)
        own.div_(temperature)
        if wanted:
            pull = chosen.float() if own_slope is None else chosen.float() * own_slope
            ctx.save_for_backward(((gathered / total - pull) / temperature).to(hidden.dtype))
        return (top + total.log() - own)[:, 0]

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[Any, ...]:
        (gradient,) = ctx.saved_tensors
        scaled = (gradient.float() * upstream[0][:, None]).to(gradient.dtype)
        return scaled, None, None, None, None, None


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
    bias: torch.Tensor | None = None,
    temperature: float = 1.0,
) -> torch.Tensor:
    """−log p(target) `(m,)` in nats, float32, for hidden states `(m, d)`, a frozen head `(V, d)`.

    `softcap` c applies c·tanh(logits / c) as Gemma 2 does; `bias` is `(V,)`; the capped logits are
    divided by `temperature`.
    """
    result = _TiledNLL.apply(hidden.to(weight.dtype), weight, targets, softcap, bias, temperature)
    assert isinstance(result, torch.Tensor)
    return result


@dataclass(frozen=True)
class Head:
    """The vocabulary head of a causal LM: logits = cap(scale · W h + b)."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: float
    softcap: float | None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `(m, V)` of hidden states `(m, d)`."""
        made = self._scaled(hidden) @ self.weight.T
        if self.bias is not None:
            made = made + self.bias
        return self.softcap * torch.tanh(made / self.softcap) if self.softcap else made

    def nll(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0
    ) -> torch.Tensor:
        """−log p(target) `(m,)` in nats, float32, of hidden states `(m, d)`, where tokens are drawn
        at `temperature`. Logits are never held all at once; a head that is trained gets its
        gradient."""
        if not self.weight.requires_grad:
            scaled = self._scaled(hidden)
            return tiled_nll(scaled, self.weight, targets, self.softcap, self.bias, temperature)
        parts = zip(hidden.split(64), targets.split(64), strict=True)
        made = [
            checkpoint(self._plain_nll, h, t, temperature, use_reentrant=False) for h, t in parts
        ]
        return torch.cat(made)  # type: ignore[arg-type]

    def log_p(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """log p in nats, float32, of k tokens a hidden state: `(m, d)` and `(m, k)` to `(m, k)`. A
        logit of a token is added up in float32: in bfloat16 it is known to a sixteenth."""
        chosen = self._scaled(hidden).float()[:, None] * self.weight[tokens].float()
        values = chosen.sum(dim=-1)
        if self.bias is not None:
            values += self.bias[tokens].float()
        _cap_(values, self.softcap)
        return values - values[:, :1] - self.nll(hidden, tokens[:, 0])[:, None]

    def _plain_nll(
        self, hidden: torch.Tensor, targets: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        logits = self.logits(hidden).float() / temperature
        return cross_entropy(logits, targets, reduction="none")

    def _scaled(self, hidden: torch.Tensor) -> torch.Tensor:
        hidden = hidden.to(self.weight.dtype)
        return hidden if self.scale == 1 else hidden * self.scale


def head_of(model: Any) -> Head:
    """The head of a causal LM: Phi's has a bias, Gemma 2, 3n and 4 cap their logits, Cohere
    multiplies them and Granite divides them."""
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1 / getattr(config, "logits_scaling", 1)
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, getattr(layer, "bias", None), scale, softcap)
