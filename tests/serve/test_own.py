"""Routes that only nlakit has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nlakit import NLA
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from tests.conftest import D
from tests.serve.conftest import Client

STEER: dict[str, Any] = {
    "text": "The whale sings.", "original": "about a whale", "edit": {"whale": "river"},
    "alphas": [0.5], "random": 3, "new_tokens": 4, "window": 2,
}  # fmt: skip


def test_health_names_the_pairs(client: Client) -> None:
    found = client.get("/health").json()
    assert (found["status"], found["pairs"]) == ("ok", ["toy"])
    assert found["seconds"] >= 0


def test_descriptions_are_directions(client: Client, toy_nla: NLA, vectors: np.ndarray) -> None:
    texts = ["a whale", "a river"]
    asked: dict[str, Any] = {"descriptions": texts}
    bare = client.post("/api/nla/reconstruct", asked).json()["results"]
    made = toy_nla.reconstruct(texts)
    for record, row in zip(bare, made, strict=True):
        np.testing.assert_allclose(record["reconstruction"], row / np.linalg.norm(row), atol=1e-5)
        assert record["centred_cosine"] is None
    asked["activation"] = vectors[0].tolist()
    scored = client.post("/api/nla/reconstruct", asked).json()["results"]
    own = toy_nla.score([*texts, ""], vectors[[0, 0, 0]])
    for record, score in zip(scored, own, strict=False):
        assert record["centred_cosine"] == pytest.approx(score.centred_cosine, abs=1e-5)
        assert record["fve"] == pytest.approx(score.fve, abs=1e-5)
        assert record["floor"]["centred_cosine"] == pytest.approx(own[2].centred_cosine, abs=1e-5)
        assert record["floor"]["fve"] == pytest.approx(own[2].fve, abs=1e-5)


def test_an_edit_pushes_the_subject(client: Client, toy_nla: NLA) -> None:
    found = client.post("/api/nla/steer", STEER).json()
    own = toy_nla.steer(
        STEER["text"], STEER["original"], STEER["edit"], alphas=[0.5], random=3, new_tokens=4,
        window=2,
    )  # fmt: skip
    assert (found["edited"], found["words"], found["at"]) == ("about a river", ["river"], [16])
    [size], [one] = found["sizes"], own.sizes
    assert size["continuation"] == one.continuation
    assert size["log_p"] == pytest.approx(one.log_p, abs=1e-4)
    assert size["gain"] == pytest.approx(one.gain, abs=1e-4)
    assert len(size["random_log_p"]) == 3
    whole = {**STEER, "edit": {}, "edited": "about a river"}
    assert client.post("/api/nla/steer", whole).json()["edited"] == "about a river"


@pytest.mark.parametrize(
    "wrong",
    [
        {"edit": {}},
        {"edit": {"ship": "river"}},
        {"edited": "about a whale"},
        {"positions": [99]},
        {"positions": []},
        {"positions": "first"},
        {"alphas": []},
        {"random": 1000},
        {"new_tokens": 65},
        {"text": "a" * 511},
    ],
    ids=str,
)
def test_an_edit_that_is_none_is_refused(client: Client, wrong: dict[str, Any]) -> None:
    answer = client.post("/api/nla/steer", {**STEER, **wrong})
    assert answer.status_code == 422, answer.text


def test_half_a_pair_says_which_half_is_missing(toy_nla: NLA) -> None:
    one = [1.0] * D
    for half, missing in (("av", "reconstructor"), ("ar", "verbalizer")):
        parts = {"av": None, "ar": None, half: getattr(toy_nla, half)}
        engine = Engine(NLA(toy_nla.subject, parts["av"], parts["ar"], toy_nla.mean))
        try:
            client = Client(create_app({"half": engine}))
            described = client.post("/describe", {"activations": [one], "temperature": 0})
            scored = client.post("/score", {"description": "x", "activation": one})
            refused, done = (scored, described) if half == "av" else (described, scored)
            assert (done.status_code, refused.status_code) == (200, 503)
            assert refused.json()["error"] == f"this pair has no {missing}"
            if half == "av":
                [record] = described.json()["results"]
                assert (record["mse"], record["floor"]) == (None, None)
        finally:
            engine.close()
