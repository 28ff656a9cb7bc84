"""Readings by the untrained subject: adapters off, and on again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlakit.evaluate.parts.readouts import continuations, holds_subject, logit_lens, patchscopes
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, D, build_contract
from tests.evaluate.av_fakes import stir

FAMILIES = ("gemma2", "gemma3", "gemma3n", "gpt2", "llama", "phi")


def build(toy_subject: Any, family: str = "gemma3", stirred: bool = True) -> tuple[Any, Verbalizer]:
    subject = toy_subject(family)
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    if stirred:
        stir(av)
    return subject, av


def test_patchscopes_is_the_av_before_training(toy_subject: Any, vectors: np.ndarray) -> None:
    _, av = build(toy_subject)
    _, fresh = build(toy_subject, stirred=False)
    trained = av.explain(vectors)
    read = patchscopes(av, vectors, batch=8, tokens=24)
    assert read == fresh.explain(vectors)
    assert read != trained
    assert av.explain(vectors) == trained  # the adapters are on again


@pytest.mark.parametrize("family", FAMILIES)
def test_logit_lens_is_norm_and_head_of_the_subject(
    toy_subject: Any, vectors: np.ndarray, family: str
) -> None:
    subject, av = build(toy_subject, family)
    model = subject.model
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        whole = model(input_ids=ids, output_hidden_states=True)
        # What goes into the final norm of the full model gives the model's own next words.
        seen: list[torch.Tensor] = []
        decoder = model.model if hasattr(model, "model") else model.transformer
        name = next(n for n in ("norm", "ln_f", "final_layernorm") if hasattr(decoder, n))
        hook = getattr(decoder, name).register_forward_pre_hook(lambda m, a: seen.append(a[0]))
        model(input_ids=ids)
        hook.remove()
    (text,) = logit_lens(av, seen[0][0, -1:].numpy(), count=3)
    order = whole.logits[0, -1].argsort(descending=True).tolist()
    spelled = [subject.tokenizer.decode([token], skip_special_tokens=True) for token in order]
    letters = dict.fromkeys(word.strip().lower() for word in spelled if word.strip().isalpha())
    assert text.lower().split(", ") == list(letters)[:3]


@pytest.mark.parametrize("family", ["gemma3", "gpt2"])
def test_continuation_is_the_subjects_own(toy_subject: Any, family: str) -> None:
    subject, av = build(toy_subject, family)
    sources = ["The whale rises.", "A tax is due at", "x" * 37]
    made = continuations(av, sources, batch=2, tokens=6)
    for source, text in zip(sources, made, strict=True):
        kept = source[len(source) % 16 :] if len(source) > 16 else source
        ids = subject.tokenizer(kept, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            whole = subject.model.generate(input_ids=ids, max_new_tokens=6, do_sample=False)
        expected = subject.tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
        assert text == expected.strip()


def test_an_empty_source_does_not_crash(toy_subject: Any) -> None:
    _, av = build(toy_subject, "gpt2")
    assert len(continuations(av, ["", "a"], batch=2, tokens=2)) == 2


def test_an_av_with_weights_of_its_own_holds_no_subject(toy_subject: Any) -> None:
    subject, av = build(toy_subject)
    own = Verbalizer(subject, build_contract(subject), np.zeros(D), None, 0)
    assert holds_subject(av) and not holds_subject(own)
