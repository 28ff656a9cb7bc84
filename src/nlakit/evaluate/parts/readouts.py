"""What the subject itself says of an activation, with the AV's adapters off: no training at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from nlakit.core.metrics import unit
from nlakit.core.prompts import encode
from nlakit.models.decode import Decoding, decode
from nlakit.models.families import NORM_NAMES
from nlakit.models.head import head_of
from nlakit.models.verbalizer import Verbalizer

CUT = 16  # a source's length is cut to a multiple of this
LENS_ROWS = 16  # rows whose logits over the whole vocabulary are held at once


def holds_subject(av: Verbalizer) -> bool:
    """Whether the untrained subject lies under the AV: it does under adapters."""
    return isinstance(av.model, PeftModel)


@contextmanager
def untrained(av: Verbalizer) -> Iterator[None]:
    """Inside the body the AV's model is the subject: its adapters are off."""
    with torch.no_grad(), av.model.disable_adapter():
        yield


def logit_lens(av: Verbalizer, vectors: NDArray[Any], count: int = 10) -> list[str]:
    """The `count` likeliest words a row after the subject's final norm and head on raw
    activations `(n, d)`, as a list: "one, two, three".

    Tokens that are no word of letters, and the same word in another case, are passed over. Logit
    lens: nostalgebraist 2020.
    """
    norm: Any = next(getattr(av.decoder, name) for name in NORM_NAMES if hasattr(av.decoder, name))
    head = head_of(av.model)
    # Norms divide by the size, which may be too large for float16: the direction is enough.
    units = torch.as_tensor(unit(vectors) * np.shape(vectors)[1] ** 0.5, device=av.device)
    texts: list[str] = []
    with untrained(av):
        for some in units.to(head.weight.dtype).split(LENS_ROWS):
            best = head.logits(norm(some)).topk(min(50 * count, len(head.weight))).indices
            texts += [", ".join(_words(av.tokenizer, row, count)) for row in best.tolist()]
    return texts


def _words(tokenizer: Any, tokens: Sequence[int], count: int) -> list[str]:
    found: dict[str, str] = {}
    for token in tokens:
        word = tokenizer.decode([token], skip_special_tokens=True).strip()
        if word.isalpha():
            found.setdefault(word.lower(), word)
        if len(found) == count:
            break
    return list(found.values())


def continuations(
    av: Verbalizer, sources: Sequence[str], batch: int, tokens: int = 20
) -> list[str]:
    """How the subject itself goes on after each source, greedily.

    Sources of equal length share a batch; to make lengths equal, up to 15 of a source's first
    tokens are left out, and more where the subject has no positions for all of them.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    prompts = []
    front = encode(av.tokenizer, "", special=True)
    parse = av.contract.nlakit.special_tokens == "parse"
    room = av.positions - len(front) - tokens if av.positions else None
    for row, source in enumerate(sources):
        ids = encode(av.tokenizer, source, special=False, parse=parse)
        ids = ids[-room:] if room else ids
        ids = ids[len(ids) % CUT :] if len(ids) > CUT else ids
        prompts.append([*front, *ids])
        groups[len(prompts[-1])].append(row)
    made = [""] * len(sources)
    groups.pop(0, None)  # an empty source under a tokenizer that puts nothing in front
    with untrained(av):
        for rows in groups.values():
            for start in range(0, len(rows), batch):
                picked = rows[start : start + batch]
                ids = torch.tensor([prompts[row] for row in picked], device=av.device)
                found = decode(av.model, av.decoder, ids, [], Decoding(tokens))
                for row, text in zip(picked, found, strict=True):
                    made[row] = av.tokenizer.decode(text, skip_special_tokens=True).strip()
    return made


def patchscopes(av: Verbalizer, vectors: NDArray[Any], batch: int, tokens: int = 30) -> list[str]:
    """What the subject writes of raw activations `(n, d)` in the AV's place: same prompt, marker
    and scaling, no training. Patchscopes: Ghandeharioun et al. 2024 (arXiv 2401.06102)."""
    with untrained(av):
        return av.write(av.scaled(vectors), len(vectors), batch, Decoding(tokens))
