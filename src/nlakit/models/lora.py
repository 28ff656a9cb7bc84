"""Low-rank adapters through PEFT: which modules, how they are stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from nlakit.config import LoraConfig
from nlakit.core.contract import Contract, read_contract
from nlakit.errors import ContractError, ModelError
from nlakit.rundir import file_sha256

ADAPTER_FILE = "adapter_model.safetensors"
PROJECTIONS = (
    "q_proj|k_proj|v_proj|o_proj|qkv_proj|gate_proj|up_proj|down_proj|gate_up_proj|"
    "c_attn|c_proj|c_fc|query_key_value|dense|dense_h_to_4h|dense_4h_to_h|fc1|fc2|out_proj"
)
TARGETS = rf"(.*\.)?(layers|h)\.\d+\.(self_attn|attn|attention|mlp)\.({PROJECTIONS})"


def add_lora(module: nn.Module, config: LoraConfig, seed: int) -> Any:
    """Wrap the attention and MLP projections of the blocks in `module` with adapters.

    The adapters keep the base's precision: float32 adapters on a bfloat16 base would cast every
    activation (12 times slower on a CPU). On a float16 base they are float32, since their
    gradients leave the range of float16. Raises ModelError if nothing matches.
    """
    if not any(re.fullmatch(TARGETS, name) for name, _ in module.named_modules()):
        raise ModelError(
            "no projection to adapt was found in the model",
            found=type(module).__name__,
            do="nlakit adapts attention and MLP projections of decoder blocks",
        )
    settings = PeftLoraConfig(
        r=config.r, lora_alpha=int(config.alpha), target_modules=TARGETS, lora_dropout=0.0
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = get_peft_model(module, settings, autocast_adapter_dtype=False)  # type: ignore[arg-type]
    base = next(p.dtype for p in module.parameters() if p.is_floating_point())
    for parameter in made.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.to(torch.float32 if base == torch.float16 else base)
    return made


def adapter_state(module: Any) -> dict[str, torch.Tensor]:
    """Adapter tensors by PEFT's names, contiguous and on the CPU."""
    state = get_peft_model_state_dict(module)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def save_adapter(module: Any, folder: Path) -> None:
    """Write the adapter as a PEFT folder: adapter_config.json and adapter_model.safetensors."""
    settings = module.peft_config["default"]
    settings.base_model_name_or_path = None
    settings.inference_mode = True
    settings.save_pretrained(str(folder))
    save_file(adapter_state(module), folder / ADAPTER_FILE)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Tensors of a safetensors file; ContractError if it is missing or damaged."""
    try:
        return load_file(file)
    except FileNotFoundError as error:
        raise ContractError(
            f"missing file {file.name}", found=str(file.parent), do="copy the whole folder"
        ) from error
    except SafetensorError as error:
        raise ContractError(f"{file} is damaged", found=str(error), do="copy it again") from error


def load_adapter(module: Any, folder: Path) -> None:
    """Load adapter weights into a module made by `add_lora`.

    Raises ContractError if a tensor is missing, unexpected or of another shape.
    """
    found = read_tensors(folder / ADAPTER_FILE)
    expected = adapter_state(module)
    wrong = sorted(
        name
        for name in {*found, *expected}
        if name not in found or name not in expected or found[name].shape != expected[name].shape
    )
    if wrong:
        raise ContractError(
            f"the adapter in {folder} does not fit the subject",
            found=f"{len(wrong)} tensors differ, first {wrong[0]}",
            do="use the subject and depth named in nla_meta.yaml",
        )
    set_peft_model_state_dict(module, found)


def adopt_adapter(module: Any, contract: Contract, folder: Path) -> None:
    """Go on from a half trained before: take its adapter and record it as the parent.

    Raises ContractError if it was made for other activations or has another rank.
    """
    other = read_contract(folder)
    for name, mine, theirs in (
        ("layer", contract.layer, other.layer),
        ("width", contract.d_model, other.d_model),
        ("subject", contract.extraction.base_model, other.extraction.base_model),
    ):
        if mine != theirs:
            raise ContractError(
                f"{folder} was trained for another {name}", found=f"{theirs} instead of {mine}"
            )
    load_adapter(module, folder)
    contract.nlakit.parent = f"{folder.name}:{file_sha256(folder / ADAPTER_FILE)}"


def read_lora_config(folder: Path) -> LoraConfig:
    """Rank and alpha of a saved adapter."""
    import json

    try:
        data = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return LoraConfig(r=data["r"], alpha=data["lora_alpha"])
    except (OSError, ValueError, KeyError) as error:
        raise ContractError(
            f"no readable adapter_config.json in {folder}", found=str(error)
        ) from error
