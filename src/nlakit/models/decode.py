"""Cached decoding: one prefill, then one token a step, finished rows leave the batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from nlakit.models.head import head_of
from nlakit.models.precision import check_finite


@dataclass(frozen=True)
class Decoding:
    """How texts are drawn. Temperature 0 is greedy; `seed` keys the draws of row i by (seed, i).

    no_repeat_ngram k keeps a k-gram of tokens from occurring twice in one text; 0 is off.
    repetition_penalty p divides the positive logits of what a text has said, and multiplies the
    negative ones (Keskar et al. 2019, CTRL, section 4.1); 1 is off. Here for words alone: a text
    needs its commas and its end again.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0


def decode(
    model: Any,
    decoder: Any,
    prompt: torch.Tensor,
    close: list[int],
    decoding: Decoding,
    first_row: int = 0,
    words: torch.Tensor | None = None,
) -> list[list[int]]:
    """Token ids a row, without the closing tag, for equal-length prompts `(b, t)`.

    words: which tokens `(v,)` the repetition penalty is for; all of them unless given.
    A row ends at the closing tag's ids, at an end-of-sequence token, or at the token limit.
    Raises DataError if outputs at the prompt are not finite.
    """
    head = head_of(model)
    ends = _end_ids(model)
    cache = DynamicCache(config=decoder.config)
    made: list[list[int]] = [[] for _ in range(len(prompt))]
    alive = list(range(len(prompt)))
    generators = _generators(decoding, first_row, len(prompt), prompt.device)
    ids = prompt
    for _ in range(decoding.max_new_tokens):
        hidden = decoder(input_ids=ids, past_key_values=cache, use_cache=True)[0][:, -1]
        logits = head.logits(hidden)
        if ids is prompt:  # what overflows does so from the start
            check_finite(hidden, "the verbalizer's outputs", str(hidden.dtype).split(".")[-1])
        said = [made[row] for row in alive]
        _ban_repeats(logits, said, decoding.no_repeat_ngram)
        if decoding.repetition_penalty != 1:
            _penalise(logits, said, decoding.repetition_penalty, words)
        tokens = _choose(logits, decoding.temperature, [generators[row] for row in alive])
        del logits  # the next step's need the room
        keep = []
        for index, (row, token) in enumerate(zip(alive, tokens.tolist(), strict=True)):
            text = made[row]
            if token in ends:
                continue
            text.append(token)
            if close and text[-len(close) :] == close:
                del text[-len(close) :]
                continue
            keep.append(index)
        if not keep:
            break
        if len(keep) < len(alive):
            kept: Any = torch.tensor(keep, device=ids.device)
            # Some layers have the one way to pick rows, all have the other.
            cache.reorder_cache(kept)
            tokens = tokens[kept]
            alive = [alive[index] for index in keep]
        ids = tokens[:, None]
    return made


def _end_ids(model: Any) -> set[int]:
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = model.config.eos_token_id
    return set(found) if isinstance(found, list) else {found} - {None}


def _generators(
    decoding: Decoding, first_row: int, count: int, device: torch.device
) -> list[torch.Generator | None]:
    if decoding.temperature == 0:
        return [None] * count
    made: list[torch.Generator | None] = []
    for row in range(first_row, first_row + count):
        generator = torch.Generator(device=device)
        generator.manual_seed((decoding.seed * 1_000_003 + row) % 2**63)
        made.append(generator)
    return made


def _choose(
    logits: torch.Tensor, temperature: float, generators: list[torch.Generator | None]
) -> torch.Tensor:
    if temperature == 0:
        return logits.max(dim=-1).indices  # five times faster than argmax in bfloat16
    chances = torch.softmax(logits.float() / temperature, dim=-1)
    drawn = [
        torch.multinomial(row, 1, generator=generator)
        for row, generator in zip(chances, generators, strict=True)
    ]
    return torch.cat(drawn)


def _ban_repeats(logits: torch.Tensor, texts: list[list[int]], size: int) -> None:
    if size < 2:
        return
    for row, text in enumerate(texts):
        if len(text) < size:
            continue
        tail = text[-(size - 1) :]
        for start in range(len(text) - size + 1):
            if text[start : start + size - 1] == tail:
                logits[row, text[start + size - 1]] = -torch.inf


def _penalise(
    logits: torch.Tensor, texts: list[list[int]], penalty: float, words: torch.Tensor | None
) -> None:
    for row, text in enumerate(texts):
        ids = torch.tensor(sorted(set(text)), dtype=torch.long, device=logits.device)
        if words is not None:
            ids = ids[words[ids]]
        values = logits[row, ids]
        logits[row, ids] = torch.where(values > 0, values / penalty, values * penalty)
