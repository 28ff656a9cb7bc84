"""What variants of one text share: the tokens before the first that differs, read once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


@torch.no_grad()
def begun(
    decoder: Any, ids: Sequence[int], before: int, count: int
) -> tuple[DynamicCache, list[int]]:
    """A cache of `count` rows with the first `before` tokens of a text, which are read once, and
    the tokens that are still to be read: all of them where the model keeps a recurrent state, which
    need not take in several tokens at once."""
    cache = DynamicCache(config=decoder.config)
    if not before:
        return cache, list(ids)
    device = next(decoder.parameters()).device
    front = torch.tensor([list(ids[:before])], device=device)
    decoder(input_ids=front, past_key_values=cache, use_cache=True)
    if not all(type(one) in (DynamicLayer, DynamicSlidingWindowLayer) for one in cache.layers):
        return DynamicCache(config=decoder.config), list(ids)
    every: Any = torch.zeros(count, dtype=torch.long, device=device)
    cache.reorder_cache(every)
    return cache, list(ids[before:])
