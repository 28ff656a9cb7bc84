"""The packaged Gemma 3 270M: real tokenizer, real weights, small budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nlakit.config.sections import SubjectConfig
from nlakit.core.prompts import encode, find_marker, marker_neighbours, suffix_ids
from nlakit.models.gguf import embedded_model
from nlakit.models.subject import capture, decoder_of, load_subject, sliced_decoder
from tests.conftest import AR_TEMPLATE, AV_TEMPLATE

TEXT = "The captain ordered the crew to lower the boats, and the old harpooner looked back."


@pytest.fixture(scope="module")
def gemma() -> Any:
    return load_subject(SubjectConfig(device="cpu"))


def test_marker_ids_of_gemma(gemma: Any) -> None:
    assert find_marker(gemma.tokenizer, AV_TEMPLATE) == "㊗"
    assert marker_neighbours(gemma.tokenizer, AV_TEMPLATE, "㊗") == (236813, 249568, 954)
    assert marker_neighbours(gemma.tokenizer, AV_TEMPLATE, "㈜")[1] == 246566


def test_ar_prompt_ends_in_its_suffix(gemma: Any) -> None:
    suffix = suffix_ids(gemma.tokenizer, AR_TEMPLATE)
    for text in ("", "It stops at “the boats,”; likely next: and.", "code() {"):
        prompt = AR_TEMPLATE.replace("{explanation}", text)
        ids = encode(gemma.tokenizer, prompt, special=True)
        assert ids[-len(suffix) :] == suffix
        assert ids[0] == gemma.tokenizer.bos_token_id


def test_real_weights_slice_bit_for_bit(gemma: Any) -> None:
    ids = torch.tensor([encode(gemma.tokenizer, TEXT, special=True)])
    with torch.no_grad(), capture(decoder_of(gemma.model), [12]) as found:
        states = gemma.model(input_ids=ids, output_hidden_states=True).hidden_states
        sliced = sliced_decoder(gemma.model, 13)(input_ids=ids, use_cache=False)[0]
    assert torch.equal(found[12], states[13])
    assert torch.equal(sliced, states[13])


def test_the_model_predicts_text(gemma: Any) -> None:
    """Converted weights are the model's: it finds English likelier than shuffled English."""

    def loss(text: str) -> float:
        ids = torch.tensor([encode(gemma.tokenizer, text, special=True)])
        with torch.no_grad():
            return float(gemma.model(input_ids=ids, labels=ids).loss)

    words = TEXT.split()
    shuffled = " ".join(np.random.default_rng(0).permutation(words))
    assert loss(TEXT) + 1.0 < loss(shuffled)


def test_embedding_norm(gemma: Any) -> None:
    assert gemma.embedding_norm() == pytest.approx(26.03, abs=0.1)


def test_a_damaged_conversion_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    from nlakit.errors import ModelError

    real = embedded_model()
    copy = tmp_path / real.name
    copy.mkdir()
    for name in ("config.json", "conversion.json", "tokenizer.json"):
        shutil.copy(real / name, copy / name)
    (copy / "model.safetensors").write_bytes(b"not the weights")
    monkeypatch.setenv("NLAKIT_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="damaged"):
        embedded_model()
