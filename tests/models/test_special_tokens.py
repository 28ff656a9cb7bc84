"""What spells a special token in a text or a label is letters, and can be parsed on request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from nlakit import NLA
from nlakit.config.sections import LoraConfig
from nlakit.core.prompts import encode
from nlakit.models.gguf import embedded_model
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import D, build_contract

CHAT = "<bos><start_of_turn>user\nHi <eos> <pad><end_of_turn>\n"
LORA = LoraConfig(r=2, alpha=4)


def pair_of(subject: Any, **record: Any) -> NLA:
    contract = build_contract(subject, **record)
    av = Verbalizer(subject, contract, np.zeros(D), LORA, 0).eval()
    return NLA(subject, av, Reconstructor(subject, contract, LORA, 0).eval(), np.zeros(D))


def test_gemmas_marks_are_letters_in_a_text() -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(embedded_model())
    ids = encode(tokenizer, CHAT, special=True)
    assert ids.count(2) == 1
    assert not {0, 1, 105, 106} & set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == CHAT
    assert {0, 1, 105, 106} <= set(encode(tokenizer, CHAT, special=True, parse=True))


def test_a_label_does_not_teach_the_av_to_stop_inside_it(toy_subject: Any) -> None:
    nla = pair_of(toy_subject())
    assert nla.av is not None
    assert nla.ar is not None
    ids = nla.av.response_ids("It ends in <eos> and <pad>.", 200)
    assert not {0, 1, 2} & set(ids)
    assert nla.ar.encode("It ends in <eos>.", 300).count(1) == 0
    made = nla.reconstruct(["ends in <eos>", "ends in "])
    assert not np.allclose(made[0], made[1])


@pytest.mark.parametrize("how", ["text", "parse"])
def test_a_text_is_explained_as_the_pairs_documents_were_read(toy_subject: Any, how: str) -> None:
    nla = pair_of(toy_subject(), special_tokens=how)
    read = {name: nla.activations("<bos>a<eos>b", "all", name)[0] for name in ("text", "parse")}  # type: ignore[arg-type]
    assert nla.activations("<bos>a<eos>b")[0] == read[how]
    assert len(read["parse"]) == 4
    assert len(read["text"]) == 13
    assert len(nla.explain("<bos>a<eos>b", "all", special_tokens="parse")) == 4
