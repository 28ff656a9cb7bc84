"""What differs between model families: names of parts, loading of the text model alone, quirks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nlakit.config.from_model import Shape
from nlakit.config.sections import RunConfig, SubjectConfig
from nlakit.errors import ConfigError, ModelError, first_line
from nlakit.models.gguf import source_of

# Families over which tests/models runs every property. Others are checked when they are loaded.
TESTED = frozenset(
    "gemma2 gemma3_text gemma3n_text gemma4_text gpt2 gpt_neox llama mistral olmo2 phi phi3 "
    "qwen2 qwen3 smollm3".split()
)
LAYER_NAMES = ("layers", "h", "blocks")
NORM_NAMES = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f")
# Linear layers that get adapters, inside the attention or the MLP of a block. Experts, routers and
# the projections of per-layer embeddings stay as they are.
PARTS = "self_attn|self_attention|attn|attention|mlp"
PROJECTIONS = (
    "q_proj|k_proj|v_proj|o_proj|qkv_proj|gate_proj|up_proj|down_proj|gate_up_proj|"
    "c_attn|c_proj|c_fc|query_key_value|dense|dense_h_to_4h|dense_4h_to_h|fc1|fc2|out_proj"
)
TARGETS = rf"(.*\.)?({'|'.join(LAYER_NAMES)})\.\d+\.({PARTS})\.({PROJECTIONS})"

# A multimodal checkpoint holds the text model under `language_model`, in one of two orders.
TEXT_KEYS = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^language_model\.model\.": "model.",
    r"^model\.language_model\.": "model.",
}
TOWERS = re.compile(
    r"(model\.)?(vision_|audio_|visual\.|embed_vision\.|embed_audio\.|multi_modal_)"
)
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
DROPOUT = re.compile(r"dropout|pdrop")
# Buffers of old checkpoints that the model computes itself: causal masks, rotary frequencies.
BUFFERS = re.compile(r".*(\.attn\.bias|\.masked_bias|rotary_emb\.inv_freq|position_ids)")


def unloadable(config: SubjectConfig, error: Exception) -> ModelError:
    return ModelError(
        f"cannot load the subject {config.model}",
        found=first_line(error),
        do="give a local folder, a hub id, or gemma-3-270m (embedded)",
    )


def text_config_of(subject: SubjectConfig) -> Any:
    """The configuration of a subject's text model; of the checkpoint nothing else is read. Raises
    ModelError if there is no such subject."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        found = read_config(source_of(subject.model), reading_options(subject))
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise unloadable(subject, error) from error
    return found.get_text_config(decoder=True)


def shape_of(subject: SubjectConfig) -> Shape:
    """Depth and width of a subject. Raises ModelError if its configuration cannot be read."""
    found = text_config_of(subject)
    return Shape(blocks=found.num_hidden_layers, width=found.hidden_size)


def check_lengths(config: RunConfig) -> None:
    """Raise ConfigError for settings that make texts longer than the subject's positions reach,
    ModelError if there is no such subject."""
    subject = config.subject
    limit = position_limit(text_config_of(subject))
    halves = {"ar": config.ar, "av": config.av, "pair": config.pair}
    asked = {f"{name}.max_tokens": half.max_tokens for name, half in halves.items()}
    asked["decoding.max_new_tokens"] = config.decoding.max_new_tokens
    if config.rl:
        asked["rl.max_tokens"] = config.rl.max_tokens
        asked["rl.max_new_tokens"] = config.rl.max_new_tokens or 0
    if not config.tables.source:
        asked["activations.max_tokens"] = config.activations.max_tokens
    over = [f"{name} {count}" for name, count in asked.items() if limit and count > limit]
    if over:
        raise ConfigError(
            f"the settings make texts longer than {subject.model} can read",
            found=f"{', '.join(over)}; the model has {limit} positions",
            do=f"set them to {limit} or less",
        )


def reading_options(config: SubjectConfig) -> dict[str, Any]:
    """What every `from_pretrained` of the subject's checkpoint is told."""
    options: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    return options | ({"revision": config.revision} if config.revision else {})


def load_causal_lm(source: str, dtype: torch.dtype, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A causal LM and transformers' account of its weights, for `check_weights`.

    Of a multimodal checkpoint only the text model is built, and its weights alone are read. Raises
    OSError, ValueError or KeyError as transformers does.
    """
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = read_config(source, options)
    text = config.get_text_config(decoder=True)
    kind: Any = AutoModelForCausalLM
    if text is not config and type(text) in MODEL_FOR_CAUSAL_LM_MAPPING:
        # Whether the head is tied is the wrapper's to say: it wrote the weights.
        text.tie_word_embeddings = config.tie_word_embeddings
        kind = MODEL_FOR_CAUSAL_LM_MAPPING[type(text)]
        options |= {"config": text, "key_mapping": TEXT_KEYS}
    with _quiet():
        model, info = kind.from_pretrained(
            source,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # check_weights refuses them, and names the first
            **options,
        )
    if "key_mapping" in options:
        unexpected = info.get("unexpected_keys") or ()
        info["unexpected_keys"] = [key for key in unexpected if not TOWERS.match(key)]
    _train_as_used(model)
    return model, info


def read_config(source: str, options: Mapping[str, Any]) -> Any:
    """A checkpoint's configuration. Raises OSError, ValueError or KeyError as transformers does."""
    from transformers import AutoConfig

    known = {name: options[name] for name in ("revision", "trust_remote_code") if name in options}
    return AutoConfig.from_pretrained(source, **known)


def position_limit(config: Any) -> int | None:
    """How many tokens a text model's positions reach, learned or rotary, by its configuration; None
    where it names no limit."""
    found = (getattr(config, name, None) for name in POSITIONS)
    return next((count for count in found if isinstance(count, int) and count > 0), None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' table of weights left out: what matters in it is an error here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _train_as_used(model: Any) -> None:
    """The frozen base does the same in training as in use: no dropout (GPT-2 has 0.1, which would
    strike the injected vector too; some blocks keep it as a number of their own or look it up in
    the configuration), and no clipping in place of AltUp's weights (Gemma 3n does it
    in training mode; they are within the clip, but the bytes of 4-bit ones would be destroyed)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if hasattr(module, "prediction_coefs"):
            module.train = lambda mode=True, still=module: still
    # Modules share few configurations: each is looked through once.
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    for holder in (*model.modules(), *configs.values()):
        for name in [name for name in vars(holder) if DROPOUT.search(name)]:
            if isinstance(getattr(holder, name), float):
                setattr(holder, name, 0.0)


def check_weights(name: str, info: dict[str, Any]) -> None:
    """Raise ModelError if a checkpoint lacks weights of its model, has others, or other shapes."""
    missing = sorted(info.get("missing_keys") or ())
    mismatched = sorted(str(key) for key in info.get("mismatched_keys") or ())
    unexpected = sorted(
        key for key in info.get("unexpected_keys") or () if not BUFFERS.fullmatch(key)
    )
    if missing or mismatched or unexpected:
        raise ModelError(
            f"the weights of {name} are not those of its architecture",
            found=f"{len(missing)} missing, {len(mismatched)} of another shape, "
            f"{len(unexpected)} unexpected, first {(missing + mismatched + unexpected)[0]}",
            do="missing weights would be random; name a complete, unmodified checkpoint",
        )


def check_direction(name: str, model: nn.Module) -> None:
    """Raise ModelError for a model in which a position sees what follows it (EmbeddingGemma). Gemma
    4 says `vision` where only patches of an image see each other."""
    said = getattr(text_config(model), "use_bidirectional_attention", None)
    if said not in (None, False, "vision"):
        raise ModelError(
            f"{name} is no causal language model: positions see what follows them",
            found=f"use_bidirectional_attention: {said}",
            do="nlakit reads decoder-only models",
        )


def is_tested(model: nn.Module) -> bool:
    """Whether the family's properties are proved by nlakit's own tests. Code that came with a
    checkpoint may call itself by any name, so it never counts."""
    own = type(model).__module__.startswith("transformers.")
    return own and text_config(model).model_type in TESTED


def text_config(module: nn.Module) -> Any:
    """The configuration of the text model."""
    config: Any = getattr(module, "config", None)
    return config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config


def active_stream(module: nn.Module) -> int | None:
    """Blocks of Gemma 3n put out several streams `(s, b, t, d)` (AltUp); the one that attention and
    MLP work on is read. None where blocks put out `(b, t, d)`."""
    return getattr(text_config(module), "altup_active_idx", None)


def changed_output(
    output: Any, stream: int | None, change: Callable[[torch.Tensor], torch.Tensor]
) -> Any:
    """A block's output with `change` made to its `(b, t, d)`; of several streams to the active one.
    What else a block puts out in a tuple stays."""
    whole = output[0] if isinstance(output, tuple) else output
    changed = change(whole if stream is None else whole[stream])
    if stream is not None:
        streams = list(whole)
        streams[stream] = changed
        changed = torch.stack(streams)
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


class LastStream(nn.Module):
    """In the place of the final norm of a cut Gemma 3n: the last block's active stream, since the
    decoder hands the mean of all streams to its norm."""

    def __init__(self, block: nn.Module, stream: int) -> None:
        super().__init__()
        self.stream = stream
        self._seen: torch.Tensor | None = None
        block.register_forward_hook(self._see)

    def _see(self, module: nn.Module, args: Any, output: torch.Tensor) -> None:
        self._seen = output[self.stream]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        seen, self._seen = self._seen, None
        assert seen is not None, "the last block ran before the norm"
        return seen
