"""Toy models of real architectures, and the packaged model where a test needs real weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from nlakit.config.sections import LoraConfig, SubjectConfig
from nlakit.core.contract import Contract, Extraction, Provenance, Templates, Tokens
from nlakit.core.prompts import find_marker, marker_neighbours, suffix_ids
from nlakit.models.subject import Subject, load_subject

AV_TEMPLATE = "<concept>{marker}</concept> <explanation>"
AR_TEMPLATE = "Summary of the following text: <text>{explanation}</text> <summary>"
D, LAYERS, VOCAB = 32, 4, 400
# The families over which the properties run, and the layer K that is read: in Gemma 3n and in the
# small Gemma 4 one that takes its keys and values from another block.
FAMILIES = {
    **dict.fromkeys(
        ("gemma2", "gemma3", "gemma4_large", "gpt2", "gpt_neox", "llama", "mistral"), 1
    ),
    **dict.fromkeys(("olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3"), 1),
    "gemma3n": 4,
    "gemma4": 4,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: `make test` hands out files in this order."""
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)


def toy_tokenizer() -> Any:
    """A byte-level tokenizer in which every ASCII character is a token and ㊗ is one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    for character in alphabet:
        vocabulary.setdefault(character, len(vocabulary))
    base = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    base.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    base.decoder = decoders.ByteLevel()
    base.add_tokens(["㊗"])
    from tokenizers.processors import TemplateProcessing

    base.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


# What a family's toy has besides the common numbers. Caps are low enough to change the logits.
GEMMA: dict[str, Any] = {"head_dim": 8, "sliding_window": 24}
DELTA: dict[str, Any] = {
    "head_dim": 8, "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
SHARED_KEYS: dict[str, Any] = {
    "num_hidden_layers": 6,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 3,
    "hidden_size_per_layer_input": 8,
    "vocab_size_per_layer_input": VOCAB,
    "final_logit_softcapping": 5.0,
}
OWN: dict[str, dict[str, Any]] = {
    "gemma2": {**GEMMA, "final_logit_softcapping": 5.0},
    "gemma3": {**GEMMA, "model_type": "gemma3_text"},
    "gemma3n": {**GEMMA, **SHARED_KEYS, "model_type": "gemma3n_text", "laurel_rank": 4},
    "gemma4": {
        **GEMMA, **SHARED_KEYS, "model_type": "gemma4_text", "global_head_dim": 16,
        "use_double_wide_mlp": True,
    },
    "gemma4_large": {
        **GEMMA, "model_type": "gemma4_text", "global_head_dim": 16, "attention_k_eq_v": True,
        "num_global_key_value_heads": 1, "hidden_size_per_layer_input": 0,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "enable_moe_block": True,
        "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16,
    },
    "qwen3": {"head_dim": 8},
    "qwen3_5": {**DELTA, "model_type": "qwen3_5_text"},
    "qwen3_next": {**DELTA, "num_experts": 0},
}  # fmt: skip


def toy_config(family: str) -> Any:
    given: dict[str, Any] = {
        "model_type": family,
        "vocab_size": VOCAB,
        "hidden_size": D,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    if family in ("gpt2", "gpt_neox"):
        del given["num_key_value_heads"]
    if family == "gpt2":
        del given["intermediate_size"]
    return AutoConfig.for_model(**given | OWN.get(family, {}))


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Saved toy models with random weights, by family."""
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            torch.manual_seed(1)
            made[family] = tmp_path_factory.mktemp(family)
            model = AutoModelForCausalLM.from_config(toy_config(family))
            # Larger embeddings and norms than at initialisation: rows must differ to be tested.
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn_like(parameter))
            model.save_pretrained(made[family])
            toy_tokenizer().save_pretrained(made[family])
        return made[family]

    return folder


@pytest.fixture
def toy_subject(toy_folder: Callable[[str], Path]) -> Callable[..., Subject]:
    """Load a toy subject: `toy_subject(family="gemma3", layer=1, dtype="float32")`."""

    def load(family: str = "gemma3", layer: int | None = None, dtype: str = "float32") -> Subject:
        settings = {
            "model": str(toy_folder(family)), "dtype": dtype, "device": "cpu",
            "layer": FAMILIES[family] if layer is None else layer,
        }  # fmt: skip
        return load_subject(SubjectConfig.model_validate(settings))

    return load


def build_contract(subject: Subject, **overrides: Any) -> Contract:
    """A contract that fits a subject; overrides go into its nlakit block."""
    tokenizer = subject.tokenizer
    marker = find_marker(tokenizer, AV_TEMPLATE)
    left, token, right = marker_neighbours(tokenizer, AV_TEMPLATE, marker)
    record = {
        "role": "av",
        "av_close": "</explanation>",
        "baseline": 0.5,
        "embedding_norm": subject.embedding_norm(),
        "activation_norm": 10.0,
        "subject_precision": subject.config.precision,
        "centring": "mean_unit",
        "max_new_tokens": 24,
    }
    return Contract(
        kind="nla_model",
        d_model=subject.d_model,
        extraction=Extraction(
            base_model=subject.config.model,
            layer_index=subject.config.layer,
            injection_scale=subject.embedding_norm(),
        ),
        tokens=Tokens(
            injection_char=marker,
            injection_token_id=token,
            injection_left_neighbor_id=left,
            injection_right_neighbor_id=right,
            critic_suffix_ids=suffix_ids(tokenizer, AR_TEMPLATE),
        ),
        prompt_templates=Templates(av=AV_TEMPLATE, ar=AR_TEMPLATE),
        nlakit=Provenance.model_validate(record | overrides),
    )


SMALL_LORA = LoraConfig(r=4, alpha=8)


@pytest.fixture
def vectors() -> np.ndarray:
    """Eight raw activations `(8, d)` that share a mean direction, as real ones do."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal((8, D)) + 1.5).astype(np.float32) * 20


def toy_corpus(path: Path, documents: int = 60) -> Path:
    """A JSONL file of documents about different things, two families."""
    things = ["whale", "tax", "garden", "engine", "psalm", "river", "ledger", "violin"]
    verbs = ["rises", "turns", "sings", "waits", "breaks", "returns"]
    lines = []
    for index in range(documents):
        rng = np.random.default_rng(index)
        sentences = [
            f"The {rng.choice(things)} {rng.choice(verbs)} near mark {rng.integers(1000)}."
            for _ in range(18)
        ]
        record = {"text": " ".join(sentences), "kind": "even" if index % 2 else "odd"}
        lines.append(json.dumps(record))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def toy_settings(model: Path, corpus: Path, **overrides: Any) -> dict[str, Any]:
    """Settings of a whole run that takes seconds."""
    short = {
        "batch_rows": 4,
        "lora": {"r": 2, "alpha": 4},
        "max_tokens": 420,
        "checkpoint_every": 3,
        "measure_every": 4,
        "measure_rows": 4,
    }
    given: dict[str, Any] = {
        "name": "toy",
        "subject": {"model": str(model), "layer": 1, "dtype": "float32", "device": "cpu"},
        "corpus": {"sources": [{"path": str(corpus), "family_column": "kind"}]},
        "activations": {
            "positions_per_document": 3,
            "max_tokens": 160,
            "documents_per_chunk": 8,
            "expected_tokens": 2,
        },
        "split": {"av": 0.4, "ar": 0.3, "rl": 0.15, "test": 0.15},
        "labels": {"rows_per_chunk": 40},
        "ar": {**short, "phases": [{"steps": 8, "lr": 0.01}]},
        "av": {**short, "phases": [{"steps": 8, "lr": 0.01}]},
        "decoding": {"max_new_tokens": 12},
        "pair": {**short, "phases": [{"steps": 4, "lr": 0.01}], "rows": 16, "generate_batch": 8},
        "eval": {"rows": 12, "control_rows": 4, "permutations": 100},
    }
    return given | overrides


@pytest.fixture(scope="session")
def embedded_toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in the place of the embedded model where documents name it."""
    from tests import toyplace

    return toyplace.toy_model(tmp_path_factory.mktemp("embedded"), toyplace.EMBEDDED_BLOCKS)


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What `tests.toyplace` builds."""
    from tests import labelserver, toyplace

    with labelserver.running() as (url, _):
        yield toyplace.build(tmp_path_factory.mktemp("place"), url)


@pytest.fixture
def place(
    master: Path, embedded_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Path]]:
    """`place(*words)`: work in a folder that holds a copy of what the words name."""
    from nlakit.models import gguf
    from nlakit.studies.planning import calibrate
    from tests import toyplace

    monkeypatch.setattr(gguf, "embedded_model", lambda: embedded_toy)
    monkeypatch.setattr(calibrate, "matmul_speed", lambda *args, **options: 1e11)
    folder = tmp_path / "place"
    folder.mkdir()

    def fill(*words: str) -> Path:
        toyplace.copied(master, folder, words)
        return folder

    with toyplace.at(folder):
        yield fill
