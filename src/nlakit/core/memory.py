"""Bytes that a model, its adapters, an optimizer and a batch occupy, from a model's numbers alone.

Counted: weights; adapters with gradients, float32 masters, their gradients and the optimizer's
states; what autograd keeps of each block; the temporaries of the widest block; the tiles of the
vocabulary head; the cache and logits of decoding. Not counted: what an allocator loses between
blocks, a device's context, Python and its libraries.

Activations are counted for decoder blocks as transformers writes them (attention by SDPA with
keys and values repeated to the width of the queries, norms in float32) with adapters by PEFT. A
block that keeps more is counted too low: scores of attention without SDPA, several streams, an
activation function made of many operations, dropout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

NF4_BLOCK, SCALE_BLOCK = 64, 256  # weights under one 8-bit scale; scales under one float32
NF4_TABLES = 4 * (16 + 256 + 1)  # a tensor's two codes and the offset of its scales, float32
STATE_BLOCK = 256  # weights under one float32 scale of an 8-bit optimizer state
TILE = 4096  # vocabulary entries in a tile of the head
FLOAT32_NORM = 12  # bytes a channel that a norm holds: input, normed and weighed in float32

Optimizer = Literal["adamw", "adamw8bit"]


@dataclass(frozen=True)
class Block:
    """A decoder block: weights of every linear layer, (in, out) of those with an adapter, other
    weights; widths of queries, of keys (0 if they are another block's), of the MLP's first
    projections together, of the inputs of norms over the model's width and over heads together;
    of the per-layer input."""

    linears: tuple[int, ...]
    adapted: tuple[tuple[int, int], ...]
    other: int
    queries: int
    keys: int
    up: int
    gated: bool
    normed: int
    extra: int = 0

    @property
    def lora_unit(self) -> int:
        """Weights of an adapter of rank 1."""
        return sum(map(sum, self.adapted))


@dataclass(frozen=True)
class Model:
    """`tables` are the weights of per-layer embeddings, `outer` those of linear layers outside
    the blocks but the head, `other` all that are left."""

    d_model: int
    vocabulary: int
    tied: bool
    blocks: tuple[Block, ...]
    tables: int = 0
    outer: tuple[int, ...] = ()
    other: int = 0
    softcap: bool = False

    def lora_weights(self, rank: int, blocks: int | None = None) -> int:
        return rank * sum(block.lora_unit for block in self.blocks[:blocks])


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight, of a number in the residual stream and of an adapter's weight."""

    weight: int = 2
    stream: int = 2
    adapter: int = 2
    nf4: bool = False
    tables_here: bool = True

    @classmethod
    def of(cls, dtype: str, quantisation: str | None = None, ple_on_cpu: bool = False) -> Precision:
        """float16 has float32 adapters, and under NF4 a float32 residual stream too."""
        size, half = (4 if dtype == "float32" else 2), dtype == "float16"
        nf4 = quantisation == "nf4"
        return cls(size, 4 if half and nf4 else size, 4 if half else size, nf4, not ple_on_cpu)


def nf4_bytes(weights: int) -> int:
    """A tensor in NF4 with doubly quantised scales."""
    scales = ceil(weights / NF4_BLOCK)
    return ceil(weights / 2) + scales + 4 * ceil(scales / SCALE_BLOCK) + NF4_TABLES


def weight_bytes(model: Model, precision: Precision) -> dict[str, float]:
    """The frozen model by kind."""

    def linear(sizes: Sequence[int]) -> float:
        return sum(nf4_bytes(n) if precision.nf4 else n * precision.weight for n in sizes)

    width, table = precision.weight, model.vocabulary * model.d_model
    return {
        "blocks": linear([n for block in model.blocks for n in block.linears]),
        "embeddings": width * table,
        "head": 0 if model.tied else width * table,
        "per-layer embeddings": width * model.tables if precision.tables_here else 0,
        "other weights": linear(model.outer)
        + width * (model.other + sum(block.other for block in model.blocks)),
    }


def optimizer_bytes(weights: Sequence[int], optimizer: Optimizer) -> float:
    """Two states of tensors with `weights` elements. They have 8 bits where a tensor has 4096
    elements or more, with a float32 scale every 256."""
    total = 0
    for count in weights:
        small = optimizer == "adamw" or count < 4096
        total += 8 * count if small else 2 * count + 8 * ceil(count / STATE_BLOCK)
    return total


def tensors_trained(model: Model, rank: int, blocks: int, *, ar: bool) -> list[int]:
    """Elements of the tensors that a half trains in the subject's dtype: adapters of `rank` on
    `blocks` blocks, or with rank 0 a copy of the half."""
    used = model.blocks[:blocks]
    if rank:
        return [rank * width for block in used for pair in block.adapted for width in pair]
    table = model.vocabulary * model.d_model
    head = 0 if ar or model.tied else table
    rest = model.other + sum(block.other for block in used)
    linears = [n for block in used for n in block.linears]
    return [n for n in (*linears, *model.outer, table, head, model.tables, rest) if n]


def training_bytes(
    model: Model, precision: Precision, rank: int, blocks: int, optimizer: Optimizer, *, ar: bool
) -> dict[str, float]:
    """A half in training, with its float32 head if it is an AR. The optimizer works on float32
    copies; what is float32 already needs none."""
    tensors, head = tensors_trained(model, rank, blocks, ar=ar), model.d_model**2 if ar else 0
    width = precision.adapter if rank else precision.weight
    own = width * sum(tensors) + 4 * head
    return {
        "trained weights": own,
        "gradients": own,
        "float32 copies": 4 * sum(tensors) if width < 4 else 0,
        "optimizer states": optimizer_bytes([*tensors, head], optimizer),
    }


def kept_of_block(block: Block, model: Model, precision: Precision, rank: int) -> float:
    """Bytes a token that autograd keeps of one block: the float32 inputs of norms, inputs of
    adapters, what SDPA and the MLP multiply, and the insides of adapters."""
    width, inputs = precision.stream, sum(inside for inside, _ in block.adapted)
    cast = precision.adapter * inputs if rank and precision.adapter != precision.stream else 0
    linear = 2 * model.d_model + 4 * block.queries + 2 * block.up + 3 * block.extra
    normed = (4 if rank else 8) * block.normed  # a norm that is trained keeps what it weighs
    return normed + width * linear + cast + precision.adapter * rank * len(block.adapted)


def running(block: Block, model: Model, precision: Precision, rank: int) -> float:
    """Bytes a token that one block holds at its widest moment of a forward pass without gradients:
    inside its MLP, its attention, or a norm."""
    width, inner = precision.stream, block.up // 2 if block.gated else block.up
    # With adapters: a first product, then the base's result, the adapter's and their sum.
    at_once = 3 + block.gated if rank else 2 + block.gated
    mlp = width * (4 * model.d_model + at_once * inner)
    heads = width * (block.queries + 2 * block.keys) + FLOAT32_NORM * block.queries
    attention = 2 * width * model.d_model + heads
    return max(mlp, attention, (2 * width + FLOAT32_NORM) * model.d_model)


def returning(block: Block, model: Model, precision: Precision) -> float:
    """Bytes a token that a backward pass adds to what is kept: the gradients of the MLP's first
    products, or the float32 gradients inside a norm."""
    return max(precision.stream * block.up, (FLOAT32_NORM + 4) * model.d_model)


def unpacked(model: Model, precision: Precision, blocks: int) -> float:
    """The widest linear layer, dequantised for its product."""
    used = model.blocks[:blocks]
    return precision.weight * max(max(b.linears) for b in used) if precision.nf4 else 0


def training_activations(
    model: Model,
    precision: Precision,
    rank: int,
    blocks: int,
    tokens: int,
    *,
    checkpointing: bool,
) -> dict[str, float]:
    """A forward and backward pass over `tokens` positions, padding included.

    Checkpointing keeps the input of every block, and all of the one that is run again.
    """
    used = model.blocks[:blocks]
    kept = [tokens * kept_of_block(block, model, precision, rank) for block in used]
    inputs = tokens * precision.stream * model.d_model * (blocks + 1)
    extra = tokens * sum(block.extra for block in model.blocks) * (precision.stream + 4)
    busy = tokens * max(returning(block, model, precision) for block in used)
    return {
        "kept for backward": extra + (inputs + max(kept) if checkpointing else sum(kept)),
        "temporaries": busy + unpacked(model, precision, blocks),
    }


def forward_activations(
    model: Model, precision: Precision, rank: int, blocks: int, tokens: int
) -> dict[str, float]:
    """A forward pass without gradients over `tokens` positions, padding included.

    Per-layer inputs of all blocks are made first, in float32, and stay for the whole pass.
    """
    extra = sum(block.extra for block in model.blocks)
    busy = max(running(block, model, precision, rank) for block in model.blocks[:blocks])
    widest = max(precision.stream * extra + busy, (precision.stream + FLOAT32_NORM) * extra)
    return {"temporaries": tokens * widest + unpacked(model, precision, blocks)}


def tiled_head(model: Model, precision: Precision, positions: int) -> float:
    """The tiled vocabulary head at `positions` that have a target: tiles of logits in the weights'
    type and, of two tiles at a time, in float32 (and as much for the slopes of a cap), and rows of
    hidden states."""
    tile, width = min(TILE, model.vocabulary), precision.weight
    return positions * (tile * (width + 8 + 8 * model.softcap) + model.d_model * (width + 4))


def logits(model: Model, precision: Precision, rows: int, *, chances: bool) -> float:
    """Whole rows of logits; with `chances`, also in float32 and after a softmax."""
    return rows * model.vocabulary * (precision.stream + (8 if chances else 0))


def cache(model: Model, precision: Precision, rows: int, tokens: int) -> float:
    """Keys and values of `tokens` positions a row; blocks that share others' have none."""
    return 2.0 * precision.stream * rows * tokens * sum(block.keys for block in model.blocks)
