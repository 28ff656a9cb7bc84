"""Halves whose weights are all trained."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from nlakit.config.sections import LoraConfig, SubjectConfig
from nlakit.errors import ContractError, ModelError
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.models.weights import merged
from tests.conftest import SMALL_LORA, D, build_contract
from tests.models.test_foreign import shaken

FAMILIES = ("gemma3", "gpt2", "llama")


def halves(subject: Any, lora: LoraConfig | None = None) -> tuple[Verbalizer, Reconstructor]:
    contract = build_contract(subject)
    av = Verbalizer(subject, contract, np.full(D, 0.01), lora, 0)
    return av, Reconstructor(subject, contract.model_copy(deep=True), lora, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_own_weights_start_as_the_subjects(
    toy_subject: Any, vectors: np.ndarray, family: str
) -> None:
    """A copy gives what fresh adapters over shared weights give, and training it leaves the
    subject alone."""
    subject = toy_subject(family)
    before = {name: p.clone() for name, p in subject.model.named_parameters()}
    full, adapted = halves(subject), halves(subject, SMALL_LORA)
    assert full[0].explain(vectors[:2]) == adapted[0].explain(vectors[:2])
    assert np.array_equal(full[1].reconstruct(["a", "b c"]), adapted[1].reconstruct(["a", "b c"]))
    assert all(parameter.requires_grad for half in full for parameter in half.parameters())
    for half in full:
        shaken(half)
    assert all(torch.equal(before[name], p) for name, p in subject.model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_save_load_adopt(
    toy_subject: Any, vectors: np.ndarray, tmp_path: Path, family: str
) -> None:
    subject = toy_subject(family)
    av, ar = halves(subject)
    for half, name in ((av, "av"), (ar, "ar")):
        shaken(half)
        half.save(tmp_path / name)
    with torch.no_grad():
        ar.head.weight.copy_(ar.head.weight.bfloat16().float())
    tied = av.model.get_input_embeddings().weight is av.model.get_output_embeddings().weight
    stored = load_file(tmp_path / "av" / "weights.safetensors")
    assert any("lm_head" in name for name in stored) is not tied
    again = Verbalizer.load(subject, av.contract, np.full(D, 0.01), tmp_path / "av")
    back = Reconstructor.load(subject, ar.contract, tmp_path / "ar")
    assert again.explain(vectors[:2]) == av.eval().explain(vectors[:2])
    assert np.array_equal(back.reconstruct(["x"]), ar.eval().reconstruct(["x"]))
    fresh_av, fresh_ar = halves(subject)
    fresh_av.adopt(tmp_path / "av")
    fresh_ar.adopt(tmp_path / "ar")
    assert fresh_av.contract.nlakit.parent and fresh_av.contract.nlakit.parent.startswith("av:")
    assert np.array_equal(fresh_ar.eval().reconstruct(["x"]), back.reconstruct(["x"]))


def test_adopting_tells_what_it_was_fed_by(
    toy_subject: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Going on under another scale and centring is allowed, and not without a word."""
    subject = toy_subject("llama")
    build = partial(Verbalizer, subject, mean=np.zeros(D), lora=None, seed=0)
    other = build(contract=build_contract(subject, centring="none"))
    other.contract.extraction.injection_scale = 150.0
    other.save(tmp_path / "av")
    build(contract=build_contract(subject)).adopt(tmp_path / "av")
    said = " ".join(capsys.readouterr().err.split())
    assert "another centring: 'none', and goes on with 'mean_unit'" in said
    assert "another injection scale: 150.0" in said and "another prompt" not in said
    build(contract=other.contract).adopt(tmp_path / "av")
    assert capsys.readouterr().err == ""


def test_adopting_the_other_kind_is_refused(toy_subject: Any, tmp_path: Path) -> None:
    subject = toy_subject()
    full, adapted = halves(subject), halves(subject, SMALL_LORA)
    full[1].save(tmp_path / "full")
    adapted[1].save(tmp_path / "lora")
    with pytest.raises(ContractError, match="does not store adapters.*lora: null"):
        adapted[1].adopt(tmp_path / "full")
    with pytest.raises(ContractError, match="does not store all weights.*lora:"):
        full[1].adopt(tmp_path / "lora")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("layers.0.mlp.up_proj.weight"), "1 missing, first layers.0.mlp"),
        (lambda state: state.update(extra=torch.ones(1)), "1 unexpected, first extra"),
        (
            lambda state: state.update({"layers.1.mlp.up_proj.weight": torch.ones(2, 2)}),
            r"layers\.1\.mlp\.up_proj\.weight is \(2, 2\) instead of \(64, 32\)",
        ),
    ],
)
def test_other_weights_are_refused(
    toy_subject: Any, tmp_path: Path, change: Any, says: str
) -> None:
    ar = halves(toy_subject())[1]
    ar.save(tmp_path)
    state = load_file(tmp_path / "weights.safetensors")
    change(state)
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ContractError, match=says):
        Reconstructor.load(toy_subject(), ar.contract, tmp_path)


@pytest.mark.parametrize("family", ["gemma2", "llama", "phi"])
def test_the_head_is_trained_too(toy_subject: Any, vectors: np.ndarray, family: str) -> None:
    """Losses and gradients are those of the whole logits, cap, bias and tied head included."""
    av = halves(toy_subject(family))[0]
    responses = [av.response_ids("some words", 99), av.response_ids("more", 99)]
    injected = av.scaled(vectors[:2])
    found = av.nll(injected, responses)
    found.sum().backward()
    head = av.model.get_output_embeddings()
    mine = head.weight.grad.clone()
    av.zero_grad()
    at, expected = 0, []
    for row, response in enumerate(responses):
        ids = torch.tensor([[*av.prompt, *response]])
        with av.injecting(injected[row : row + 1]):
            logits = av.model(input_ids=ids, use_cache=False).logits[0].float()
        start = len(av.prompt) - 1
        expected.append(cross_entropy(logits[start:-1], torch.tensor(response), reduction="none"))
        at += len(response)
    joined = torch.cat(expected)
    assert at == len(found) and torch.allclose(found, joined, atol=1e-4)
    joined.sum().backward()
    assert torch.allclose(mine, head.weight.grad, atol=1e-4)
    assert float(mine.abs().sum()) > 0


def test_quantised_weights_are_not_trained_but_merged(toy_folder: Any) -> None:
    """Dense weights with the adapters added compute what adapters over 4-bit weights compute."""
    pytest.importorskip("bitsandbytes")
    settings = {
        "model": str(toy_folder("llama")), "layer": 1, "dtype": "float32", "device": "cpu",
        "quantisation": "nf4",
    }  # fmt: skip
    subject = load_subject(SubjectConfig.model_validate(settings))
    with pytest.raises(ModelError, match="cannot be trained themselves"):
        halves(subject)
    ar = halves(subject, SMALL_LORA)[1].eval()
    shaken(ar)
    ids = torch.tensor([ar.encode("words", 99)])
    with torch.no_grad():
        adapted = ar.decoder(input_ids=ids, use_cache=False)[0]
        dense = merged(ar.decoder)(input_ids=ids, use_cache=False)[0]
    assert torch.allclose(adapted, dense, atol=1e-4)
