"""The marker under real tokenizers, and under toys of each kind."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import normalizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from nlakit.core.prompts import check_suffix, encode, find_marker, marker_neighbours, suffix_ids
from nlakit.errors import ContractError
from nlakit.models.gguf import embedded_model
from tests.conftest import AR_TEMPLATE, AV_TEMPLATE
from tests.tokenizers import byte_level, with_dummy_space


@pytest.fixture(scope="module")
def gemma() -> Any:
    return AutoTokenizer.from_pretrained(embedded_model())


@pytest.fixture(scope="module")
def qwen() -> Any:
    """Qwen 2.5's tokenizer from the vocabulary in Alibaba's client, which is not imported."""
    package = find_spec("dashscope")
    if package is None or package.origin is None:
        pytest.skip("dashscope is not installed, which ships Qwen's vocabulary: the `test` extra")
    ranks = Path(package.origin).parent / "resources" / "qwen.tiktoken"
    made = TikTokenConverter(str(ranks), PRETOKENIZE_REGEX).converted()
    made.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def test_markers_of_gemma(gemma: Any) -> None:
    assert find_marker(gemma, AV_TEMPLATE) == "㊗"
    assert marker_neighbours(gemma, AV_TEMPLATE, "㊗") == (236813, 249568, 954)
    assert marker_neighbours(gemma, AV_TEMPLATE, "㈜") == (236813, 246566, 954)
    with pytest.raises(ContractError, match="not one token"):
        marker_neighbours(gemma, AV_TEMPLATE, "㈎")  # three tokens here


def test_markers_of_qwen(qwen: Any) -> None:
    assert marker_neighbours(qwen, AV_TEMPLATE, "㈎") == (29, 149705, 522)
    marker = find_marker(qwen, AV_TEMPLATE)
    left, token, right = marker_neighbours(qwen, AV_TEMPLATE, marker)
    assert (left, right) == (29, 522)
    assert qwen.decode([token]) == marker == "㊗"
    with pytest.raises(ContractError, match="not one token"):
        marker_neighbours(qwen, AV_TEMPLATE, "㊣")


@pytest.mark.parametrize("name", ["gemma", "qwen"])
def test_ar_prompts_end_in_the_suffix(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    suffix = suffix_ids(tokenizer, AR_TEMPLATE)
    assert "summary>" in tokenizer.decode(suffix)
    for text in ("", "ends in <", "It is.", "two\n\n", "中文 ü"):
        prompt = AR_TEMPLATE.replace("{explanation}", text)
        check_suffix(encode(tokenizer, prompt, special=True), suffix)


@pytest.mark.parametrize("build", [byte_level, with_dummy_space])
def test_without_a_candidate_the_rarest_symbol_is_found(build: Any) -> None:
    tokenizer = build("☃", "ж", "→", "é")
    marker = find_marker(tokenizer, AV_TEMPLATE)
    assert marker == "→"  # the highest id that is a symbol; é and ж are letters
    left, token, right = marker_neighbours(tokenizer, AV_TEMPLATE, marker)
    assert [tokenizer.decode([i]) for i in (left, token, right)] == [">", "→", "<"]


@pytest.mark.parametrize("build", [byte_level, with_dummy_space])
def test_a_candidate_goes_before_rarer_symbols(build: Any) -> None:
    assert find_marker(build("※", "☃"), AV_TEMPLATE) == "※"


@pytest.mark.parametrize("build", [byte_level, with_dummy_space])
def test_a_vocabulary_without_symbols_is_refused(build: Any) -> None:
    with pytest.raises(ContractError, match="no marker is a single token"):
        find_marker(build("é", "ж"), AV_TEMPLATE)


def test_special_tokens_are_no_markers() -> None:
    tokenizer = byte_level("☃", "→")
    tokenizer.add_special_tokens({"pad_token": "→"})
    assert find_marker(tokenizer, AV_TEMPLATE) == "☃"


def test_a_marker_that_the_tokenizer_rewrites_is_passed_over() -> None:
    """NFKC makes ㊗ the common 祝, which is one token too."""
    tokenizer = with_dummy_space("祝", "☃")
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    assert find_marker(tokenizer, AV_TEMPLATE) == "☃"


def test_a_symbol_that_merges_with_its_neighbour_is_passed_over() -> None:
    tokenizer = byte_level("☃", "→<")
    assert len(encode(tokenizer, "→", special=False)) == 1
    assert find_marker(tokenizer, AV_TEMPLATE) == "☃"
