"""4-bit weights, tables in main memory, and what float16 does to both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from nlakit.config.sections import SubjectConfig
from nlakit.data.activations import Reader
from nlakit.errors import ConfigError, ContractError, DataError, ModelError
from nlakit.models import quantise
from nlakit.models.foreign.convert import export_pair
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import (
    Subject,
    blocks_of,
    decoder_of,
    load_subject,
    pick_device,
    shared_copy,
    verify_family,
)
from nlakit.models.verbalizer import Verbalizer
from nlakit.studies.planning.calibrate import shape_of
from tests.conftest import SMALL_LORA, D, build_contract

Load = Callable[..., Subject]


@pytest.fixture
def nf4(toy_folder: Callable[[str], Path]) -> Load:
    def load(family: str = "gemma3", dtype: str = "bfloat16", **more: Any) -> Subject:
        settings = {
            "model": str(toy_folder(family)), "layer": 1, "dtype": dtype, "device": "cpu",
            "quantisation": "nf4", **more,
        }  # fmt: skip
        return load_subject(SubjectConfig.model_validate(settings))

    return load


def ar_gradients(ar: Reconstructor) -> list[torch.Tensor]:
    ar.train()
    ar.zero_grad()
    ar([ar.encode("some text", 99)]).square().sum().backward()
    found = [p.grad for p in ar.parameters() if p.requires_grad and p.grad is not None]
    return [gradient.clone() for gradient in found]


def test_gradients_are_the_same_after_an_inference(nf4: Load) -> None:
    """bitsandbytes repacks weights in place on the first inference on some CPUs."""
    subject = nf4()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0)
    before = ar_gradients(ar)
    ar.eval().reconstruct(["a text that is only read"])
    after = ar_gradients(ar)
    assert before and all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_copies_share_weights_and_scales(nf4: Load) -> None:
    model = nf4().model
    copy = shared_copy(model)
    one = blocks_of(decoder_of(model))[0].mlp.gate_proj  # type: ignore[union-attr]
    other = blocks_of(decoder_of(copy))[0].mlp.gate_proj  # type: ignore[union-attr]
    assert one is not other
    assert one.weight.data_ptr() == other.weight.data_ptr()
    assert one.quant_state is other.quant_state
    assert one.weight.quant_state.nested  # double quantisation


def test_both_halves_keep_the_base_in_four_bits(nf4: Load) -> None:
    subject = nf4()
    contract = build_contract(subject)
    assert contract.nlakit.subject_precision == "nf4+bfloat16"
    av = Verbalizer(subject, contract, np.zeros(D), SMALL_LORA, 0)
    ar = Reconstructor(subject, contract, SMALL_LORA, 0)
    for half in (av.model, ar.decoder):
        kinds = {p.dtype for name, p in half.named_parameters() if "lora" in name}
        assert kinds == {torch.bfloat16}
        bases = {p.dtype for n, p in half.named_parameters() if "mlp.gate_proj.base_layer" in n}
        assert bases == {torch.uint8}


def test_four_bits_stay_near_the_model_they_came_from(nf4: Load, toy_subject: Any) -> None:
    ids = [[2, 10, 45, 60, 33, 80, 21, 9]]
    plain = Reader(toy_subject("gemma3", 1, "float32"), [1], 0).read(ids, [[7]])[0][1]
    small = Reader(nf4(dtype="float32"), [1], 0).read(ids, [[7]])[0][1]
    cosine = float((plain * small).sum() / np.linalg.norm(plain) / np.linalg.norm(small))
    assert 0.8 < cosine < 0.99999  # random weights of width 32: hard to keep in four bits


def grown(subject: Subject) -> Subject:
    """The subject with an embedding row beyond float16's range after Gemma's scaling."""
    with torch.no_grad():
        subject.model.get_input_embeddings().weight[10] = 30000.0
    return subject


def test_planted_mode_6_float16_overflows_and_is_refused(toy_subject: Any) -> None:
    subject = grown(toy_subject("gemma3", 1, "float16"))
    with pytest.raises(DataError, match="not finite") as caught:
        Reader(subject, [1], 0).read([[2, 10, 45]], [[1]])
    assert "float16" in str(caught.value)


def test_a_quantised_float16_base_carries_large_activations(nf4: Load) -> None:
    """Its residual stream is float32; its adapters are float32; its head and cache still work."""
    subject = nf4(dtype="float16")
    with torch.no_grad():
        blocks_of(decoder_of(subject.model))[0].register_forward_hook(lambda m, a, out: out + 1e6)
    found = Reader(subject, [1], 2).read([[2, 10, 45]], [[1]])[0][1]
    assert np.isfinite(found).all() and np.abs(found).max() > 65504
    subject = nf4(dtype="float16")
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0)
    assert {p.dtype for n, p in av.named_parameters() if "lora" in n} == {torch.float32}
    vectors = np.random.default_rng(0).standard_normal((2, D)).astype(np.float32)
    loss = av.nll(av.scaled(vectors), [av.response_ids("abc", 64)] * 2).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert len(av.eval().explain(vectors)) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["gemma3", "phi", "gpt_neox"])
def test_quantised_models_pass_the_check_of_unknown_families(
    nf4: Load, family: str, dtype: str
) -> None:
    verify_family(nf4(family, dtype).model)


def test_four_bits_have_the_same_shape_to_count(nf4: Load, toy_subject: Any) -> None:
    """Packed weights are (n / 2, 1) tensors; FLOPs are counted from the layers' widths."""
    assert shape_of(nf4().model) == shape_of(toy_subject("gemma3", 1, "bfloat16").model)


@pytest.mark.parametrize(
    ("kind", "quantisation", "refused"),
    [("nf4", None, True), ("fp4", "nf4", True), ("nf4", "nf4", False)],
)
def test_a_checkpoint_keeps_the_way_it_is_stored_quantised(
    toy_folder: Any, tmp_path: Path, kind: str, quantisation: str | None, refused: bool
) -> None:
    """What is asked for does not change it: another way than the recorded one is refused."""
    stored = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    source = str(toy_folder("gemma3"))
    model = AutoModelForCausalLM.from_pretrained(
        source, quantization_config=stored, device_map={"": "cpu"}, dtype=torch.bfloat16
    )
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(source).save_pretrained(tmp_path)
    config = SubjectConfig(
        model=str(tmp_path), layer=1, device="cpu", dtype="bfloat16",
        quantisation=quantisation,  # type: ignore[arg-type]
    )  # fmt: skip
    if not refused:
        load_subject(config)
        return
    with pytest.raises(ModelError, match=f"stored quantised.*bitsandbytes {kind}"):
        load_subject(config)


@pytest.mark.parametrize("quantisation", [None, "nf4"])
def test_other_methods_of_quantisation_are_refused(quantisation: Any) -> None:
    stored = {"quant_method": "gptq", "bits": 4}
    model = SimpleNamespace(config=SimpleNamespace(quantization_config=stored))
    config = SubjectConfig(dtype="bfloat16", quantisation=quantisation)
    with pytest.raises(ModelError, match="stored quantised.*gptq"):
        quantise.check_quantisation(model, config)


def test_a_widened_stream_is_not_written_as_a_plain_model(nf4: Load, tmp_path: Path) -> None:
    """A plain float16 model would overflow where this one does not."""
    subject = nf4(dtype="float16")
    av = Verbalizer(subject, build_contract(subject, centring="none"), None, SMALL_LORA, 0)
    with pytest.raises(ContractError, match="stream is float32"):
        export_pair(NLA(subject, av, None, None), tmp_path / "a", "kitft")
    assert not (tmp_path / "a").exists()
    export_pair(NLA(subject, av, None, None), tmp_path / "b", "peft")


def test_a_device_that_is_not_there_is_told() -> None:
    with pytest.raises(ModelError, match="no such device here"):
        pick_device("cuda:99")


class Table(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens_per_layer = torch.nn.Embedding(10, 4)
        self.other = torch.nn.Linear(4, 4)


def test_per_layer_embeddings_stay_in_main_memory() -> None:
    model = Table()
    before = model.embed_tokens_per_layer(torch.tensor([[3, 1]]))
    quantise.stay_on_cpu(model)
    model.to("meta")
    assert model.other.weight.device.type == "meta"
    assert model.embed_tokens_per_layer.weight.device.type == "cpu"
    assert torch.equal(model.embed_tokens_per_layer(torch.tensor([[3, 1]])), before)
    assert isinstance(model.embed_tokens_per_layer, torch.nn.Embedding)


def test_a_model_without_such_tables_is_refused(nf4: Load) -> None:
    with pytest.raises(ConfigError, match="no per-layer embeddings"):
        nf4(ple_on_cpu=True)


def test_the_package_is_asked_for_by_name(nf4: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="needs bitsandbytes"):
        nf4()
