"""The token that begins a text: added where the model needs it, recorded, and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import processors

from nlakit.config.sections import LoraConfig, SubjectConfig
from nlakit.core.contract import Contract
from nlakit.core.prompts import encode
from nlakit.core.text.tokenizer import begins_with_bos, check_round_trip, put_bos
from nlakit.errors import ConfigError, ContractError, ModelError
from nlakit.models.gguf import embedded_model
from nlakit.models.loading import subject_of
from nlakit.models.subject import Subject, bos_gain, load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.studies import doctor
from tests.conftest import D, build_contract, toy_tokenizer
from tests.tokenizers import SlowBytes, byte_level

TEXT = "The captain ordered the crew to lower the boats."


def without_bos(folder: Path, target: Path) -> Path:
    """The model of a folder as mirrors have it: the tokenizer leaves its BOS out."""
    target.mkdir()
    for file in folder.iterdir():
        if file.name != "tokenizer.json":
            (target / file.name).symlink_to(file)
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    data["post_processor"] = None
    (target / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    return target


@pytest.fixture
def mirror(toy_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    return without_bos(toy_folder("llama"), tmp_path / "mirror")


def loaded(model: Path, **settings: Any) -> Subject:
    given = {"model": str(model), "layer": 1, "dtype": "float32", "device": "cpu"}
    return load_subject(SubjectConfig.model_validate(given | settings))


def test_a_model_that_needs_its_bos_gets_it(tmp_path: Path, capsys: Any) -> None:
    """Without it Gemma's activations are of another kind."""
    whole = load_subject(SubjectConfig(device="cpu"))
    assert whole.config.bos == "tokenizer"
    bare = load_subject(
        SubjectConfig(model=str(without_bos(embedded_model(), tmp_path / "m")), device="cpu")
    )
    assert bare.config.bos == "add"
    assert "<bos> is put before every text" in capsys.readouterr().err
    for text in (TEXT, "", "日本 <eos>"):
        for special in (True, False):
            ours, theirs = (encode(s.tokenizer, text, special=special) for s in (bare, whole))
            assert ours == theirs
    left = load_subject(bare.config.model_copy(update={"bos": "tokenizer"}))
    assert not begins_with_bos(left.tokenizer)
    assert bos_gain(left.model, left.tokenizer) > 2


def test_a_model_that_does_not_stays_as_it_is(mirror: Path, toy_folder: Any) -> None:
    assert loaded(mirror).config.bos == "tokenizer"
    assert not begins_with_bos(loaded(mirror).tokenizer)
    assert loaded(toy_folder("llama")).config.bos == "tokenizer"


def test_a_half_keeps_the_beginning_it_was_trained_with(mirror: Path) -> None:
    subject = loaded(mirror, bos="add")
    assert encode(subject.tokenizer, TEXT, special=True)[0] == subject.tokenizer.bos_token_id
    contract = build_contract(subject, bos="add")
    assert subject_of(contract, "float32", None, None, "cpu").bos == "add"
    Verbalizer(subject, contract, np.zeros(D), LoraConfig(r=2, alpha=4), 0)
    with pytest.raises(ContractError, match="begin otherwise.*do: set subject.bos: add"):
        Verbalizer(loaded(mirror), contract, np.zeros(D), LoraConfig(r=2, alpha=4), 0)
    assert contract.difference(build_contract(subject)) == ("bos", "add", "tokenizer")


def test_contracts_of_before_are_read_as_they_were_made(mirror: Path) -> None:
    data = build_contract(loaded(mirror)).model_dump()
    del data["nlakit"]["bos"]
    old = Contract.model_validate(data)
    assert subject_of(old, "float32", None, None, "cpu").bos == "tokenizer"


def test_a_bos_that_is_not_there_cannot_be_added(toy_folder: Any) -> None:
    for tokenizer in (byte_level(), SlowBytes(bos_token="a")):
        with pytest.raises(ConfigError, match="set subject.bos: tokenizer"):
            put_bos(tokenizer)
    whole = loaded(toy_folder("llama"), bos="add")
    assert encode(whole.tokenizer, "a", special=True)[1] != whole.tokenizer.bos_token_id


def test_what_the_tokenizer_puts_behind_a_text_stays(tmp_path: Path) -> None:
    tokenizer = toy_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    put_bos(tokenizer)
    plain = encode(tokenizer, "ab", special=False)
    assert encode(tokenizer, "ab", special=True) == [2, *plain, 1]
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert encode(again, "ab", special=True) == [2, *plain, 1]


def test_a_tokenizer_that_gives_other_texts_back_is_refused() -> None:
    assert check_round_trip(toy_tokenizer(), "toy")
    tokenizer = toy_tokenizer()
    tokenizer.decode = lambda ids: "".join(chr(97 + i % 26) for i in ids)
    with pytest.raises(ModelError, match="does not give texts back"):
        check_round_trip(tokenizer, "toy")


def test_the_doctor_says_how_texts_of_the_embedded_model_begin() -> None:
    found = list(doctor._embedded_model())
    assert found[1].name == "subject.bos=auto"
    assert "itself puts <bos> before every text" in found[1].detail
