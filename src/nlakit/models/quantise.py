"""4-bit weights (NF4, Dettmers et al. 2023), and tables that stay in main memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nlakit.config.sections import SubjectConfig
from nlakit.errors import ConfigError, ModelError
from nlakit.run.progress import say


def check_installed(purpose: str) -> None:
    """Raise ConfigError if bitsandbytes is missing."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{purpose} needs bitsandbytes, which is not installed",
            found=error,
            do='pip install "nlakit[nf4]"',
        ) from error


def loading_options(config: SubjectConfig) -> dict[str, Any]:
    """What `from_pretrained` is told: NF4 with double quantisation, made on the CPU, so that the
    full-precision weights never need room on the card."""
    if config.quantisation is None:
        return {}
    check_installed("subject.quantisation: nf4")
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, config.dtype),
    )
    return {"quantization_config": settings, "device_map": {"": "cpu"}}


# How a 4-bit checkpoint may differ from what is asked for.
ASKED = ("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant",
         "bnb_4bit_compute_dtype")  # fmt: skip


def check_quantisation(model: Any, config: SubjectConfig) -> None:
    """Raise ModelError unless the loaded weights are quantised as the settings say: a checkpoint
    that is stored quantised keeps its own way, whatever is asked for."""
    stored = getattr(model.config, "quantization_config", None)
    if stored is None:
        return
    found = stored if isinstance(stored, dict) else stored.to_dict()
    asked = loading_options(config).get("quantization_config")
    wanted = asked.to_dict() if asked else {}
    if not asked or any(str(found.get(name)) != str(wanted[name]) for name in ASKED):
        method = getattr(found.get("quant_method"), "value", found.get("quant_method"))
        kind = found.get("bnb_4bit_quant_type") if found.get("load_in_4bit") else ""
        raise ModelError(
            f"{config.model} is stored quantised, and not as the settings say",
            found=f"{method} {kind}".strip(),
            do="name the checkpoint in full precision and set subject.quantisation: nf4",
        )


def prepare(model: Any, config: SubjectConfig) -> None:
    """Make a freshly loaded model fit to be shared by several trees, trained and moved."""
    if config.quantisation:
        keep_layout(model)
        fused = [name for name, p in model.named_parameters() if p.ndim == 3]
        if fused and config.dtype == "float16":
            raise ConfigError(
                "experts stay in float16, and cannot take the float32 stream of a 4-bit model",
                found=f"{len(fused)} fused weights, first {fused[0]}",
                do="use subject.dtype: bfloat16",
            )
        if fused:
            say(f"{len(fused)} fused expert weights stay in {config.dtype}: no 4-bit form of them")
        if config.dtype == "float16":
            widen_stream(model)
    if config.ple_on_cpu:
        stay_on_cpu(model)


def keep_layout(model: nn.Module) -> None:
    """Keep the weights as they lie. bitsandbytes repacks them in place on the first inference on
    a CPU with AVX-512 bf16, and gradients through repacked weights are wrong without a word."""
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def widen_stream(model: Any) -> None:
    """Make the residual stream float32: it leaves the range of float16 in many models (Gemma's
    reaches 98347), while inside a quantised projection, which casts, float16 is enough."""
    model.get_input_embeddings().register_forward_hook(_widen)
    model.get_output_embeddings().register_forward_pre_hook(_narrow)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):  # takes one precision alone
            module.float()


def _widen(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def _narrow(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].to(module.weight.dtype), *args[1:])


class _OnCPU(nn.Module):
    """An embedding whose table never moves: ids go to it, and rows come back."""

    def _apply(self, fn: Any, recurse: bool = True) -> _OnCPU:
        return self

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return super().forward(input_ids.cpu()).to(input_ids.device)  # type: ignore[misc]


def stay_on_cpu(model: nn.Module) -> None:
    """Keep the per-layer embeddings in main memory; a row is gathered there for each token
    (18 KB in Gemma 4 E2B). Raises ConfigError for a model without them."""
    found = [m for name, m in model.named_modules() if name.endswith("embed_tokens_per_layer")]
    if not found:
        raise ConfigError(
            "subject.ple_on_cpu: the model has no per-layer embeddings",
            found=type(model).__name__,
            do="leave it off; it is for Gemma 3n and Gemma 4 E2B and E4B",
        )
    for table in found:
        kind = type(table)
        table.__class__ = type(f"{kind.__name__}OnCPU", (_OnCPU, kind), {})
