"""Load the subject, find its parts, share its weights, capture its activations."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nlakit.config import SubjectConfig
from nlakit.errors import ModelError
from nlakit.models.embedded import NAMES, embedded_model
from nlakit.models.quantise import loading_options, prepare

LAYER_NAMES = ("layers", "h", "blocks")
NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_norm")


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's GPU, then the CPU."""
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ModelError("unknown device", found=name, do="cpu, cuda, cuda:0 or mps") from error
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


def decoder_of(model: nn.Module) -> nn.Module:
    """The text decoder (embeddings, blocks, final norm) inside a causal LM."""
    current: Any = model
    for _ in range(4):
        if any(isinstance(getattr(current, name, None), nn.ModuleList) for name in LAYER_NAMES):
            return current
        for name in ("language_model", "model", "transformer", "gpt_neox", "base_model"):
            child = getattr(current, name, None)
            if isinstance(child, nn.Module) and child is not current:
                current = child
                break
    raise ModelError(
        "no list of blocks found in the model",
        found=type(model).__name__,
        do="nlakit reads decoder-only language models",
    )


def _attribute(module: nn.Module, names: Sequence[str]) -> str:
    for name in names:
        if isinstance(getattr(module, name, None), nn.Module):
            return name
    raise ModelError("the decoder lacks a part", found=type(module).__name__, do=f"one of {names}")


def blocks_of(decoder: nn.Module) -> nn.ModuleList:
    return getattr(decoder, _attribute(decoder, LAYER_NAMES))


def shared_copy(module: nn.Module) -> Any:
    """Copy of the module tree over the same parameters and buffers.

    An AR, an AV and the subject are three trees over one set of weights: each carries its own
    adapters and hooks, and the weights lie in memory once.
    """
    memo: dict[int, Any] = {id(p): p for p in module.parameters()}
    memo |= {id(b): b for b in module.buffers()}
    # The scales of 4-bit weights are neither.
    scales = (getattr(m, "quant_state", None) for m in module.modules())
    memo |= {id(state): state for state in scales if state is not None}
    return copy.deepcopy(module, memo)


def sliced_decoder(model: nn.Module, blocks: int) -> Any:
    """The decoder cut to its first `blocks` blocks without final norm, over shared weights.

    Its `last_hidden_state` is `hidden_states[blocks]` of the full model, bit for bit. It must not
    be saved: a reload would fill the missing blocks with random weights.
    """
    decoder = shared_copy(decoder_of(model))
    layers = _attribute(decoder, LAYER_NAMES)
    if not 1 <= blocks <= len(getattr(decoder, layers)):
        raise ModelError(
            "the model has no such number of blocks",
            found=f"{blocks} of {len(getattr(decoder, layers))}",
            do="choose a smaller subject.layer",
        )
    setattr(decoder, layers, getattr(decoder, layers)[:blocks])
    setattr(decoder, _attribute(decoder, NORM_NAMES), nn.Identity())
    return decoder


@dataclass
class Subject:
    """A loaded causal LM with its tokenizer and the layer that is read."""

    model: Any
    tokenizer: Any
    config: SubjectConfig
    device: torch.device
    source: str

    @property
    def d_model(self) -> int:
        return int(self.model.get_input_embeddings().embedding_dim)

    @property
    def blocks(self) -> int:
        return len(blocks_of(decoder_of(self.model)))

    def embedding_norm(self, sample: int = 4096) -> float:
        """Mean norm of what the embedding layer puts out, over evenly spaced token ids."""
        embed = self.model.get_input_embeddings()
        step = max(embed.num_embeddings // sample, 1)
        ids = torch.arange(0, embed.num_embeddings, step, device=self.device)
        with torch.no_grad():
            return float(embed(ids[None]).float().norm(dim=-1).mean())


def load_subject(config: SubjectConfig) -> Subject:
    """Load the subject for inference.

    Raises ModelError if it cannot be found, lacks weights, or has no block K.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(embedded_model()) if config.model in NAMES else config.model
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.revision:
        options["revision"] = config.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, config.dtype),
            output_loading_info=True,
            **loading_options(config),
            **options,
        )
        model, info = loaded
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"cannot load the subject {config.model}",
            found=str(error).splitlines()[0] if str(error) else type(error).__name__,
            do="give a local folder, a hub id, or gemma-3-270m (embedded)",
        ) from error
    _check_weights(config.model, info)
    device = pick_device(config.device)
    prepare(model, config)
    model.to(device).eval().requires_grad_(False)
    subject = Subject(model, tokenizer, config, device, source)
    check_layer(subject, config.layer)
    return subject


def check_layer(subject: Subject, layer: int) -> None:
    """Raise ModelError unless the subject has a block `layer`."""
    if layer >= subject.blocks:
        raise ModelError(
            f"the subject has no block {layer}",
            found=f"blocks 0 to {subject.blocks - 1}",
            do="set subject.layer; two thirds of the depth is a good start",
        )


def _check_weights(name: str, info: Any) -> None:
    missing = sorted(info.get("missing_keys") or [])
    mismatched = sorted(str(key) for key in info.get("mismatched_keys") or [])
    if missing or mismatched:
        raise ModelError(
            f"{name} lacks weights of its own architecture",
            found=f"{len(missing)} missing, {len(mismatched)} of another shape, "
            f"first {(missing + mismatched)[0]}",
            do="such weights would be random; name a complete checkpoint",
        )


@contextmanager
def capture(decoder: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Collect the outputs `(b, t, d)` of blocks `layers` during forwards inside the body."""
    found: dict[int, torch.Tensor] = {}
    handles = []
    for layer in layers:

        def hook(module: nn.Module, args: Any, output: Any, layer: int = layer) -> None:
            found[layer] = output[0] if isinstance(output, tuple) else output

        handles.append(blocks_of(decoder)[layer].register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def subject_sha256(subject: Subject) -> str | None:
    """Hash of the subject's weights file, where it is one local safetensors file."""
    from nlakit.rundir import file_sha256

    file = Path(subject.source) / "model.safetensors"
    return file_sha256(file) if file.exists() else None
