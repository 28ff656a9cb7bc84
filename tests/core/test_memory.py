"""Counted bytes against sums worked by hand, and against what torch and bitsandbytes allocate."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    Gemma4TextConfig,
    LlamaConfig,
    Qwen3Config,
)

from nlakit.config.sections import LoraConfig
from nlakit.core.memory import (
    Block,
    Model,
    Precision,
    cache,
    forward_activations,
    kept_of_block,
    logits,
    nf4_bytes,
    optimizer_bytes,
    tiled_head,
    training_activations,
    training_bytes,
    weight_bytes,
)
from nlakit.models.head import tiled_nll
from nlakit.models.lora import add_lora
from nlakit.models.subject import sliced_decoder
from nlakit.studies.planning.stage_memory import model_of
from nlakit.train.ar import enable_checkpointing
from nlakit.train.optimizer import MasterAdamW

# Width 4; queries 8 and keys 2 wide; a gated MLP 6 wide; two norms.
BLOCK = Block(
    linears=(32, 8, 8, 32, 24, 24, 24),
    adapted=((4, 8), (4, 2), (4, 2), (8, 4), (4, 6), (4, 6), (6, 4)),
    other=8,
    queries=8,
    keys=2,
    up=12,
    gated=True,
    normed=8,
)
MODEL = Model(d_model=4, vocabulary=10, tied=True, blocks=(BLOCK, BLOCK), tables=30, other=4)
BF16 = Precision()


def test_weights_by_hand() -> None:
    found = weight_bytes(MODEL, BF16)
    assert found == {
        "blocks": 2 * 2 * 152,
        "embeddings": 2 * 40,
        "head": 0,
        "per-layer embeddings": 60,
        "other weights": 2 * (4 + 16),
    }
    away = weight_bytes(MODEL, Precision(tables_here=False))
    assert away["per-layer embeddings"] == 0


def test_adapters_and_optimizer_by_hand() -> None:
    # Rank 2: (12 + 6 + 6 + 12 + 10 + 10 + 10) · 2 = 132 weights a block; a head of 16.
    found = training_bytes(MODEL, BF16, 2, 2, "adamw", ar=True)
    assert found == {
        "trained weights": 2 * 264 + 64,
        "gradients": 2 * 264 + 64,
        "float32 copies": 4 * 264,  # the head is float32 already
        "optimizer states": 8 * 280,
    }
    assert training_bytes(MODEL, BF16, 2, 1, "adamw", ar=False)["trained weights"] == 2 * 132


def test_rank_zero_trains_a_copy_of_the_half() -> None:
    found = training_bytes(MODEL, BF16, 0, 1, "adamw", ar=False)
    assert found["trained weights"] == 2 * (152 + 8 + 40 + 30 + 4)


def test_states_of_8_bits_by_hand() -> None:
    # 4096 elements: 2 bytes each and two scales of 4 bytes every 256; fewer stay in float32.
    assert optimizer_bytes([4096], "adamw8bit") == 2 * 4096 + 8 * 16
    assert optimizer_bytes([4095], "adamw8bit") == 8 * 4095


def test_a_block_keeps_by_hand() -> None:
    # Norm inputs 4·8; twice d, four times the queries, twice the MLP's products in bfloat16;
    # seven adapters of rank 2.
    assert kept_of_block(BLOCK, MODEL, BF16, 2) == 32 + 2 * (8 + 32 + 24) + 2 * 2 * 7


def test_cache_and_logits_by_hand() -> None:
    assert cache(MODEL, BF16, rows=3, tokens=5) == 2 * 2 * 3 * 5 * (2 + 2)
    assert logits(MODEL, BF16, 3, chances=False) == 3 * 10 * 2
    assert logits(MODEL, BF16, 3, chances=True) == 3 * 10 * 10


def test_float16_has_wide_adapters_and_under_nf4_a_wide_stream() -> None:
    assert Precision.of("float16") == Precision(2, 2, 4)
    assert Precision.of("float16", "nf4") == Precision(2, 4, 4, nf4=True)
    assert Precision.of("float32") == Precision(4, 4, 4)


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (96, 320), (256, 1024)])
def test_nf4_is_what_bitsandbytes_allocates(rows: int, columns: int) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    weight = torch.randn(rows, columns)
    packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    tensors = [packed, state.absmax, state.code, state.offset]
    tensors += [state.state2.absmax, state.state2.code]
    assert nf4_bytes(rows * columns) == sum(t.numel() * t.element_size() for t in tensors)


WIDE: Any = {"global_head_dim": 64}  # of full attention; no field of the class, yet read
FAMILIES: dict[str, Any] = {
    "gemma3": Gemma3TextConfig(
        vocab_size=900,
        hidden_size=160,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
    ),
    "llama": LlamaConfig(
        vocab_size=900,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=2,
    ),
    "qwen3": Qwen3Config(
        vocab_size=900,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
    ),
    "gemma4": Gemma4TextConfig(
        **WIDE,
        vocab_size=900,
        vocab_size_per_layer_input=900,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=32,
        num_kv_shared_layers=2,
        use_double_wide_mlp=True,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
        hidden_size_per_layer_input=16,
    ),
}


class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors made inside the body that live at once: what an allocator hands out."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.peak, self.living = 0, 0, set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tree_leaves((args, kwargs))
        old = {t.untyped_storage()._cdata for t in given if isinstance(t, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), old)
        return made

    def _count(self, storage: Any, old: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in old or key in self.living:
            return
        self.living.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.living.discard(key)
        self.now -= size


def toy(family: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family], dtype=dtype)
    return model.eval().requires_grad_(False)


def batch() -> dict[str, Any]:
    ids = torch.randint(5, 900, (4, 96), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 90:] = 0
    return {"input_ids": ids, "attention_mask": mask, "use_cache": False}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_weights_and_adapters_are_those_of_real_models(family: str, dtype: str) -> None:
    model, precision = toy(family, getattr(torch, dtype)), Precision.of(dtype)
    numbers, size = model_of(model), precision.weight
    real = sum(p.numel() for p in model.parameters()) * size
    assert sum(weight_bytes(numbers, precision).values()) == real
    depth = len(numbers.blocks) - 1
    adapted = add_lora(sliced_decoder(model, depth), LoraConfig(r=4, alpha=8), 0)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    found = training_bytes(numbers, precision, 4, depth, "adamw", ar=False)
    assert found["trained weights"] == sum(p.numel() * p.element_size() for p in trained)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_within_a_tenth_of_the_living_tensors(
    family: str, checkpointing: bool
) -> None:
    model = toy(family, torch.bfloat16)
    numbers = model_of(model)
    depth = len(numbers.blocks)
    decoder = add_lora(sliced_decoder(model, depth), LoraConfig(r=8, alpha=8), 0).train()
    if checkpointing:
        enable_checkpointing(decoder)
    decoder(**batch())[0].sum().backward()  # what is made once is made now
    decoder.zero_grad()
    with LiveBytes() as live:
        decoder(**batch())[0][:, -1].float().square().mean().backward()
    found = training_activations(
        numbers, BF16, 8, depth, 4 * 96, checkpointing=checkpointing
    )  # fmt: skip
    assert sum(found.values()) == pytest.approx(live.peak, rel=0.12)
    decoder.eval()
    with torch.no_grad(), LiveBytes() as live:
        decoder(**batch())
    found = forward_activations(numbers, BF16, 8, depth, 4 * 96)
    assert sum(found.values()) == pytest.approx(live.peak, rel=0.12)


def test_the_tiled_head_is_within_a_tenth_of_the_living_tensors() -> None:
    hidden = torch.randn(64, 32).bfloat16().requires_grad_()
    weight = torch.randn(9000, 32).bfloat16()
    with LiveBytes() as live:
        tiled_nll(hidden, weight, torch.arange(64)).sum()
    model = Model(d_model=32, vocabulary=9000, tied=True, blocks=())
    assert tiled_head(model, BF16, 64) == pytest.approx(live.peak, rel=0.1)


@pytest.mark.parametrize(("bits", "name"), [(32, "adamw"), (8, "adamw8bit")])
def test_the_optimizer_holds_what_is_counted(bits: int, name: Any) -> None:
    if bits == 8:
        pytest.importorskip("bitsandbytes")
    model = toy("llama", torch.bfloat16)
    adapted = add_lora(sliced_decoder(model, 3), LoraConfig(r=32, alpha=8), 0).train()
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = MasterAdamW(trained, 0.0, bits)
    adapted(**batch())[0].float().square().mean().backward()
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in trained if p.grad is not None)
    optimizer.step(1e-3, 1.0)
    counted = training_bytes(model_of(model), BF16, 32, 3, name, ar=False)
    assert counted["gradients"] == gradients
    assert counted["float32 copies"] == sum(m.numel() * 4 for m in optimizer.masters)
    states = [
        value
        for state in optimizer.inner.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and key != "step" and "qmap" not in key
    ]
    held = sum(t.numel() * t.element_size() for t in states)
    assert counted["optimizer states"] == held
