"""The verdict by its rule, with the failures it must name planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit.core.metrics import baseline, centred_cosine, fve_rows, mean_unit
from nlakit.errors import DataError
from nlakit.evaluate.verdict import Verdict, judge

N, D = 96, 24


def build_rows(seed: int = 0) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Raw vectors `(96, 24)` of 48 documents with a strong common mean, and ū."""
    rng = np.random.default_rng(seed)
    documents = np.repeat(rng.standard_normal((N // 2, D)), 2, axis=0)
    real = 2.0 + documents + rng.standard_normal((N, D))
    return real, [f"d{i // 2}" for i in range(N)], mean_unit(real)


def noisy(real: np.ndarray, noise: float, seed: int = 1) -> np.ndarray:
    return real + noise * np.random.default_rng(seed).standard_normal(real.shape)


def build_verdict(made: np.ndarray, **overrides: Any) -> Verdict:
    """Judge reconstructions `(96, 24)` of the rows; the AR answers floors with ū and noise."""
    real, documents, mean = build_rows()
    blind = np.tile(mean, (N, 1))
    rolled = np.roll(made, 4, axis=0)
    swapped = made.reshape(-1, 2, D)[:, ::-1].reshape(N, D)
    centred = {
        "real": centred_cosine(real, made, mean),
        "mean": centred_cosine(real, blind, mean),
        "empty": centred_cosine(real, noisy(blind, 0.05), mean),
        "gibberish": centred_cosine(real, noisy(blind, 0.05, 2), mean),
        "other_row": centred_cosine(real, rolled, mean),
        "same_document": centred_cosine(real, swapped, mean),
    }
    given: dict[str, Any] = {
        "texts": [f"text about thing number {i} and what follows it" for i in range(N)],
        "centred": centred,
        "fve_real": fve_rows(real, made, baseline(real, mean)),
        "documents": documents,
        "permutations": 200,
    }
    return judge(**(given | overrides))


def test_a_reconstructor_that_reads_is_content_sensitive() -> None:
    found = build_verdict(noisy(build_rows()[0], 0.5))
    assert found.word == "content-sensitive"
    assert found.evidence["content_gain"]["low"] > 0.10


def test_planted_mode_1_mean_vector_ar_is_content_blind() -> None:
    """Its raw cosine is high; its gain over the floors is nothing."""
    _, _, mean = build_rows()
    found = build_verdict(np.tile(mean, (N, 1)))
    assert found.word == "content-blind"
    assert "content gain" in found.reasons[0]


def test_planted_mode_1_ar_that_answers_all_texts_alike() -> None:
    """0.429 on real text, 0.405 on the empty string: a constant that is not the mean."""
    real, _, mean = build_rows()
    constant = mean + 0.2 * np.random.default_rng(5).standard_normal(D)
    made = np.tile(constant, (N, 1)) + 0.002 * (real - real.mean(0))
    rows, documents, _ = build_rows()
    blind = centred_cosine(rows, np.tile(constant, (N, 1)), mean)
    score = centred_cosine(rows, made, mean)
    texts = [f"unique text {i}" for i in range(N)]
    fve = fve_rows(rows, made, baseline(rows, mean))
    assert 0 < score.mean() - blind.mean() < 0.05
    found = judge(texts, {"real": score, "empty": blind}, fve, documents)
    assert found.word == "content-blind"


def test_planted_mode_3_constant_av_is_collapsed() -> None:
    found = build_verdict(noisy(build_rows()[0], 0.5), texts=["The text is about things."] * N)
    assert found.word == "collapsed"
    assert len(found.reasons) == 2  # few unique texts and one opening


def test_planted_mode_3_one_opening_with_unique_ends() -> None:
    opening = "The activation seems to represent a passage in which the writer carefully describes "
    texts = [opening + f"thing {i}" for i in range(N)]
    assert len(opening) >= 80
    found = build_verdict(noisy(build_rows()[0], 0.5), texts=texts)
    assert found.word == "collapsed"
    assert found.reasons == ["one opening on over half of the rows"]


def test_planted_mode_7_empty_texts_collapse() -> None:
    texts = ["" if i % 4 == 0 else f"text {i}" for i in range(N)]
    found = build_verdict(noisy(build_rows()[0], 0.5), texts=texts)
    assert found.word == "collapsed"
    assert "empty" in found.reasons[0]


def test_topic_alone_is_weak() -> None:
    """Texts of the document, not of the position: as good on the document's other row."""
    real, _, _ = build_rows()
    made = np.repeat(real.reshape(-1, 2, D).mean(1), 2, axis=0)
    found = build_verdict(made)
    assert found.word == "weak"
    assert any("same document" in reason for reason in found.reasons)


def test_negative_fve_is_weak_at_best() -> None:
    found = build_verdict(noisy(build_rows()[0], 0.5), fve_real=np.full(N, -0.07))
    assert found.word == "weak"
    assert any("FVE" in reason for reason in found.reasons)


def test_a_verdict_needs_a_floor() -> None:
    with pytest.raises(DataError, match="no floor"):
        judge(["a"], {"real": np.ones(1)}, np.ones(1), ["d"])


def test_planted_mode_11_anisotropy_does_not_pass_for_content() -> None:
    """With 82% of the energy in the mean, a blind AR has cosine 0.9 and is still blind."""
    rng = np.random.default_rng(3)
    real = rng.standard_normal((N, D)) + np.sqrt(0.82 / 0.18)
    mean = mean_unit(real)
    made = noisy(np.tile(mean, (N, 1)), 0.01)
    documents = [f"d{i // 2}" for i in range(N)]
    score = centred_cosine(real, made, mean)
    cosines = (real * made).sum(1) / np.linalg.norm(real, axis=1) / np.linalg.norm(made, axis=1)
    assert cosines.mean() > 0.85
    found = judge(
        [f"text {i}" for i in range(N)],
        {"real": score, "mean": np.zeros(N)},
        fve_rows(real, made, baseline(real, mean)),
        documents,
    )
    assert found.word == "content-blind"
