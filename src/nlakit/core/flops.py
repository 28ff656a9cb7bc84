"""Useful floating-point operations, counted by hand from a model's numbers.

Counted: 2 FLOP a weight and token forward, as much again for the gradient of the input, as much
again for the gradient of a trained weight; of the vocabulary head, the positions that need it.
Not counted: padding, norms, activations, softmax, the optimizer, anything computed twice.
Attention counts all t² pairs of a sequence, masked or not, 4·t²·d_attention a block forward and
three times that in a training step; its share is small at the lengths used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that decide its operations.

    lora_unit: weights an adapter of rank 1 has in one block, the sum of in + out over projections.
    """

    block_weights: int
    blocks: int
    d_attention: int
    d_model: int
    vocabulary: int
    lora_unit: int = 0

    def lora_weights(self, rank: int, blocks: int | None = None) -> int:
        """Weights of the adapters on `blocks` blocks (all unless given)."""
        return rank * self.lora_unit * (self.blocks if blocks is None else blocks)


def attention(shape: Shape, blocks: int, lengths: Sequence[float]) -> float:
    """Scores and weighted values of whole sequences, forward."""
    return 4.0 * shape.d_attention * blocks * sum(length**2 for length in lengths)


def forward(shape: Shape, blocks: int, lengths: Sequence[float], rank: int = 0) -> float:
    """The first `blocks` blocks over sequences of `lengths` tokens, with adapters of `rank`."""
    weights = shape.block_weights * blocks + shape.lora_weights(rank, blocks)
    return 2.0 * weights * sum(lengths) + attention(shape, blocks, lengths)


def lora_step(shape: Shape, blocks: int, lengths: Sequence[float], rank: int) -> float:
    """Forward and backward: 4 FLOP a frozen weight and token, 6 a trained one. What is trained is
    adapters of `rank`, or with rank 0 the blocks themselves."""
    frozen = (4.0 if rank else 6.0) * shape.block_weights * blocks
    trained = 6.0 * shape.lora_weights(rank, blocks)
    return (frozen + trained) * sum(lengths) + 3 * attention(shape, blocks, lengths)


def head(shape: Shape, positions: float, *, backward: bool = False) -> float:
    """The frozen vocabulary head at `positions`; `backward` adds the gradient of its input."""
    return (4.0 if backward else 2.0) * shape.d_model * shape.vocabulary * positions


def reading(shape: Shape, last: int | None, lengths: Sequence[float], positions: float) -> float:
    """Blocks up to `last` over documents; with None, all of them and the head at `positions`."""
    if last is not None:
        return forward(shape, last + 1, lengths)
    return forward(shape, shape.blocks, lengths) + head(shape, positions)


def decode_step(shape: Shape, rows: float, context: float, rank: int = 0) -> float:
    """One more token for each of `rows` rows, each attending to `context` cached tokens."""
    weights = shape.block_weights * shape.blocks + shape.lora_weights(rank)
    cached = 4.0 * shape.d_attention * shape.blocks * context
    return rows * (2.0 * weights + cached) + head(shape, rows)


def decoding(
    shape: Shape, rows: float, prompt: float, new: float, rank: int = 0, each: int = 1
) -> float:
    """Prefill of `prompt` tokens that `each` rows share, then steps until each row has `new`
    tokens."""
    prefill = rows / each * forward(shape, shape.blocks, [prompt], rank) + head(shape, rows)
    # The context grows by one a step, so its mean stands for all the steps.
    return prefill + (new - 1) * decode_step(shape, rows, prompt + new / 2, rank)
