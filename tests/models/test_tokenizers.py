"""The marker under real tokenizers, and under toys of each kind."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from nlakit.core.prompts import check_suffix, encode, find_marker, marker_neighbours, suffix_ids
from nlakit.errors import ContractError
from nlakit.models.embedded import embedded_model
from tests.conftest import AR_TEMPLATE, AV_TEMPLATE


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


def byte_level(*symbols: str) -> Any:
    """Like GPT-2's: bytes, and merges that make a token of each symbol in turn."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<eos>": 0} | {part: i + 1 for i, part in enumerate(alphabet)}
    merges = []
    for symbol in symbols:
        whole = ""
        for part in pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(symbol)[0][0]:
            if whole and (whole, part) not in merges:
                merges.append((whole, part))
                vocabulary.setdefault(whole + part, len(vocabulary))
            whole += part
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")


def with_dummy_space(*symbols: str) -> Any:
    """Like Llama's first: a space before every text, bytes for characters it does not know."""
    parts = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    parts += [chr(code) for code in range(33, 127)] + list(symbols)
    vocabulary = {part: index for index, part in enumerate(parts)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


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
