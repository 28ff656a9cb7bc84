"""What must hold for every architecture, at toy size with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlakit.errors import ContractError, DataError, ModelError
from nlakit.models.decode import Decoding
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import blocks_of, capture, decoder_of, sliced_decoder
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import FAMILIES, LAYERS, SMALL_LORA, D, build_contract

IDS = torch.tensor([[2, 10, 45, 60, 33, 80, 21, 9], [2, 44, 70, 31, 90, 12, 55, 66]])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", range(LAYERS - 1))
def test_capture_is_hidden_states_k_plus_1(toy_subject: Any, family: str, layer: int) -> None:
    subject = toy_subject(family, layer)
    with torch.no_grad(), capture(decoder_of(subject.model), [layer]) as found:
        states = subject.model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert torch.equal(found[layer], states[layer + 1])
    assert not torch.equal(found[layer], states[layer])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sliced_decoder_equals_hidden_states_bit_for_bit(
    toy_subject: Any, family: str, dtype: str
) -> None:
    subject = toy_subject(family, 1, dtype)
    with torch.no_grad():
        states = subject.model(input_ids=IDS, output_hidden_states=True).hidden_states
        sliced = sliced_decoder(subject.model, 2)(input_ids=IDS, use_cache=False)[0]
    assert torch.equal(sliced, states[2])


def test_last_block_is_captured_before_the_final_norm(toy_subject: Any) -> None:
    subject = toy_subject("gemma3", LAYERS - 1)
    with torch.no_grad(), capture(decoder_of(subject.model), [LAYERS - 1]) as found:
        states = subject.model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert not torch.allclose(found[LAYERS - 1], states[-1])


def test_three_trees_share_one_set_of_weights(toy_subject: Any) -> None:
    subject = toy_subject()
    contract = build_contract(subject)
    av = Verbalizer(subject, contract, np.zeros(D), SMALL_LORA, 0)
    ar = Reconstructor(subject, contract, SMALL_LORA, 0)
    base = {p.data_ptr() for p in subject.model.parameters()}
    for half in (av.model, ar.decoder):
        frozen = {p.data_ptr() for p in half.parameters() if not p.requires_grad}
        assert frozen <= base
    assert len(blocks_of(decoder_of(subject.model))) == LAYERS


@pytest.mark.parametrize("family", FAMILIES)
def test_injection_changes_exactly_the_markers_row(
    toy_subject: Any, vectors: np.ndarray, family: str
) -> None:
    """The same hook serves training, log-probabilities and cached generation."""
    subject = toy_subject(family)
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    injected = av.scaled(vectors[:2])
    seen: list[torch.Tensor] = []
    first = blocks_of(av.decoder)[0]
    handle = first.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((args or tuple(kwargs.values()))[0].clone()),
        with_kwargs=True,
    )
    response = av.response_ids("abc", 64)
    av.nll(injected, [response, response])
    av.nll(None, [response, response])
    training, plain = seen
    place = av.prompt.index(av.contract.tokens.injection_token_id)
    differs = (training != plain).any(dim=-1)
    assert differs[:, place].all() and differs.sum() == 2
    seen.clear()
    av.write(injected, 0, 2, Decoding(3))
    prefill = seen[0]
    assert torch.equal(prefill, training[:, : len(av.prompt)])
    assert all(step.shape[1] == 1 for step in seen[1:])
    handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_texts_agree_with_log_probabilities(
    toy_subject: Any, vectors: np.ndarray, family: str
) -> None:
    """Cached decoding picks at each step the token that the training forward finds likeliest."""
    subject = toy_subject(family)
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    injected = av.scaled(vectors[:3])
    with av.injecting(injected), torch.no_grad():
        from nlakit.models.decode import decode

        prompt = torch.tensor([av.prompt] * 3)
        found = decode(av.model, av.decoder, prompt, av.close, Decoding(6))
    for row, tokens in enumerate(found):
        best = float(av.nll(injected[row : row + 1], [tokens])[0])
        for other in range(4, 200, 7):
            worse = float(av.nll(injected[row : row + 1], [[other]])[0])
            assert best <= worse + 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_save_load_equal(toy_subject: Any, vectors: np.ndarray, family: str, tmp_path: Any) -> None:
    subject = toy_subject(family)
    contract = build_contract(subject)
    av = Verbalizer(subject, contract, np.full(D, 0.01), SMALL_LORA, 3)
    ar = Reconstructor(subject, contract, SMALL_LORA, 4)
    torch.manual_seed(0)
    with torch.no_grad():
        for half in (av, ar):
            for parameter in half.parameters():
                if parameter.requires_grad:
                    noise = 0.1 * torch.randn_like(parameter)
                    parameter.copy_((parameter + noise).to(torch.bfloat16).float())
    av.save(tmp_path / "av")
    ar.save(tmp_path / "ar")
    again = Verbalizer.load(toy_subject(family), contract, np.full(D, 0.01), tmp_path / "av")
    back = Reconstructor.load(toy_subject(family), contract, tmp_path / "ar")
    assert np.array_equal(ar.eval().reconstruct(["one", "two three"]),
                          back.reconstruct(["one", "two three"]))  # fmt: skip
    assert av.eval().explain(vectors[:2]) == again.explain(vectors[:2])


@pytest.mark.parametrize("family", FAMILIES)
def test_ar_gradient_reaches_every_adapter(toy_subject: Any, family: str) -> None:
    subject = toy_subject(family)
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0)
    with torch.no_grad():  # B starts at zero and would hide A's gradient
        for name, parameter in ar.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    ar([ar.encode("some text", 99)])[0].square().sum().backward()
    trained = [(n, p) for n, p in ar.named_parameters() if p.requires_grad]
    assert len(trained) > 4
    for name, parameter in trained:
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name


def test_batch_order_changes_nothing(toy_subject: Any) -> None:
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    texts = ["short", "a much longer explanation of something", "middle size", ""]
    together = ar.reconstruct(texts)
    apart = np.concatenate([ar.reconstruct([text]) for text in texts])
    assert np.allclose(together, apart, atol=1e-5)
    assert np.allclose(ar.reconstruct(texts[::-1])[::-1], together, atol=1e-5)


def test_batch_budget_is_kept(toy_subject: Any) -> None:
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    texts = [f"text {'x' * i}" for i in range(20)]
    assert np.allclose(
        ar.reconstruct(texts, tokens_per_batch=100), ar.reconstruct(texts), atol=1e-5
    )


def test_identity_head_reads_the_last_token(toy_subject: Any) -> None:
    """Before training the AR's output is the subject's own layer K at the prompt's last token."""
    subject = toy_subject("gemma3", 1)
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    ids = ar.encode("hello", 99)
    with torch.no_grad():
        states = subject.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        made = ar([ids])
    assert torch.allclose(made[0], states.hidden_states[2][0, -1].float(), atol=1e-6)


def test_long_explanations_keep_the_suffix(toy_subject: Any) -> None:
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0)
    ids = ar.encode("x" * 500, 80)
    assert len(ids) == 80
    assert ids[-len(ar.suffix) :] == ar.suffix


def test_width_and_layer_errors(toy_subject: Any, toy_folder: Any) -> None:
    subject = toy_subject()
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0)
    with pytest.raises(ContractError, match="16 instead of 32"):
        av.scaled(np.ones((2, 16), dtype=np.float32))
    for bad in (np.nan, 0.0):
        with pytest.raises(DataError, match="without a direction"):
            av.scaled(np.full((1, D), bad, dtype=np.float32))
    with pytest.raises(ModelError, match="no block 9"):
        toy_subject("gemma3", 9)


def test_missing_weights_are_refused(toy_folder: Any, tmp_path: Any) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    from nlakit.config import SubjectConfig
    from nlakit.models.subject import load_subject

    broken = tmp_path / "broken"
    shutil.copytree(toy_folder("llama"), broken)
    state = load_file(broken / "model.safetensors")
    del state["model.layers.2.mlp.up_proj.weight"]
    save_file(state, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="1 missing"):
        load_subject(SubjectConfig(model=str(broken), layer=1, dtype="float32", device="cpu"))


def test_planted_mode_16_marker_of_several_tokens(toy_subject: Any) -> None:
    from nlakit.core.prompts import marker_neighbours
    from tests.conftest import AV_TEMPLATE

    tokenizer = toy_subject().tokenizer
    with pytest.raises(ContractError, match="not one token"):
        marker_neighbours(tokenizer, AV_TEMPLATE, "㈎")
    contract = build_contract(toy_subject())
    contract.tokens.injection_token_id += 1
    with pytest.raises(ContractError, match="disagrees"):
        contract.check_tokenizer(tokenizer)
