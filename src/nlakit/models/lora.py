"""Low-rank adapters through PEFT: which modules, how they are stored."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from nlakit.config.sections import LoraConfig
from nlakit.errors import ContractError, ModelError
from nlakit.models.families import TARGETS

ADAPTER_FILE = "adapter_model.safetensors"
# The projections of linear attention (Qwen3-Next, Qwen3.5): others adapt them too.
LINEAR_ATTENTION = "linear_attn"
WIDER = rf"{TARGETS}|(.*\.)?layers\.\d+\.{LINEAR_ATTENTION}\.(in_proj_\w+|out_proj)"


class Adapters(LoraConfig):
    """Rank and alpha of stored adapters, and the modules that they may lie on."""

    targets: str = TARGETS

    @classmethod
    def over(cls, lora: LoraConfig, names: Iterable[str]) -> Adapters:
        """The same with the modules that tensors of these names need."""
        wide = any(LINEAR_ATTENTION in name for name in names)
        return cls(r=lora.r, alpha=lora.alpha, targets=WIDER if wide else TARGETS)


def add_lora(module: nn.Module, config: LoraConfig, seed: int) -> Any:
    """Wrap the attention and MLP projections of the blocks in `module` with adapters, and those of
    linear attention where stored `Adapters` lie on them.

    The adapters keep the base's precision: float32 adapters on a bfloat16 base would cast every
    activation (12 times slower on a CPU). On a float16 base they are float32, since their
    gradients leave the range of float16. Raises ModelError if nothing matches.
    """
    targets = config.targets if isinstance(config, Adapters) else TARGETS
    if not any(re.fullmatch(targets, name) for name, _ in module.named_modules()):
        raise ModelError(
            "no projection to adapt was found in the model",
            found=type(module).__name__,
            do="nlakit adapts attention and MLP projections of decoder blocks",
        )
    alpha: Any = int(config.alpha) if config.alpha.is_integer() else config.alpha
    settings = PeftLoraConfig(
        r=config.r, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT asks transformers by a name that has a successor.
        warnings.simplefilter("ignore", FutureWarning)
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
    with _told(file):
        return load_file(file)


def tensor_names(file: Path) -> list[str]:
    """Names of the tensors of a safetensors file; errors as `read_tensors`."""
    with _told(file), safe_open(file, framework="pt") as opened:
        return list(opened.keys())


def tensor_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file, by name; errors as `read_tensors`."""
    with _told(file), safe_open(file, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def read_rows(file: Path, name: str, rows: Sequence[int]) -> NDArray[np.float32]:
    """Rows `(n, d)` of a matrix in a safetensors file, of which no more is read; errors as
    `read_tensors`."""
    with _told(file), safe_open(file, framework="pt") as opened:
        matrix = opened.get_slice(name)
        return np.concatenate([matrix[row : row + 1].float().numpy() for row in rows])


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ContractError(
            f"missing file {file.name}", found=str(file.parent), do="copy the whole folder"
        ) from error
    except SafetensorError as error:
        raise ContractError(f"{file} is damaged", found=str(error), do="copy it again") from error


def check_tensors(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], where: str
) -> None:
    """Raise ContractError, with the difference, unless names and shapes are the expected ones."""
    told = []
    for what, names in (
        ("missing", sorted(expected.keys() - found.keys())),
        ("unexpected", sorted(found.keys() - expected.keys())),
    ):
        if names:
            told.append(f"{len(names)} {what}, first {names[0]}")
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]
    if shapes:
        told.append(f"{len(shapes)} of another shape, first {shapes[0]}")
    if told:
        raise ContractError(
            f"the weights in {where} do not fit the subject",
            found="; ".join(told),
            do="use the subject and depth named in nla_meta.yaml, and complete files",
        )


def load_adapter(module: Any, folder: Path) -> None:
    """Load adapter weights into a module made by `add_lora`.

    Raises ContractError if a tensor is missing, unexpected or of another shape.
    """
    found = read_tensors(folder / ADAPTER_FILE)
    check_tensors(found, adapter_state(module), str(folder))
    set_peft_model_state_dict(module, found)


def read_lora_config(folder: Path) -> Adapters:
    """Rank, alpha and modules of a saved adapter."""
    import json

    try:
        data = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        lora = LoraConfig(r=data["r"], alpha=data["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ContractError(
            f"no readable adapter_config.json in {folder}",
            found=str(error),
            do="copy the whole folder as PEFT wrote it",
        ) from error
    return Adapters.over(lora, tensor_names(folder / ADAPTER_FILE))
