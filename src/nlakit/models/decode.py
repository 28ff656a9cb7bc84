"""Cached decoding: one prefill, then one token a step; texts join and leave between steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from nlakit.models.head import head_of
from nlakit.models.precision import check_finite

COLDEST = 1e-6  # a temperature; logits divided by less leave the range of float32
FEW = 8  # rows whose chances are worked out together
BLOCK = 512  # tokens whose chances are added up together when one is drawn
LOG2_E = math.log2(math.e)


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


@dataclass(eq=False)
class Text:
    """A text that is being written. `ids` are its tokens so far, without the closing tag; to set
    `ended` takes it out before the next step. row: with `decoding.seed`, the key of its draws.
    written: all its tokens, with the tag or the end-of-sequence token. log_p: of each of these in
    nats, where they are drawn."""

    decoding: Decoding
    row: int = 0
    ids: list[int] = field(default_factory=list)
    ended: bool = False
    written: list[int] = field(default_factory=list)
    log_p: list[float] = field(default_factory=list)


class Running:
    """Texts that are written together, a token a step; more may join between two steps.

    Rows that join later stand beside longer ones: their keys and values are padded on the left,
    masked, and their positions counted from their own start. Without such rows nothing is padded.
    words: which tokens `(v,)` the repetition penalty is for; all of them unless given.
    """

    def __init__(
        self, model: Any, decoder: Any, close: list[int], words: torch.Tensor | None = None
    ) -> None:
        self.texts: list[Text] = []
        self._decoder, self._head, self._close, self._words = decoder, head_of(model), close, words
        self._ends = end_ids(model)
        self._takes_positions = "position_ids" in signature(decoder.forward).parameters
        self._generators: dict[Text, np.random.Generator] = {}
        self._cache: Any = None
        self._next: Any = None  # the tokens `(b, 1)` that were chosen last
        self._pads: list[int] = []

    def joinable(self, length: int) -> bool:
        """Whether texts that grow to `length` tokens, prompt included, may join those that run:
        not where the decoder's state is other than keys and values of all tokens so far."""
        layers = self._cache.layers if self.texts else []
        return not self.texts or (
            self._takes_positions and all(_keeps_all(layer, length) for layer in layers)
        )

    def join(self, prompt: torch.Tensor, texts: Sequence[Text]) -> list[Text]:
        """Begin texts behind prompts `(b, t)` of one length, equally many behind each, prompt after
        prompt: these share its keys and values. Returns the texts that end at once.

        Raises DataError if outputs at the prompt are not finite.
        """
        cache = DynamicCache(config=self._decoder.config)
        hidden = self._decoder(input_ids=prompt, past_key_values=cache, use_cache=True)[0][:, -1]
        # What overflows does so from the start.
        check_finite(hidden, "the verbalizer's outputs", str(hidden.dtype).split(".")[-1])
        if (each := len(texts) // len(prompt)) > 1:
            rows: Any = torch.arange(len(prompt), device=prompt.device).repeat_interleave(each)
            cache.reorder_cache(rows)
            hidden = hidden[rows]
        for text in texts:
            if text.decoding.temperature:
                self._generators[text] = _generator(text)
        tokens = self._choose(hidden, texts)
        if self.texts:
            mine, theirs = self._cache.get_seq_length(), cache.get_seq_length()
            _merge(self._cache, cache, mine, theirs)
            width = max(mine, theirs)
            self._pads = [pad + width - mine for pad in self._pads]
            self._pads += [width - theirs] * len(texts)
            tokens = torch.cat([self._next, tokens])
        else:
            self._cache, self._pads = cache, [0] * len(texts)
        self._next = tokens
        self.texts += texts
        return self._leave()

    def step(self) -> list[Text]:
        """Write a token of each text; returns those that ended."""
        gone = self._leave()
        if not self.texts:
            return gone
        placed = self._placed() if any(self._pads) else {}
        hidden = self._decoder(
            input_ids=self._next, past_key_values=self._cache, use_cache=True, **placed
        )[0][:, -1]
        self._next = self._choose(hidden, self.texts)
        return gone + self._leave()

    def _placed(self) -> dict[str, torch.Tensor]:
        device, width = self._next.device, self._cache.get_seq_length() + 1
        pads = torch.tensor(self._pads, device=device)[:, None]
        mask = (torch.arange(width, device=device)[None] >= pads).long()
        return {"attention_mask": mask, "position_ids": width - 1 - pads}

    def _choose(self, hidden: torch.Tensor, texts: Sequence[Text]) -> torch.Tensor:
        """The next token of each text `(b, 1)`; also writes it down."""
        logits = self._head.logits(hidden)
        for row, text in zip(logits, texts, strict=True):
            _ban_repeats(row, text.ids, text.decoding.no_repeat_ngram)
            _penalise(row, text.ids, text.decoding.repetition_penalty, self._words)
        drawn = [at for at, text in enumerate(texts) if text in self._generators]
        if len(drawn) < len(texts):
            tokens = logits.max(dim=-1).indices  # five times faster than argmax in bfloat16
        else:
            tokens = torch.zeros(len(texts), dtype=torch.long, device=logits.device)
        if drawn:
            self._draw(logits, texts, drawn, tokens)
        for text, token in zip(texts, tokens.tolist(), strict=True):
            self._append(text, token)
        return tokens[:, None]

    def _draw(
        self,
        logits: torch.Tensor,
        texts: Sequence[Text],
        drawn: Sequence[int],
        tokens: torch.Tensor,
    ) -> None:
        """Draw the tokens of some texts, and write down how likely they were."""
        some = [texts[at] for at in drawn]
        places = torch.tensor(drawn, device=logits.device)
        numbers = [self._generators[text].random() for text in some]
        found, log_p = draw(
            logits if len(drawn) == len(texts) else logits[places],
            [text.decoding.temperature for text in some],
            numbers,
        )
        tokens[places] = found
        for text, value in zip(some, log_p.tolist(), strict=True):
            text.log_p.append(value)

    def _append(self, text: Text, token: int) -> None:
        """A text ends at the closing tag's ids, at an end-of-sequence token, or at its limit."""
        text.written.append(token)
        if token in self._ends:
            text.ended = True
            return
        text.ids.append(token)
        if self._close and text.ids[-len(self._close) :] == self._close:
            del text.ids[-len(self._close) :]
            text.ended = True
        text.ended |= len(text.ids) >= text.decoding.max_new_tokens

    def _leave(self) -> list[Text]:
        """Take out the texts that have ended, and the padding that no other needs."""
        gone = [text for text in self.texts if text.ended]
        if not gone:
            return []
        keep = [at for at, text in enumerate(self.texts) if not text.ended]
        for text in gone:
            self._generators.pop(text, None)
        self.texts = [self.texts[at] for at in keep]
        if not keep:
            self._cache = self._next = None
            return gone
        kept: Any = torch.tensor(keep, device=self._next.device)
        # Some layers have the one way to pick rows, all have the other.
        self._cache.reorder_cache(kept)
        self._next, self._pads = self._next[kept], [self._pads[at] for at in keep]
        if spare := min(self._pads):
            _trim(self._cache, spare)
            self._pads = [pad - spare for pad in self._pads]
        return gone


def decode(
    model: Any,
    decoder: Any,
    prompt: torch.Tensor,
    close: list[int],
    decoding: Decoding,
    first_row: int = 0,
    words: torch.Tensor | None = None,
) -> list[list[int]]:
    """Token ids a row, without the closing tag, for equal prompts `(b, t)`; as `Running` writes
    them. Raises DataError if outputs at the prompt are not finite."""
    running = Running(model, decoder, close, words)
    texts = [Text(decoding, first_row + at) for at in range(len(prompt))]
    running.join(prompt, texts)
    while running.texts:
        running.step()
    return [text.ids for text in texts]


def _keeps_all(layer: Any, length: int) -> bool:
    """Whether a layer's cache holds the keys and values of `length` tokens and nothing else."""
    if type(layer) is DynamicSlidingWindowLayer:
        return length < layer.sliding_window
    return type(layer) in (DynamicLayer, DummyLayer)  # a dummy reads another layer's


def _merge(cache: Any, other: Any, width: int, other_width: int) -> None:
    """Put the rows of `other` below those of `cache`, the shorter padded on the left."""
    longest = max(width, other_width)
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        if mine.keys is None:
            continue
        for name in ("keys", "values"):
            rows = [
                pad(getattr(layer, name), (0, 0, longest - length, 0))
                for layer, length in ((mine, width), (theirs, other_width))
            ]
            setattr(mine, name, torch.cat(rows))
        if mine.is_sliding:
            mine.cumulative_length = longest


def _trim(cache: Any, count: int) -> None:
    """Take `count` columns off the left."""
    for layer in cache.layers:
        if layer.keys is None:
            continue
        layer.keys, layer.values = layer.keys[:, :, count:], layer.values[:, :, count:]
        if layer.is_sliding:
            layer.cumulative_length -= count


def end_ids(model: Any) -> set[int]:
    """The tokens that end a text of the model."""
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = model.config.eos_token_id
    return set(found) if isinstance(found, list) else {found} - {None}


def draw(
    logits: torch.Tensor, temperatures: Sequence[float], numbers: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A token a row of logits `(b, v)` at temperatures above 0, and its log p in nats, both `(b,)`:
    the first at which the chances, added up in order, exceed a number drawn from [0, 1).

    Chances are added up by blocks first, so that the vocabulary is walked once, a few rows at a
    time: what lies in the cache is walked fast.
    """
    parts = [
        _draw(logits[start : start + FEW], temperatures[start : start + FEW], numbers[start:])
        for start in range(0, len(logits), FEW)
    ]
    tokens, log_p = zip(*parts, strict=True)
    return torch.cat(tokens), torch.cat(log_p)


def _draw(
    logits: torch.Tensor, temperatures: Sequence[float], numbers: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    device, (count, size) = logits.device, logits.shape
    heat = torch.tensor([max(t, COLDEST) for t in temperatures], device=device)[:, None]
    top = logits.amax(dim=-1, keepdim=True).float()
    weights = logits.to(torch.float32, copy=True).sub_(top).mul_(LOG2_E / heat).exp2_()
    if rest := -size % BLOCK:
        weights = pad(weights, (0, rest))
    weights = weights.view(count, -1, BLOCK)
    sums = weights.sum(dim=-1).double().cumsum(dim=-1)
    whole = sums[:, -1:]
    goal = torch.tensor(numbers[:count], dtype=torch.float64, device=device)[:, None] * whole
    block, before, _ = _found(sums, goal)
    inside = weights[torch.arange(count, device=device), block[:, 0]].double().cumsum(dim=-1)
    place, _, own = _found(inside, goal - before)
    return (block * BLOCK + place)[:, 0], (own / whole).log()[:, 0].float()


def _found(
    sums: torch.Tensor, goal: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first place `(b, 1)` whose running sum `(b, n)` exceeds `goal` `(b, 1)`, the sum before
    it and what it adds itself."""
    goal = torch.minimum(goal, sums[:, -1:] * (1 - 1e-12))
    place = torch.searchsorted(sums, goal, right=True)
    before = torch.where(place > 0, sums.gather(1, (place - 1).clamp_min(0)), 0.0)
    return place, before, sums.gather(1, place) - before


def _generator(text: Text) -> np.random.Generator:
    return np.random.default_rng([text.decoding.seed % 2**63, text.row % 2**63])


def _ban_repeats(logits: torch.Tensor, said: list[int], size: int) -> None:
    """Forbid, in one text's logits `(v,)`, what would repeat `size` tokens that it has said."""
    if size < 2 or len(said) < size:
        return
    tail = said[-(size - 1) :]
    for start in range(len(said) - size + 1):
        if said[start : start + size - 1] == tail:
            logits[said[start + size - 1]] = -torch.inf


def _penalise(
    logits: torch.Tensor, said: list[int], penalty: float, words: torch.Tensor | None
) -> None:
    if penalty == 1 or not said:
        return
    ids = torch.tensor(sorted(set(said)), dtype=torch.long, device=logits.device)
    if words is not None:
        ids = ids[words[ids]]
    values = logits[ids]
    logits[ids] = torch.where(values > 0, values / penalty, values * penalty)
