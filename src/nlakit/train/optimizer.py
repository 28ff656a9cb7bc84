"""AdamW over float32 masters of low-precision adapters.

Adapters stay in bfloat16 because a float32 adapter would cast every activation; a bfloat16 weight
loses updates below 1/256 of its size. The masters keep them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from nlakit.config.sections import Phase
from nlakit.models.quantise import check_installed

WARMUP = 0.05  # of a phase's steps


class LossScale:
    """The factor that keeps float16 gradients off zero: halved at a gradient that is not finite,
    doubled after 200 that were (Micikevicius et al. 2018, section 3.2)."""

    def __init__(self, on: bool) -> None:
        self.on, self.factor, self.good = on, 2.0**15 if on else 1.0, 0

    def update(self, finite: bool) -> None:
        if not self.on:
            return
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.factor = max(self.factor / 2, 1.0)
        elif self.good % 200 == 0:
            self.factor *= 2

    def state(self) -> list[float]:
        return [self.factor, self.good]

    def load(self, state: Sequence[float]) -> None:
        self.factor, self.good = float(state[0]), int(state[1])


class MasterAdamW:
    """AdamW on float32 copies of `parameters`; the parameters get the rounded result.

    bits: of the optimizer's states, 32 or 8 (bitsandbytes). scale: what the loss was multiplied
    by. Raises ConfigError for 8 bits without bitsandbytes.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        weight_decay: float,
        bits: int = 32,
        scale: LossScale | None = None,
    ) -> None:
        self.parameters = list(parameters)
        # A float32 parameter is its own master: `float` copies none.
        self.masters = [p.detach().float() for p in self.parameters]
        self.inner = _adamw(self.masters, weight_decay, bits)
        self.scale = scale or LossScale(on=False)

    def step(self, lr: float, clip_norm: float) -> float:
        """One update with the gradients at hand, clipped to `clip_norm`; returns their norm.

        A gradient that is not finite changes nothing: the caller counts it as skipped.
        """
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            gradient = parameter.grad
            master.grad = torch.zeros_like(master) if gradient is None else gradient.float()
            master.grad /= self.scale.factor
            parameter.grad = None
        norm = float(torch.nn.utils.clip_grad_norm_(self.masters, clip_norm))
        self.scale.update(math.isfinite(norm))
        if math.isfinite(norm):
            for group in self.inner.param_groups:
                group["lr"] = lr
            self.inner.step()
            self.write_back()
        for master in self.masters:  # the next batch needs the room
            master.grad = None
        return norm

    @torch.no_grad()
    def write_back(self) -> None:
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            parameter.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        inner = self.inner.state_dict()
        return {"masters": self.masters, "inner": inner, "scale": self.scale.state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for master, saved in zip(self.masters, state["masters"], strict=True):
            master.copy_(saved)
        self.inner.load_state_dict(state["inner"])
        self.scale.load(state["scale"])
        self.write_back()


def _adamw(masters: list[torch.Tensor], weight_decay: float, bits: int) -> torch.optim.Optimizer:
    if bits == 32:
        return torch.optim.AdamW(masters, lr=0.0, weight_decay=weight_decay)
    check_installed("optimizer: adamw8bit")
    from bitsandbytes.optim.adamw import AdamW8bit

    return AdamW8bit(masters, lr=0.0, weight_decay=weight_decay)


def learning_rate(phases: Sequence[Phase], step: int) -> float:
    """Learning rate at 0-based `step`, counted through the phases in order."""
    for phase in phases:
        if step < phase.steps:
            return _phase_rate(phase, step)
        step -= phase.steps
    return 0.0


def _phase_rate(phase: Phase, step: int) -> float:
    warmup = round(WARMUP * phase.steps) if phase.warmup is None else phase.warmup
    if step < warmup:
        return phase.lr * (step + 1) / warmup
    if phase.schedule == "constant":
        return phase.lr
    done = (step - warmup) / max(phase.steps - warmup, 1)
    shape = 0.5 * (1 + math.cos(math.pi * done)) if phase.schedule == "cosine" else 1 - done
    return phase.lr * (phase.end_factor + (1 - phase.end_factor) * shape)
