"""What is trained and stored of a half: adapters over shared weights, or all weights of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn

from nlakit.config.sections import LoraConfig
from nlakit.core.contract import Contract, read_contract
from nlakit.errors import ContractError, ModelError
from nlakit.models.lora import (
    ADAPTER_FILE,
    add_lora,
    check_tensors,
    load_adapter,
    read_lora_config,
    read_tensors,
    save_adapter,
)
from nlakit.run.folder import file_sha256
from nlakit.run.progress import say

WEIGHTS_FILE = "weights.safetensors"


def trainable(module: nn.Module, lora: LoraConfig | None, seed: int) -> Any:
    """A tree over shared weights made trainable: with adapters, or (`lora` None) as a copy of all
    its parameters, in which tied ones stay tied.

    Raises ModelError if nothing can be adapted, or if quantised weights were to be trained.
    """
    if lora is not None:
        return add_lora(module, lora, seed)
    if not all(p.is_floating_point() for p in module.parameters()):
        raise ModelError(
            "quantised weights cannot be trained themselves",
            found="lora: null over a quantised subject",
            do="set subject.quantisation: null, or give lora: {r: ..., alpha: ...}",
        )
    return copy.deepcopy(module).requires_grad_(True)


def own_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and stored buffers by name, tied ones once, under their first name."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor.detach()))
    return dict(found.values())


def fill(module: nn.Module, found: Mapping[str, torch.Tensor], where: str) -> None:
    """Copy tensors into a module; ContractError if one is missing, unexpected or of another
    shape."""
    expected = own_state(module)
    check_tensors(found, expected, where)
    with torch.no_grad():
        for name, tensor in found.items():
            expected[name].copy_(tensor)


def save_trainable(module: Any, folder: Path) -> None:
    """Write the adapter as a PEFT folder, or all weights to weights.safetensors."""
    if isinstance(module, PeftModel):
        save_adapter(module, folder)
        return
    state = {name: tensor.cpu().contiguous() for name, tensor in own_state(module).items()}
    save_file(state, folder / WEIGHTS_FILE)


def load_trainable(module: Any, folder: Path) -> None:
    """Load what `save_trainable` wrote; ContractError if it does not fit."""
    if isinstance(module, PeftModel):
        load_adapter(module, folder)
    else:
        fill(module, read_tensors(folder / WEIGHTS_FILE), str(folder))


def saved_lora(folder: Path) -> LoraConfig | None:
    """Rank and alpha of a stored half; None if all its weights are stored."""
    return None if (folder / WEIGHTS_FILE).exists() else read_lora_config(folder)


def stored_weights(folder: Path) -> Path:
    """The file of what is trained in a stored half."""
    whole = folder / WEIGHTS_FILE
    return whole if whole.exists() else folder / ADAPTER_FILE


def adopt(module: Any, contract: Contract, folder: Path) -> None:
    """Go on from a half already trained: take its weights and record it as the parent.

    Raises ContractError if it was made for other activations, stores the other kind of weights,
    or has another rank.
    """
    other = read_contract(folder)
    if found := contract.difference(other):
        name, mine, theirs = found
        raise ContractError(
            f"{folder} was trained for another {name}",
            found=f"{theirs} instead of {mine}",
            do="go on from a half of this subject and layer",
        )
    adapters = isinstance(module, PeftModel)
    file = ADAPTER_FILE if adapters else WEIGHTS_FILE
    if not (folder / file).exists():
        kinds = ("all weights", "adapters")
        raise ContractError(
            f"{folder} does not store {kinds[adapters]}",
            found=f"no {file}; it stores {kinds[not adapters]}",
            do="set lora: null to train all weights"
            if adapters
            else "give lora: {r: ..., alpha: ...} of the adapters",
        )
    load_trainable(module, folder)
    for name, mine, theirs in _differences(contract, other):
        say(f"{folder} was trained with another {name}: {theirs!r}, and goes on with {mine!r}")
    contract.nlakit.parent = f"{folder.name}:{file_sha256(folder / file)}"


def _differences(mine: Contract, theirs: Contract) -> Iterator[tuple[str, Any, Any]]:
    """How two contracts feed a half differently: what differs, with both values."""
    role = mine.nlakit.role
    prompts = [getattr(one.prompt_templates, role) for one in (mine, theirs)]
    markers = [one.tokens.injection_char for one in (mine, theirs)]
    centrings = [one.nlakit.centring for one in (mine, theirs)]
    scales = [round(one.scaling.scale or 0, 2) for one in (mine, theirs)]
    found = {"prompt": prompts}
    if role == "av":
        ways = [one.injection.described() for one in (mine, theirs)]
        found |= {"marker": markers, "centring": centrings, "injection scale": scales}
        found |= {"injection": ways}
    else:
        found |= {"BOS of the prompt": [one.nlakit.ar_bos for one in (mine, theirs)]}
    for name, (own, other) in found.items():
        if own != other:
            yield name, own, other


@contextmanager
def merged_for_now(module: Any) -> Iterator[None]:
    """Inside the body a half runs on dense weights of its own with its adapters added, in float32
    and rounded to the base's dtype: a third fewer seconds a token. The shared weights are not
    touched; a half without adapters, or over 4-bit weights, runs as it is.
    """
    layers: list[Any] = [layer for layer in module.modules() if isinstance(layer, LoraLayer)]
    if any(not layer.get_base_layer().weight.is_floating_point() for layer in layers):
        layers = []
    shared = [layer.get_base_layer().weight for layer in layers]
    try:
        with torch.no_grad():
            for layer, weight in zip(layers, shared, strict=True):
                summed = (weight.float() + adapter_change(layer)).to(weight.dtype)
                layer.get_base_layer().weight = nn.Parameter(summed, requires_grad=False)
                layer._disable_adapters = True
        yield
    finally:
        for layer, weight in zip(layers, shared, strict=True):
            layer.get_base_layer().weight = weight
            layer._disable_adapters = False


def adapter_change(layer: Any) -> torch.Tensor:
    """What an adapter adds to its layer's weight, in float32."""
    first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    change = (second.float() @ first.float()) * layer.scaling["default"]
    return change.T if layer.fan_in_fan_out else change


@torch.no_grad()
def merged(module: Any) -> Any:
    """A half's model or decoder as a plain one of its own weights: 4-bit weights become dense in
    what they compute in, and adapters are added in float32 and rounded to the base's dtype."""
    made = copy.deepcopy(module)
    if not isinstance(made, PeftModel):
        return made
    _make_dense(made)
    for layer in made.modules():
        if isinstance(layer, LoraLayer):
            base: Any = layer.get_base_layer()
            summed = base.weight.float() + adapter_change(layer).to(base.weight.device)
            base.weight = nn.Parameter(summed.to(base.weight.dtype), requires_grad=False)
    return made.unload()


def _make_dense(module: nn.Module) -> None:
    """Replace 4-bit projections anywhere inside a module by plain ones."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            state = getattr(getattr(child, "weight", None), "quant_state", None)
            if state is None or isinstance(child, LoraLayer):  # that one shows its base's weight
                continue
            from bitsandbytes.functional import dequantize_4bit

            weight = dequantize_4bit(child.weight.data, state)  # type: ignore[arg-type]
            plain = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            plain.weight = nn.Parameter(weight.to(state.dtype), requires_grad=False)
            plain.bias = child.bias  # type: ignore[assignment]
            setattr(parent, name, plain)
