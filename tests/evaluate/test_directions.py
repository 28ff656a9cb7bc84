"""Directions in words: what enters the AV, and what a score of a direction is."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nlakit import NLA
from nlakit.errors import ContractError
from nlakit.evaluate import directions
from nlakit.evaluate.directions import explain_directions, summary
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer
from tests.commands import call
from tests.conftest import SMALL_LORA, D, build_contract
from tests.pairs import save_pair

MEAN = np.full(D, 0.1)


def pair_of(subject: Any, **record: Any) -> NLA:
    contract = build_contract(subject, **{"max_new_tokens": 6, **record})
    av = Verbalizer(subject, contract, MEAN, SMALL_LORA, 0).eval()
    return NLA(subject, av, Reconstructor(subject, contract, SMALL_LORA, 0).eval(), MEAN)


def test_only_the_direction_enters_and_no_mean_is_taken_off(
    toy_subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nla, seen = pair_of(toy_subject("gemma3")), []
    assert nla.av is not None and nla.contract.scaling.centred

    def write(injected: torch.Tensor, count: int, *rest: Any) -> list[str]:
        seen.append(injected.numpy())
        return [f"text {row}" for row in range(count)]

    monkeypatch.setattr(nla.av, "write", write)
    rows = np.eye(D, dtype=np.float32)[:3] * np.array([[2.0], [0.0], [-5.0]], dtype=np.float32)
    found = explain_directions(nla, rows, [7, 0, 9], random=2)
    scale = nla.contract.scaling.scale
    assert scale is not None
    np.testing.assert_allclose(seen[0][:2], scale * np.stack([np.eye(D)[0], -np.eye(D)[2]]))
    np.testing.assert_allclose(np.linalg.norm(seen[0], axis=1), scale, rtol=1e-5)
    assert [(one["direction"], one["feature"], one["explanation"]) for one in found] == [
        ("feature 7", 7, "text 0"), ("feature 0", 0, None), ("feature 9", 9, "text 1"),
        ("random 0", None, "text 2"), ("random 1", None, "text 3"),
    ]  # fmt: skip
    assert [one["l2_norm"] for one in found[:3]] == [2, 0, 5]
    assert found[1]["score"] is None


def test_a_score_is_of_what_the_words_add_to_the_mean() -> None:
    """By hand, d = 2 and ū = (0.6, 0): û of "a" is (0.6, 0.8), so û − ū points along (0, 1); of "b"
    it is (1, 0), so û − ū points along (1, 0); of the empty text along (−1, 0)."""
    made = {"a": [0.6, 0.8], "b": [3.0, 0.0], "": [-1.0, 0.0]}
    nla: Any = SimpleNamespace(
        mean=np.array([0.6, 0.0]), reconstruct=lambda texts: np.array([made[t] for t in texts])
    )
    vectors = np.array([[0.0, 1.0], [0.6, 0.8]])
    found = directions._scores(nla, ["a", "b"], vectors)
    np.testing.assert_allclose(found["score"], [1.0, 0.6])
    np.testing.assert_allclose(found["floor"], [0.0, -0.6])
    np.testing.assert_allclose(found["other"], [0.0, 0.8])
    nla.mean = None
    np.testing.assert_allclose(directions._scores(nla, ["a", "b"], vectors)["score"], [0.8, 0.6])


def test_a_raw_av_takes_the_norm_of_activations(toy_subject: Any) -> None:
    nla = pair_of(toy_subject("gemma3"), centring="none", activation_norm=10.0)
    nla.contract.extraction.injection_scale = None
    rows = torch.eye(D)[:2]
    assert directions._injected(nla, rows).norm(dim=1).tolist() == [10, 10]
    nla.contract.nlakit.activation_norm = None
    with pytest.raises(ContractError, match="a direction has none"):
        explain_directions(nla, np.eye(D)[:2], [0, 1])


def test_refusals(toy_subject: Any) -> None:
    nla = pair_of(toy_subject("gemma3"))
    with pytest.raises(ContractError, match="the SAE has another width"):
        explain_directions(nla, np.eye(7), range(7))
    nla.av = None
    with pytest.raises(ContractError, match="holds no AV"):
        explain_directions(nla, np.eye(D), range(D))


def test_the_summary_has_floors() -> None:
    rows = [{"direction": "feature 1", "score": 0.5, "floor": 0.1, "other": 0.2},
            {"direction": "feature 2", "score": 0.3, "floor": 0.0, "other": 0.0},
            {"direction": "feature 3", "score": None, "floor": None, "other": None},
            {"direction": "random 0", "score": 0.2, "floor": 0.0, "other": 0.1}]  # fmt: skip
    assert summary(rows) == (
        "2 feature directions: score 0.400, empty text 0.050, another's text 0.100; "
        "1 random directions: score 0.200, empty text 0.000, another's text 0.100"
    )
    assert summary([{"direction": "feature 1"}]) == ""


def test_the_command(tmp_path: Path, toy_folder: Any) -> None:
    model = toy_folder("gemma3")
    pair = save_pair(model, tmp_path / "pair")
    sae = tmp_path / "sae"
    sae.mkdir()
    save_file({"W_dec": torch.eye(D)}, sae / "sae_weights.safetensors")
    settings = {"model_name": model.name, "hook_name": "blocks.1.hook_resid_post"}
    (sae / "cfg.json").write_text(json.dumps(settings))
    words = ("explain", str(pair), "--sae", str(sae), "--device", "cpu")
    said = call(*words, "--features", "3,0-1", "--format", "jsonl")
    assert (said.code, said.crash) == (0, "")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["feature"] for row in rows] == [3, 0, 1] + [None] * 8
    assert all({"score", "floor", "other", "explanation"} <= set(row) for row in rows)
    assert "3 feature directions: score" in said.err and "8 random directions" in said.err
    assert call(*words, "--features", "0").out.count("random") == 8
    refused = {
        "give --features": (),
        "has no feature 32": ("--features", "32"),
        "another layer than the pair": ("--features", "0", "--sae-of", f"{model.name}:2"),
        "give a text, --vectors, --sae": ("a text", "--features", "0"),
    }
    for line, more in refused.items():
        said = call(*words, *more)
        assert said.code == 2 and line in said.err, said
    said = call("explain", str(pair), "a text", "--features", "0")
    assert said.code == 2 and "--features and --sae-of go with --sae" in said.err
