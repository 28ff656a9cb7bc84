"""AdamW over float32 masters of low-precision adapters.

Adapters stay in bfloat16 because a float32 adapter would cast every activation; a bfloat16 weight
loses updates below 1/256 of its size. The masters keep them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nlakit.config import Phase


class MasterAdamW:
    """AdamW on float32 copies of `parameters`; the parameters get the rounded result."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.masters = [p.detach().float().clone() for p in self.parameters]
        self.inner = torch.optim.AdamW(self.masters, lr=0.0, weight_decay=weight_decay)

    def step(self, lr: float, clip_norm: float) -> float:
        """One update with the gradients at hand, clipped to `clip_norm`; returns their norm.

        A gradient that is not finite changes nothing: the caller counts it as skipped.
        """
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            gradient = parameter.grad
            master.grad = torch.zeros_like(master) if gradient is None else gradient.float()
            parameter.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, clip_norm))
        if not math.isfinite(norm):
            return norm
        for group in self.inner.param_groups:
            group["lr"] = lr
        self.inner.step()
        self.write_back()
        return norm

    @torch.no_grad()
    def write_back(self) -> None:
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            parameter.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        return {"masters": self.masters, "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.copy_(saved)
        self.inner.load_state_dict(state["inner"])
        self.write_back()


def learning_rate(phases: Sequence[Phase], step: int) -> float:
    """Learning rate at 0-based `step`, counted through the phases in order."""
    for phase in phases:
        if step < phase.steps:
            return _phase_rate(phase, step)
        step -= phase.steps
    return 0.0


def _phase_rate(phase: Phase, step: int) -> float:
    if step < phase.warmup:
        return phase.lr * (step + 1) / phase.warmup
    if phase.schedule == "constant":
        return phase.lr
    done = (step - phase.warmup) / max(phase.steps - phase.warmup, 1)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if phase.schedule == "cosine" else 1 - done
    return phase.lr * (phase.end_factor + (1 - phase.end_factor) * shape)
