"""Decoding: the same texts as `generate()`, ends, repeats, sampling."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from nlakit.models.decode import Decoding, Running, Text, _penalise, decode
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import FAMILIES, SMALL_LORA, D, build_contract


def build_av(toy_subject: Any, family: str = "gemma3") -> Verbalizer:
    subject = toy_subject(family)
    return Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()


def draw(av: Verbalizer, vectors: np.ndarray, close: list[int], decoding: Decoding) -> Any:
    prompt = torch.tensor([av.prompt] * len(vectors))
    with torch.no_grad(), av.injecting(av.scaled(vectors)):
        return decode(av.model, av.decoder, prompt, close, decoding)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate(toy_subject: Any, vectors: np.ndarray, family: str) -> None:
    av = build_av(toy_subject, family)
    prompt = torch.tensor([av.prompt] * len(vectors))
    with torch.no_grad(), av.injecting(av.scaled(vectors)):
        theirs = av.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20,
            do_sample=False,
        )  # fmt: skip
    ours = draw(av, vectors, [], Decoding(20))
    for row, tokens in zip(theirs[:, prompt.shape[1] :].tolist(), ours, strict=True):
        assert tokens == row[: len(tokens)]


def test_rows_that_finish_leave_the_others_alone(toy_subject: Any, vectors: np.ndarray) -> None:
    """The closing tag is whatever the first row says at its third step."""
    av = build_av(toy_subject)
    free = draw(av, vectors, [], Decoding(12))
    close = free[0][2:4]
    for row, tokens in zip(draw(av, vectors, close, Decoding(12)), free, strict=True):
        ends = [i for i in range(len(tokens) - 1) if tokens[i : i + 2] == close]
        assert row == (tokens[: ends[0]] if ends else tokens)


def test_the_coldest_text_is_the_greedy_one(toy_subject: Any, vectors: np.ndarray) -> None:
    """Logits over next to nothing are infinite, and a draw among those would end every text."""
    av = build_av(toy_subject)
    greedy = draw(av, vectors, [], Decoding(8))
    for temperature in (1e-9, 1e-40, 1e-300):
        assert draw(av, vectors, [], Decoding(8, temperature=temperature)) == greedy


def test_no_ngram_twice(toy_subject: Any, vectors: np.ndarray) -> None:
    av = build_av(toy_subject)
    for row in draw(av, vectors, [], Decoding(40, no_repeat_ngram=2)):
        pairs = list(pairwise(row))
        assert len(pairs) == len(set(pairs))


def test_a_penalty_is_for_what_was_said_and_for_words_alone() -> None:
    logits = torch.tensor([2.0, -1.0, 3.0, 4.0])
    words = torch.tensor([True, True, True, False])
    _penalise(logits, [], 2.0, words)
    assert logits.tolist() == [2.0, -1.0, 3.0, 4.0]
    _penalise(logits, [0, 1, 3, 0], 2.0, words)
    assert logits.tolist() == [1.0, -2.0, 3.0, 4.0]


def test_a_strong_penalty_says_no_word_twice(toy_subject: Any, vectors: np.ndarray) -> None:
    """In the toy's vocabulary each letter is a token, and its marks may come again."""
    av = build_av(toy_subject)
    assert av.words.sum() > 100 and not av.words[av.contract.tokens.injection_token_id + 1 :].any()
    prompt = torch.tensor([av.prompt] * len(vectors))
    with torch.no_grad(), av.injecting(av.scaled(vectors)):
        strong = Decoding(30, repetition_penalty=50.0)
        found = decode(av.model, av.decoder, prompt, [], strong, words=av.words)
    for row in found:
        said = [token for token in row if av.words[token]]
        assert len(said) == len(set(said))


def test_samples_are_keyed_on_seed_and_row(toy_subject: Any, vectors: np.ndarray) -> None:
    av = build_av(toy_subject)
    warm = Decoding(8, temperature=1.0, seed=5)
    injected = av.scaled(vectors)
    whole = av.write(injected, 0, 8, warm)
    assert whole == av.write(injected, 0, 3, warm)  # whatever the batch size
    assert whole != av.write(injected, 0, 8, Decoding(8, temperature=1.0, seed=6))
    same = av.write(injected[:1].repeat(8, 1), 0, 8, warm)
    assert len(set(same)) > 1


def test_no_injection_is_one_text(toy_subject: Any) -> None:
    av = build_av(toy_subject)
    texts = av.explain(None, count=3)
    assert len(texts) == 3
    assert len(set(texts)) == 1


def join(running: Running, av: Verbalizer, vectors: np.ndarray, texts: list[Text]) -> None:
    with torch.no_grad(), av.injecting(av.scaled(vectors)):
        running.join(torch.tensor([av.prompt] * len(vectors)), texts)


def finish(running: Running) -> None:
    with torch.no_grad():
        while running.texts:
            running.step()


def build_wide_av(toy_subject: Any, family: str) -> Verbalizer:
    """An AV whose windows are wider than the texts."""
    av = build_av(toy_subject, family)
    if getattr(av.decoder.config, "sliding_window", None):
        av.decoder.config.sliding_window = 128
    return av


def test_none_joins_texts_that_outgrow_a_window(toy_subject: Any, vectors: np.ndarray) -> None:
    av = build_av(toy_subject)
    running = Running(av.model, av.decoder, [])
    assert running.joinable(10**6)
    join(running, av, vectors[:1], [Text(Decoding(4))])
    window = av.decoder.config.sliding_window
    assert running.joinable(window - 1) and not running.joinable(window)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_that_join_later_are_those_of_their_own(
    toy_subject: Any, vectors: np.ndarray, family: str
) -> None:
    """Rows of three lengths run together, some leave, and each is as if it ran alone."""
    av = build_wide_av(toy_subject, family)
    alone = draw(av, vectors, [], Decoding(12))
    texts = [Text(Decoding(12), row) for row in range(len(vectors))]
    running = Running(av.model, av.decoder, [])
    size = len(vectors) // 3
    for start in range(0, len(vectors), size):
        assert running.joinable(len(av.prompt) + 12)
        join(running, av, vectors[start : start + size], texts[start : start + size])
        with torch.no_grad():
            for _ in range(3):
                running.step()
    finish(running)
    assert [text.ids for text in texts] == alone


def test_a_text_that_is_taken_out_costs_no_further_step(
    toy_subject: Any, vectors: np.ndarray
) -> None:
    av = build_av(toy_subject)
    texts = [Text(Decoding(12), row) for row in range(2)]
    running = Running(av.model, av.decoder, [])
    join(running, av, vectors[:2], texts)
    texts[0].ended = True
    with torch.no_grad():
        gone = running.step()
    assert gone == [texts[0]] and running.texts == [texts[1]]
    assert (len(texts[0].ids), len(texts[1].ids)) == (1, 2)
    finish(running)
    assert texts[1].ids == draw(av, vectors[1:2], [], Decoding(12))[0]


def test_samples_are_their_own_whoever_joins(toy_subject: Any, vectors: np.ndarray) -> None:
    av = build_wide_av(toy_subject, "gemma3")
    warm = Decoding(10, temperature=1.0, seed=3)
    alone = draw(av, vectors[:1], [], warm)[0]
    texts = [Text(Decoding(12), 1), Text(warm, 0)]
    running = Running(av.model, av.decoder, [])
    join(running, av, vectors[1:2], texts[:1])
    with torch.no_grad():
        running.step()
    join(running, av, vectors[:1], texts[1:])
    finish(running)
    assert texts[1].ids == alone
