"""PEFT folders: adapters over the plain base model, the AR's head in `linear_head.pt`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from pickle import UnpicklingError
from typing import Any

import torch
from numpy.typing import NDArray
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import save_file

from nlakit.config.sections import LoraConfig
from nlakit.core.contract import Contract
from nlakit.errors import ContractError, first_line
from nlakit.models.families import TOWERS
from nlakit.models.foreign.folders import read_json
from nlakit.models.foreign.sidecar import completed, write_sidecar
from nlakit.models.foreign.turn import Stated, check_ids, own_tokenizer, settle_prompt
from nlakit.models.lora import (
    ADAPTER_FILE,
    Adapters,
    adapter_state,
    check_tensors,
    read_tensors,
)
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, decoder_of, reading_options
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.progress import say

HEAD_FILE = "linear_head.pt"
TAIL = re.compile(r"(?:^|\.)((?:layers|h|blocks)\.(\d+)\..*)$")
# Other parts of a multimodal model, whose blocks are named as those of the language model.
TOWER = re.compile(rf"(?:^|\.)(?:{TOWERS.pattern}|mtp\.)")
# Settings with which adapters compute W + scale * B A, with one rank and one scale. Each version of
# PEFT brings new ones that change it, so any other that is set is refused.
PLAIN = re.compile(
    r"task_type|peft_(type|version)|auto_mapping|base_model_name_or_path|revision|inference_mode|"
    r"r|lora_(alpha|dropout)|use_rslora|(target|exclude)_modules|layers_(to_transform|pattern)|"
    r"bias|fan_in_fan_out|init_lora_weights|(loftq|eva|corda|lora_ga)_config|megatron_core|"
    r"qalora_group_size|ensure_weight_tying"
)
# Starts after which W is that of the plain base.
STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


def settings(folder: Path) -> LoraConfig:
    """Rank and alpha of a folder, such that alpha / r is the scale of its adapters: that of
    rank-stabilised ones is alpha / sqrt(r). ContractError for adapters of another kind."""
    data = read_json(folder / "adapter_config.json")
    odd = [name for name, value in data.items() if value and not PLAIN.fullmatch(name)]
    if data.get("init_lora_weights") not in STARTS:
        odd.append(f"init_lora_weights {data['init_lora_weights']}")
    if data.get("peft_type") != "LORA" or data.get("bias", "none") != "none" or odd:
        raise ContractError(
            f"the adapter in {folder} is no plain LoRA",
            found=f"{data.get('peft_type')}, bias {data.get('bias', 'none')}, {odd or 'no more'}",
            do="merge it into the model and use that folder instead",
        )
    try:
        lora = LoraConfig.model_validate({"r": data.get("r"), "alpha": data.get("lora_alpha")})
    except ValueError as error:
        raise ContractError(
            f"{folder / 'adapter_config.json'} has no usable rank and alpha",
            found=f"r {data.get('r')}, lora_alpha {data.get('lora_alpha')}",
            do="copy adapter_config.json as PEFT wrote it",
        ) from error
    if data.get("use_rslora"):
        return lora.model_copy(update={"alpha": lora.alpha / math.sqrt(lora.r) * lora.r})
    return lora


def by_block(found: Mapping[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """Adapter tensors by what follows the path to the list of blocks. Adapters elsewhere whose B is
    zero change nothing, and are left out, which is said.

    Raises ContractError for others outside the blocks, and for two of one name.
    """
    made: dict[str, torch.Tensor] = {}
    outside: list[str] = []
    for name, tensor in found.items():
        plain = name.replace(".default.", ".")
        tail = TAIL.search(plain)
        if tail is None or TOWER.search(plain):
            outside.append(name)
        elif tail[1] in made:
            raise _elsewhere(name, folder)
        else:
            made[tail[1]] = tensor
    idle = _idle(found)
    for name in outside:
        if _module(name) not in idle:
            raise _elsewhere(name, folder)
    _say_left_out(outside, folder)
    if not made:
        raise ContractError(f"the adapter in {folder} is empty", do="copy the whole folder again")
    return made


def _elsewhere(name: str, folder: Path) -> ContractError:
    return ContractError(
        f"{folder} adapts more than the blocks of the language model",
        found=name,
        do="only adapters of attention and MLP projections of its blocks can be read",
    )


def _module(name: str) -> str:
    """The module that an adapter tensor belongs to."""
    return name.partition(".lora_")[0]


def _idle(found: Mapping[str, torch.Tensor]) -> set[str]:
    """Modules whose adapters change nothing, since their B is zero."""
    second = re.compile(r"\.lora_(?:embedding_)?B\b")
    return {_module(n) for n, t in found.items() if second.search(n) and not bool(t.any())}


def _say_left_out(names: Sequence[str], folder: Path) -> None:
    if modules := dict.fromkeys(map(_module, names)):
        first = next(iter(modules))
        say(f"{folder}: {len(modules)} adapters with B = 0, which change nothing, are left out, "
            f"first {first}")  # fmt: skip


def read(
    subject: Subject,
    contract: Contract,
    folder: Path,
    role: str,
    mean: NDArray[Any] | None,
    stated: Stated,
) -> Verbalizer | Reconstructor:
    """A half in a PEFT folder. An AR is as deep as its adapters reach. Where PEFT adapted the whole
    model and the AR stops early, `nlakit.ar_blocks` says how deep it is, and the adapters beyond,
    which it never runs, are left out. stated: what the user says of the prompt, where the files
    leave it open.

    Raises ContractError if names, shapes, sidecar or tokenizer do not fit, or the depth is unsaid.
    """
    lora = settings(folder)
    _tell_base(subject, folder)
    found = by_block(read_tensors(folder / ADAPTER_FILE), folder)
    reach = 1 + max(int(name.split(".")[1]) for name in found)
    depth = contract.nlakit.ar_blocks if role == "ar" and reach == subject.blocks else None
    if depth is not None:
        found = {n: tensor for n, tensor in found.items() if int(n.split(".")[1]) < depth}
    depth = depth or reach
    said = contract.nlakit.ar_blocks or contract.ar.get("num_hidden_layers")
    if role == "ar" and depth == subject.blocks != contract.layer + 1 and said is None:
        raise ContractError(
            f"nothing says how deep the AR in {folder} is",
            found=f"adapters on all {depth} blocks of the model, activations of layer "
            f"{contract.layer}",
            do=f"say --ar-blocks ({contract.layer + 1}, or {depth} for the whole model)",
        )
    tokenizer = own_tokenizer(folder, subject.tokenizer)
    turn = settle_prompt(contract, folder, role, tokenizer, stated, reference=False)
    done = completed(contract, folder, role, tokenizer, depth, turn)
    check_ids(done, role, tokenizer, subject.tokenizer, folder)
    lora = Adapters.over(lora, found)
    if role == "av":
        made: Any = Verbalizer(subject, done, mean, lora, 0)
        module = made.model
    else:
        made = Reconstructor(subject, done, lora, 0)
        module = made.decoder
        made.set_head(read_head(folder / HEAD_FILE), str(folder / HEAD_FILE))
    _fill(module, found, folder)
    return made.eval()


def _tell_base(subject: Subject, folder: Path) -> None:
    """Say it if adapters were made over a model of another name than the one they are read over: it
    may be the same under a path of its author's, or one into which other adapters were merged."""
    made = str(read_json(folder / "adapter_config.json").get("base_model_name_or_path") or "")
    if made and _model_name(made) != _model_name(subject.config.model):
        say(f"{folder}: the adapters were made over {made}, and are read over "
            f"{subject.config.model}; --base-model names another")  # fmt: skip


def _model_name(path: str) -> str:
    """The last part of a hub id, of a folder, or of the repository whose snapshot a folder is."""
    cached = re.search(r"models--[^/\\]+--([^/\\]+)", path)
    return (cached[1] if cached else PureWindowsPath(path).name).lower()


def _fill(module: Any, found: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Adapters of ours take over theirs; those of projections that theirs leave alone on every
    block stay zero, and theirs on modules that ours do not adapt are left out if they are."""
    state = adapter_state(module)
    names = {by: name for name in state for by in by_block({name: state[name]}, folder)}
    idle = _idle(found)
    needless = [name for name in found if name not in names and _module(name) in idle]
    _say_left_out(needless, folder)
    found = {name: tensor for name, tensor in found.items() if name not in needless}
    adapted = {_projection(name) for name in found}
    wanted = {by: state[name] for by, name in names.items() if _projection(by) in adapted}
    check_tensors(found, wanted, str(folder))
    set_peft_model_state_dict(module, state | {names[by]: t for by, t in found.items()})


def _projection(name: str) -> str:
    """`layers.3.mlp.up_proj.lora_A.weight` without its block."""
    return re.sub(r"\.\d+\.", ".", name, count=1)


def read_head(file: Path) -> dict[str, torch.Tensor]:
    """`weight` and perhaps `bias` of `linear_head.pt`: a state dict, or the weight alone.

    Raises ContractError if it is missing, damaged, or holds anything but tensors.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ContractError(f"missing file {file}", do="copy the whole folder") from error
    except (
        UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError,
        AssertionError, AttributeError,
    ) as error:  # fmt: skip
        raise ContractError(
            f"{file} is damaged, or a pickle that would run code",
            found=first_line(error),
            do="do not use it unless you trust who made it; it must hold tensors alone",
        ) from error
    state = {"weight": found} if isinstance(found, torch.Tensor) else found
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ContractError(
            f"{file} holds no state of a linear layer",
            found=type(found).__name__,
            do="save the state of the AR's linear head alone",
        )
    made = {str(name).rpartition(".")[2]: tensor for name, tensor in state.items()}
    if len(made) < len(state):
        raise ContractError(
            f"{file} holds more than one layer",
            found=", ".join(map(str, state)),
            do="save the state of the AR's linear head alone",
        )
    return made


def write(subject: Subject, half: Verbalizer | Reconstructor, folder: Path) -> str:
    """Write a half's adapter so that PEFT loads it over the plain base model; returns its dtype.

    Raises ContractError if the half trains all its weights.
    """
    role = "av" if isinstance(half, Verbalizer) else "ar"
    module = half.model if isinstance(half, Verbalizer) else half.decoder
    if not isinstance(module, PeftModel):
        raise ContractError(
            f"the {role.upper()} has weights of its own, and no adapter to write",
            do="export it with --format kitft",
        )
    place, state = _place(subject), adapter_state(module)
    named = {
        f"base_model.model.{place}.{by}": state[name]
        for name in state
        for by in by_block({name: state[name]}, folder)
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(named, folder / ADAPTER_FILE)
    _adapter_settings(module, half.contract, named).save_pretrained(str(folder))
    if isinstance(half, Reconstructor):
        head = {name: tensor.cpu() for name, tensor in half.head_state().items()}
        # The layer that the format's own reader makes has a bias.
        head.setdefault("bias", torch.zeros(half.contract.d_model))
        torch.save(head, folder / HEAD_FILE)
    write_sidecar(half.contract, role, folder)
    return str(next(iter(named.values())).dtype).removeprefix("torch.")


def _place(subject: Subject) -> str:
    """Path to the text decoder in the model that others build from the subject's checkpoint: that
    of a multimodal one is a wrapper, where ours is the text model alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(subject.source, **reading_options(subject.config))
    whole: Any = subject.model
    if type(config) is not type(subject.model.config):
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(config)
    base = decoder_of(whole)
    return next(name for name, part in whole.named_modules() if part is base)


def _adapter_settings(
    module: Any, contract: Contract, named: Mapping[str, torch.Tensor]
) -> PeftLoraConfig:
    """Settings that name exactly the adapted modules: an AR's end with its blocks."""
    ours = module.peft_config["default"]
    adapted = {n.removeprefix("base_model.model.").partition(".lora_")[0] for n in named}
    return PeftLoraConfig(
        r=ours.r,
        lora_alpha=ours.lora_alpha,
        lora_dropout=0.0,
        target_modules="|".join(re.escape(name) for name in sorted(adapted)),
        task_type="CAUSAL_LM",
        base_model_name_or_path=contract.extraction.base_model,
        inference_mode=True,
    )
