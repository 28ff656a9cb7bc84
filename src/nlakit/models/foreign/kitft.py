"""The reference's folders: the AV as a Hugging Face model, the AR as one cut to its blocks."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from nlakit.core.contract import Contract
from nlakit.errors import ContractError, first_line
from nlakit.models.families import BUFFERS, NORM_NAMES
from nlakit.models.foreign.folders import read_json, read_weights
from nlakit.models.foreign.sidecar import chat_template, completed, write_sidecar
from nlakit.models.foreign.turn import Stated, check_ids, own_tokenizer, settle_prompt
from nlakit.models.lora import check_tensors, read_tensors
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, decoder_of
from nlakit.models.verbalizer import Verbalizer
from nlakit.models.weights import fill, merged, own_state

HEAD_FILE = "value_head.safetensors"
BLOCK = re.compile(r"(?:layers|h|blocks)\.(\d+)\.")
# Tables with a share for each block: the axis that the blocks lie along.
PER_LAYER = {"embed_tokens_per_layer.weight": 1, "per_layer_model_projection.weight": 0}
# Settings that do not change what the blocks compute, or that say how many blocks there are.
FREE = re.compile(
    r"_.*|architectures|.*dtype|transformers_version|.*use_cache|.*token_ids?|.*drop(out|).*|pdrop|"
    r"output_.*|return_dict|tie_word_embeddings|.*name_or_path|initializer_range|id2label|label2id|"
    r"problem_type|chunk_size_feed_forward|is_encoder_decoder|quantization_config|task_.*|"
    r"num_hidden_layers|n_layer|max_window_layers|auto_map|"
    r"max_position_embeddings|n_positions|n_ctx"
)


def text_config(folder: Path) -> Any:
    """Settings of the language model in a folder. Code that lies in it is never run."""
    from transformers import AutoConfig

    read_json(folder / "config.json")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except Exception as error:  # each family's settings fail in their own way
        raise ContractError(
            f"cannot use {folder / 'config.json'}",
            found=first_line(error),
            do="copy the whole folder; its model must be one that transformers knows",
        ) from error


def precision_of(folder: Path) -> str:
    """What the weights in a folder are stored in."""
    dtype = str(text_config(folder).dtype or torch.float32).removeprefix("torch.")
    return dtype if dtype in ("bfloat16", "float16", "float32") else "float32"


def read(
    subject: Subject,
    contract: Contract,
    folder: Path,
    role: str,
    mean: NDArray[Any] | None,
    stated: Stated,
) -> Verbalizer | Reconstructor:
    """A half of the reference as a half of ours with weights of its own. stated: what the user
    says of the prompt, where the files leave it open.

    The weights go into blocks of the subject's architecture, cut by slicing: settings that were
    cut to fewer blocks mean another model in some families. Raises ContractError if tokenizer,
    settings, sidecar, names or shapes differ from the subject's.
    """
    config = text_config(folder)
    blocks = int(config.num_hidden_layers)
    tokenizer = own_tokenizer(folder, subject.tokenizer)
    turn = settle_prompt(contract, folder, role, tokenizer, stated, reference=True)
    if role == "ar":
        _check_norm(folder)
    done = completed(contract, folder, role, tokenizer, blocks, turn)
    check_ids(done, role, tokenizer, subject.tokenizer, folder)
    _check_settings(config, subject, blocks, folder)
    tensors = decoder_tensors(read_weights(folder), subject, folder)
    if role == "av":
        made = Verbalizer(subject, done, mean, None, 0)
        fill(made.model, _named_as(made.model, made.decoder, tensors), str(folder))
        return made.eval()
    half = Reconstructor(subject, done, None, 0)
    left_out = {f"{name}.{kind}" for name in NORM_NAMES for kind in ("weight", "bias")}
    kept = {n: t for n, t in tensors.items() if n not in left_out and not n.startswith("lm_head.")}
    fill(half.decoder, _padded(kept, own_state(half.decoder)), str(folder))
    half.set_head(read_tensors(folder / HEAD_FILE), str(folder / HEAD_FILE))
    return half.eval()


def _check_norm(folder: Path) -> None:
    """EasyNLA notes beside an AR whether it kept the final norm; ours has none."""
    file = folder / "ar_meta.json"
    if file.exists() and read_json(file).get("final_norm_stripped") is False:
        raise ContractError(
            f"the AR in {folder} reads its vector behind the final norm",
            found=f"{file.name}: final_norm_stripped is false",
            do="only ARs that read the output of their last block can be read",
        )


def _check_settings(config: Any, subject: Subject, blocks: int, folder: Path) -> None:
    theirs = config.to_dict()
    ours = cut_settings(subject.model.config.get_text_config(), blocks)
    for name in sorted(theirs.keys() & ours.keys()):
        if not FREE.fullmatch(name) and theirs[name] != ours[name]:
            raise ContractError(
                f"{folder} was made with other settings than the subject's",
                found=f"{name} is {theirs[name]}, not {ours[name]}",
                do="name the model it was made from with --base-model",
            )


def decoder_tensors(
    found: Mapping[str, torch.Tensor], subject: Subject, folder: Path
) -> dict[str, torch.Tensor]:
    """Tensors by their name inside the decoder; those of the vocabulary head as `lm_head.*`.

    Raises ContractError if there is not one embedding table to tell the decoder by.
    """
    embedding = subject.model.get_input_embeddings()
    decoder = decoder_of(subject.model)
    own = next(name for name, module in decoder.named_modules() if module is embedding)
    ends = [n for n in found if n == f"{own}.weight" or n.endswith(f".{own}.weight")]
    if len(ends) != 1:
        raise ContractError(
            f"the weights in {folder} do not fit the subject",
            found=f"{len(ends)} tables of token embeddings named {own}.weight",
            do="name the model it was made from with --base-model",
        )
    prefix = ends[0].removesuffix(f"{own}.weight")
    heads = re.compile(r"^(?:lm_head|embed_out)\.")
    return {
        heads.sub("lm_head.", n) if heads.match(n) else n.removeprefix(prefix): t
        for n, t in found.items()
        if not BUFFERS.fullmatch(n)
    }


def _named_as(
    model: nn.Module, decoder: nn.Module, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Decoder-relative names to the model's; a tied head stored beside the embeddings is left.

    Raises ContractError for a head of its own where the model's is tied.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    at = {id(module): name for name, module in model.named_modules()}
    named = {
        f"{at[id(head)]}.{n.removeprefix('lm_head.')}"
        if n.startswith("lm_head.")
        else f"{at[id(decoder)]}.{n}": t
        for n, t in tensors.items()
    }
    tied = f"{at[id(head)]}.weight"
    if tied in named and tied not in own_state(model):
        stored = named.pop(tied)
        table = named[f"{at[id(model.get_input_embeddings())]}.weight"]  # type: ignore[operator]
        if stored.dtype != table.dtype or not torch.equal(stored, table):
            raise ContractError(
                "the AV has a vocabulary head of its own, and the subject's is its embeddings",
                found="lm_head.weight differs from the stored embeddings",
                do="name the model it was made from with --base-model",
            )
    return named


def _padded(
    found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Per-layer tables of a cut model in those of the whole; the rest belongs to no block."""
    made = dict(found)
    for name, axis in PER_LAYER.items():
        if name in found and name in expected:
            whole = expected[name].detach().clone()
            if found[name].shape[axis] <= whole.shape[axis]:
                whole.narrow(axis, 0, found[name].shape[axis]).copy_(found[name])
                made[name] = whole
    return made


def write(subject: Subject, half: Verbalizer | Reconstructor, folder: Path) -> str:
    """Write a half as the reference's folder, adapters merged; returns the dtype.

    The folder is loaded again with plain transformers and must give the AR's hidden states, the
    AV's logits, bit for bit. Raises ContractError if it does not: some models (a last layer of a
    forced type, several streams) cannot be expressed in settings cut to fewer blocks; and for
    float16 over 4 bits, where the residual stream is float32 and a plain model's would not be.
    """
    if subject.config.precision == "nf4+float16":
        raise ContractError(
            "a plain float16 model computes otherwise than this pair, whose stream is float32",
            found="precision nf4+float16",
            do="export it with --precision nf4+bfloat16 or float32, or with --format peft",
        )
    role = "av" if isinstance(half, Verbalizer) else "ar"
    contract = half.contract.model_copy(deep=True)
    if isinstance(half, Verbalizer):
        trunk = merged(half.model)
        decoder = decoder_of(trunk)
    else:
        if half.head.bias is not None:
            raise ContractError(
                "the AR's head has a bias, which the reference's format cannot hold",
                do="export it with --format peft",
            )
        if not contract.nlakit.ar_bos:
            raise ContractError(
                "the AR's prompt has no BOS, and the reference puts one before it",
                do="share it in nlakit's own format, or export it with --format peft",
            )
        trunk, decoder = subject.model, merged(half.decoder)
    blocks = contract.ar_blocks if role == "ar" else subject.blocks
    model = _plain(subject, decoder, trunk.get_output_embeddings(), blocks)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    _check_reload(trunk if role == "av" else decoder, model.dtype, folder, role)
    tokenizer = copy.deepcopy(subject.tokenizer)
    if role == "av":
        tokenizer.chat_template = chat_template(tokenizer, contract.av_prompt())
    else:
        assert isinstance(half, Reconstructor)
        state = {name: tensor.cpu() for name, tensor in half.head_state().items()}
        save_file(state, folder / HEAD_FILE)
    tokenizer.save_pretrained(folder)
    contract.nlakit.subject_precision = str(model.dtype).removeprefix("torch.")
    write_sidecar(contract, role, folder)
    return contract.nlakit.subject_precision


def _plain(subject: Subject, decoder: nn.Module, head: nn.Module, blocks: int) -> Any:
    """A causal LM of `blocks` blocks with the decoder's weights, and the subject's final norm
    where the decoder has none."""
    from transformers import AutoModelForCausalLM

    source = decoder_of(subject.model)
    dtype = next(p.dtype for p in decoder.parameters())
    try:
        base = subject.model.config.get_text_config()
        config = type(base)(**cut_settings(base, blocks))
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise ContractError(
            f"the reference's format cannot hold the first {blocks} blocks of this model",
            found=first_line(error),
            do="export it with --format peft",
        ) from error
    target = decoder_of(model)
    expected = own_state(target)
    found = own_state(decoder)
    found |= {
        name: tensor
        for name, tensor in own_state(source).items()
        if name.split(".")[0] in NORM_NAMES and name not in found
    }
    for name, axis in PER_LAYER.items():
        if name in found and name in expected:
            found[name] = found[name].narrow(axis, 0, expected[name].shape[axis])
    fill(target, found, "the half")
    if model.get_output_embeddings().weight is not model.get_input_embeddings().weight:
        fill(model.get_output_embeddings(), own_state(head), "the half's head")
    model.generation_config = copy.deepcopy(subject.model.generation_config)
    return model.eval()


def cut_settings(config: Any, blocks: int) -> dict[str, Any]:
    """Settings of the first `blocks` blocks, with every list a block long and shared keys and
    values counted from the same block."""
    whole = config.num_hidden_layers
    data = config.to_dict() | {"num_hidden_layers": blocks}
    for name, value in list(data.items()):
        if isinstance(value, list) and len(value) == whole:
            data[name] = value[:blocks]
    if isinstance(data.get("per_layer_config"), dict):
        kept = {at: own for at, own in data["per_layer_config"].items() if int(at) < blocks}
        data["per_layer_config"] = kept
    if data.get("num_kv_shared_layers"):
        data["num_kv_shared_layers"] = max(data["num_kv_shared_layers"] - (whole - blocks), 0)
    data.pop("quantization_config", None)
    return data


@torch.no_grad()
def _check_reload(module: Any, dtype: torch.dtype, folder: Path, role: str) -> None:
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, trust_remote_code=False
    )
    model, info = loaded
    check_tensors(
        dict.fromkeys(info["unexpected_keys"], torch.empty(0)),
        dict.fromkeys(info["missing_keys"], torch.empty(0)),
        f"{folder} (as written)",
    )
    again = model.eval()
    if role == "ar":
        again = decoder_of(model)
        setattr(again, next(n for n in NORM_NAMES if hasattr(again, n)), nn.Identity())
    device = next(module.parameters()).device
    vocabulary = int(model.get_input_embeddings().num_embeddings)
    ids = torch.linspace(0, vocabulary - 1, 48).long()[None]
    ours = module(input_ids=ids.to(device), use_cache=False)[0].cpu()
    theirs = again(input_ids=ids, use_cache=False)[0]
    near = torch.equal(ours, theirs) if device.type == "cpu" else _close(ours, theirs)
    if not near:
        raise ContractError(
            "the reference's format cannot hold this model: loaded again it computes otherwise",
            found=f"outputs differ by {float((ours - theirs).abs().max()):.3g}",
            do="export it with --format peft",
        )


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal up to the rounding of two devices."""
    return float(torch.nn.functional.cosine_similarity(one.float(), other.float(), -1).min()) > 0.99
