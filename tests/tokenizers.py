"""Toy tokenizers of the kinds that models have."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast


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


class SlowBytes(PreTrainedTokenizer):
    """In Python alone, as the tokenizers were that have no Rust form: a token a byte."""

    @property
    def vocab_size(self) -> int:
        return 256

    def get_vocab(self) -> dict[str, int]:
        return {chr(byte): byte for byte in range(256)}

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        return [chr(byte) for byte in text.encode()]

    def _convert_token_to_id(self, token: str) -> int:
        return ord(token)

    def _convert_id_to_token(self, index: int) -> str:
        return chr(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return bytes(map(ord, tokens)).decode(errors="replace")
