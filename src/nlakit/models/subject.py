"""Load the subject, find its parts, share its weights, capture its activations."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import DynamicCache

from nlakit.config.sections import SubjectConfig
from nlakit.core.injection import inject
from nlakit.core.prompts import encode
from nlakit.core.text.tokenizer import SAMPLE, begins_with_bos, check_round_trip, put_bos
from nlakit.errors import DataError, ModelError, first_line
from nlakit.models.families import (
    LAYER_NAMES,
    NORM_NAMES,
    TESTED,
    LastStream,
    active_stream,
    check_direction,
    check_weights,
    is_tested,
    load_causal_lm,
    position_limit,
    reading_options,
    text_config,
    unloadable,
)
from nlakit.models.gguf import source_of
from nlakit.models.head import head_of
from nlakit.models.precision import check_finite, pick_device, settled
from nlakit.models.quantise import check_quantisation, loading_options, prepare
from nlakit.run.progress import say

BOS_GAIN = 0.5  # nats a token; Gemma 3 270M loses 2.7, and 0.1 would be chance
UNKNOWN = 10**9  # positions; tokenizers say 1e30 where nobody told them


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
    stream = active_stream(decoder)
    end = nn.Identity() if stream is None else LastStream(getattr(decoder, layers)[-1], stream)
    setattr(decoder, _attribute(decoder, NORM_NAMES), end)
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

    @property
    def positions(self) -> int | None:
        """Tokens that a text may have; None if neither model nor tokenizer names a limit."""
        named = self.tokenizer.model_max_length  # an astronomical number where it is unknown
        return position_limit(text_config(self.model)) or (named if named < UNKNOWN else None)

    def check_length(self, tokens: int, by_window: bool = False) -> None:
        """Raise DataError for a text of more tokens than the subject has positions. by_window:
        whether it may be read in windows."""
        if self.positions is not None and tokens > self.positions:
            raise DataError(
                "the text is longer than the subject can read",
                found=f"{tokens} tokens, {self.positions} positions in {self.config.model}",
                do="read it in windows (--window), or give a part of it"
                if by_window
                else "give a shorter one, or a part of it",
            )

    def embedding_norm(self, sample: int = 4096) -> float:
        """Mean norm of what the embedding layer puts out, over evenly spaced token ids."""
        embed = self.model.get_input_embeddings()
        step = max(embed.num_embeddings // sample, 1)
        ids = torch.arange(0, embed.num_embeddings, step, device=self.device)
        with torch.no_grad():
            return float(embed(ids[None]).float().norm(dim=-1).mean())


def load_tokenizer(config: SubjectConfig) -> Any:
    """The subject's tokenizer as its files have it; ModelError if there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source_of(config.model), **reading_options(config))
    except Exception as error:  # the tokenizers library raises nothing more exact
        raise ModelError(
            f"cannot load the tokenizer of {config.model}",
            found=first_line(error),
            do="give a local folder, a hub id, or gemma-3-270m (embedded)",
        ) from error


def load_subject(config: SubjectConfig) -> Subject:
    """Load the subject for inference.

    Raises ModelError if it cannot be found, lacks weights, or has no block K.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    config = settled(config)
    source = source_of(config.model)
    options = reading_options(config)
    tokenizer = load_tokenizer(config)
    if not check_round_trip(tokenizer, config.model):
        say(f"{config.model}: its tokenizer changes texts of other scripts than its own")
    try:
        model, info = load_causal_lm(
            source, getattr(torch, config.dtype), **loading_options(config), **options
        )
    except (
        OSError, ValueError, KeyError, TypeError, StrictDataclassError, SafetensorError
    ) as error:  # fmt: skip
        raise unloadable(config, error) from error
    check_weights(config.model, info)
    device = pick_device(config.device)
    check_quantisation(model, config)
    check_direction(config.model, model)
    prepare(model, config)
    model.to(device).eval().requires_grad_(False)
    if not is_tested(model):
        verify_family(model)
    subject = Subject(model, tokenizer, config, device, source)
    check_layer(subject, config.layer)
    return with_bos(subject)


def with_bos(subject: Subject) -> Subject:
    """The subject with a tokenizer that begins texts as `subject.bos` says, and with the choice in
    its settings: `add` or `tokenizer`.

    No file says whether a model needs a BOS that its tokenizer leaves out: the model is asked, on
    one text. Raises ConfigError where it is to be added and there is none.
    """
    config, tokenizer = subject.config, subject.tokenizer
    chosen, known = config.bos, begins_with_bos(tokenizer)
    if chosen == "auto":
        chosen = "tokenizer"
        if not known and tokenizer.bos_token_id is not None:
            gain = bos_gain(subject.model, tokenizer)
            if gain > BOS_GAIN:
                chosen = "add"
                say(
                    f"{config.model}: {tokenizer.bos_token} is put before every text; its tokenizer"
                    f" leaves it out, and without it the loss is {gain:.1f} nats a token higher"
                )
    if chosen == "add" and not known:
        put_bos(tokenizer)
    return replace(subject, config=config.model_copy(update={"bos": chosen}))


@torch.no_grad()
def bos_gain(model: Any, tokenizer: Any) -> float:
    """Nats a token by which a BOS lowers the loss on the second half of a built-in text, where what
    the first tokens gain from any beginning has passed."""
    ids = encode(tokenizer, SAMPLE, special=False)
    half, losses = len(ids) // 2, []
    for front in ([], [tokenizer.bos_token_id]):
        row = torch.tensor([[*front, *ids]], device=model.device)
        logits = model(input_ids=row, use_cache=False).logits[0, -half - 1 : -1]
        losses.append(float(cross_entropy(logits.float(), row[0, -half:])))
    return losses[0] - losses[1]


def check_layer(subject: Subject, layer: int) -> None:
    """Raise ModelError unless the subject has a block `layer`."""
    if layer >= subject.blocks:
        raise ModelError(
            f"the subject has no block {layer}",
            found=f"blocks 0 to {subject.blocks - 1}",
            do="set subject.layer; two thirds of the depth is a good start",
        )


@contextmanager
def capture(decoder: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Collect the outputs `(b, t, d)` of blocks `layers` during forwards inside the body."""
    found: dict[int, torch.Tensor] = {}
    handles, stream = [], active_stream(decoder)
    for layer in layers:

        def hook(module: nn.Module, args: Any, output: Any, layer: int = layer) -> None:
            whole = output[0] if isinstance(output, tuple) else output
            found[layer] = whole if stream is None else whole[stream]

        handles.append(blocks_of(decoder)[layer].register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def activations_of(decoder: Any, ids: Sequence[int], layer: int) -> NDArray[np.float32]:
    """Raw output `(t, d)` of block `layer` for one text of t token ids, by a decoder that has it.

    Raises DataError if they are not finite.
    """
    weight = next(decoder.parameters())
    with capture(decoder, [layer]) as found:
        decoder(input_ids=torch.tensor([list(ids)], device=weight.device), use_cache=False)
    vectors = found[layer][0].float()
    check_finite(vectors, f"activations of layer {layer}", str(weight.dtype).removeprefix("torch."))
    return vectors.cpu().numpy()


def verify_family(model: Any) -> None:
    """Prove on four tokens that a model of an untested family is read and changed correctly.

    Raises ModelError with what differs. Costs four short forwards.
    """
    try:
        faults = list(_faults(model))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        faults = [f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"]
    if faults:
        raise ModelError(
            f"{text_config(model).model_type} models do not work the way nlakit reads them",
            found="; ".join(faults),
            do=f"nlakit reads decoder-only models; tested are {' '.join(sorted(TESTED))}",
        )


@torch.no_grad()
def _faults(model: Any) -> Iterator[str]:
    decoder: Any = decoder_of(model)
    ids = torch.arange(5, 9, device=model.device)[None]
    blocks, stream = blocks_of(decoder), active_stream(decoder)
    inputs: list[torch.Tensor] = []

    def see(module: nn.Module, args: Any, kwargs: Any) -> None:
        whole = args[0] if args else kwargs["hidden_states"]
        inputs.append((whole if stream is None else whole[stream])[0].float())

    watch = blocks[0].register_forward_pre_hook(see, with_kwargs=True)
    try:
        with capture(decoder, range(len(blocks))) as found:
            whole = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        vector = torch.randn(model.get_input_embeddings().embedding_dim, device=ids.device)
        with _replaced(model.get_input_embeddings(), vector) as own:
            decoder(input_ids=ids, use_cache=False)
    finally:
        watch.remove()
    states = [state if stream is None else state[stream] for state in whole.hidden_states]
    if len(states) != len(blocks) + 1:
        yield f"{len(states)} hidden states for {len(blocks)} blocks"
    for layer in range(len(blocks) - 1):
        if not _alike(found[layer], states[layer + 1]):
            yield f"the output of block {layer} is not hidden_states[{layer + 1}]"
    middle = len(blocks) // 2
    cut = sliced_decoder(model, middle + 1)(input_ids=ids, use_cache=False)[0]
    if not _alike(cut, found[middle]):
        yield f"the decoder cut after block {middle} puts out something else"
    change = inputs[1] - inputs[0]
    wanted = torch.zeros_like(change)
    wanted[1] = vector - own[0]
    if not _alike(normalize(change, dim=-1), normalize(wanted, dim=-1)):
        yield "a vector injected into the embeddings does not arrive at the first block"
    hidden = decoder(input_ids=ids, use_cache=False)[0]
    if not _alike(head_of(model).logits(hidden), whole.logits):
        yield "the logits are not a linear map of the decoder's output"
    cache = DynamicCache(config=decoder.config)
    decoder(input_ids=ids[:, :3], past_key_values=cache, use_cache=True)
    step = decoder(input_ids=ids[:, 3:], past_key_values=cache, use_cache=True)[0]
    if not _alike(step, hidden[:, 3:]):
        yield "decoding with a cache differs from the whole forward"


@contextmanager
def _replaced(embed: nn.Module, vector: torch.Tensor) -> Iterator[list[torch.Tensor]]:
    """The second token's embedding is `vector`; gives the embedding it had."""
    own: list[torch.Tensor] = []

    def hook(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        own.append(output[0, 1].float())
        one = torch.tensor([1], device=output.device)
        return inject(output, one - 1, one, vector[None])

    handle = embed.register_forward_hook(hook)
    try:
        yield own
    finally:
        handle.remove()


def _alike(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Equal but for the rounding of bfloat16 and of kernels that add in another order."""
    if found.shape != expected.shape:
        return False
    error = (found.float() - expected.float()).norm()
    return bool(error <= 0.02 * expected.float().norm())


def subject_sha256(subject: Subject) -> str | None:
    """Hash of the subject's weights file, where it is one local safetensors file."""
    from nlakit.run.folder import file_sha256

    file = Path(subject.source) / "model.safetensors"
    return file_sha256(file) if file.exists() else None
