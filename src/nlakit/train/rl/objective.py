"""What the AV's update maximises: advantages, weights of the tokens, distance from its start."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Advantages = Literal["group", "batch"]
Update = Literal["clip", "cispo"]
ALIKE = 1e-6  # a spread of rewards that is none


def advantages(
    rewards: NDArray[np.float64], kind: Advantages, learn_on: int | None = None
) -> NDArray[np.float64]:
    """Advantages `(n, G)` of rewards `(n, G)`; 0 throughout a group whose rewards are all alike.

    group: (r − mean) / standard deviation, both of the vector's own texts (GRPO, Shao et al. 2024,
    arXiv 2402.03300, section 4.1). batch: the same with the standard deviation of all r − mean, so
    that a group with little between its texts counts for little (REINFORCE++, Hu 2025, arXiv
    2501.03262, with the group's mean as baseline). learn_on: of that many texts a group, half its
    best and half its worst, as if no others had been drawn; 0 for these (PODS, Xu et al. 2025,
    arXiv 2504.13818).
    """
    if learn_on is not None:
        order = np.argsort(rewards, axis=1, kind="stable")
        last = rewards.shape[1] - (learn_on - learn_on // 2)
        picked = np.concatenate([order[:, : learn_on // 2], order[:, last:]], axis=1)
        few = advantages(np.take_along_axis(rewards, picked, axis=1), kind)
        found = np.zeros_like(rewards)
        np.put_along_axis(found, picked, few, axis=1)
        return found
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    scale = spread if kind == "group" else np.sqrt(np.square(centred).mean())
    usable = np.broadcast_to(spread > ALIKE, centred.shape)
    return np.where(usable, centred / np.maximum(scale, ALIKE), 0.0)


def best_of_n(rewards: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for the best text of each vector and 0 for the others, `(n, G)`: the update is then one of
    supervised training on the best. 0 throughout a group whose rewards are all alike."""
    best = np.zeros_like(rewards)
    best[np.arange(len(rewards)), rewards.argmax(axis=1)] = 1.0
    return np.where(rewards.std(axis=1, keepdims=True) > ALIKE, best, 0.0)


def policy_loss(
    log_p: torch.Tensor,
    drawn_log_p: torch.Tensor,
    advantage: torch.Tensor,
    update: Update,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """Loss of each token `(m,)` from its log p now, its log p when it was drawn, and its text's
    advantage.

    With ρ = p / p_drawn. clip: −min(ρA, clip(ρ, 1 − low, 1 + high)·A) (PPO, Schulman et al. 2017,
    equation 7; the two bounds apart as in DAPO, Yu et al. 2025, arXiv 2503.14476). cispo:
    −min(ρ, 1 + high)·A·log p with the weight held constant, so that no token loses its gradient
    (MiniMax-M1 2025, arXiv 2506.13585, equations 4 and 5).
    """
    ratio = torch.exp(log_p - drawn_log_p)
    if update == "cispo":
        return -(ratio.detach().clamp(max=1 + clip_high) * advantage * log_p)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)


def divergence(log_p: torch.Tensor, start_log_p: torch.Tensor) -> torch.Tensor:
    """KL(AV ‖ supervised AV) estimated a token `(m,)`: e^δ − δ − 1 with δ = log p_start − log p,
    never negative and unbiased (Schulman 2020, "Approximating KL divergence", k3)."""
    delta = start_log_p - log_p
    return torch.exp(delta) - delta - 1
