"""Marker search, suffixes and the scale gate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import normalizers

from nlakit.core.contract import Contract, read_contract
from nlakit.core.injection import inject, marker_rows
from nlakit.core.prompts import (
    ar_ids,
    check_suffix,
    document_ids,
    encode,
    find_marker,
    holds_marker,
    suffix_ids,
)
from nlakit.core.scaling import Scaling, check_scale
from nlakit.errors import ContractError, ModelError
from tests.conftest import AR_TEMPLATE, AV_TEMPLATE, build_contract, toy_tokenizer


def test_marker_is_found_by_search() -> None:
    assert find_marker(toy_tokenizer(), AV_TEMPLATE) == "㊗"


def test_a_marker_that_stands_in_the_texts_is_passed_over() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["※"])
    assert find_marker(tokenizer, AV_TEMPLATE, ["a ㊗", "b"]) == "※"
    assert find_marker(tokenizer, AV_TEMPLATE, ["a ※", "b"]) == "㊗"
    assert find_marker(tokenizer, AV_TEMPLATE, ["※", "㊗"]) == "㊗"  # none is left: the first
    assert holds_marker(tokenizer, "㊗", "of ㊗.")
    assert not holds_marker(tokenizer, "㊗", "of ※.")


def test_a_character_that_the_tokenizer_makes_the_marker_counts_as_the_marker() -> None:
    tokenizer = toy_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("祝", "㊗")
    assert holds_marker(tokenizer, "㊗", "of 祝.")


def test_template_without_room_for_neighbours_is_refused() -> None:
    with pytest.raises(ContractError, match="no marker"):
        find_marker(toy_tokenizer(), "{marker}")
    with pytest.raises(ContractError, match="no marker"):
        find_marker(toy_tokenizer(), "<a>{marker}{marker}</a>")


def test_suffix_is_shared_by_every_prompt() -> None:
    tokenizer = toy_tokenizer()
    suffix = suffix_ids(tokenizer, AR_TEMPLATE)
    assert tokenizer.decode(suffix) == "</text> <summary>"
    for text in ("", "ends in <", "quotes ”", "many\n\nlines\n"):
        prompt = AR_TEMPLATE.replace("{explanation}", text)
        check_suffix(encode(tokenizer, prompt, special=True), suffix)
    with pytest.raises(ContractError, match="suffix"):
        check_suffix([1, 2, 3], suffix)
    with pytest.raises(ContractError, match="fixed tokens"):
        suffix_ids(tokenizer, "Summary: {explanation}")


def test_marker_rows_checks_count_and_neighbours() -> None:
    ids = torch.tensor([[5, 9, 6, 1], [1, 5, 9, 6]])
    rows, columns = marker_rows(ids, 9, 5, 6, 2)
    assert rows.tolist() == [0, 1]
    assert columns.tolist() == [1, 2]
    with pytest.raises(ContractError, match="2 markers in 2 rows, 3 vectors"):
        marker_rows(ids, 9, 5, 6, 3)
    with pytest.raises(ContractError, match="instead of"):
        marker_rows(torch.tensor([[5, 9, 7]]), 9, 5, 6, 1)
    with pytest.raises(ContractError, match="markers"):
        marker_rows(torch.tensor([[5, 9, 6, 5, 9, 6], [1, 1, 1, 1, 1, 1]]), 9, 5, 6, 2)
    with pytest.raises(ContractError, match="neighbours"):
        marker_rows(torch.tensor([[9, 6, 1]]), 9, 5, 6, 1)  # at the very start


def test_inject_returns_a_copy() -> None:
    before = torch.zeros(2, 3, 4)
    after = inject(before, torch.tensor([1]), torch.tensor([2]), torch.ones(1, 4))
    assert before.sum() == 0
    assert after.sum() == 4
    assert after[1, 2].tolist() == [1, 1, 1, 1]


def test_scaling_by_hand() -> None:
    h, mean = torch.tensor([[3.0, 4.0]]), torch.tensor([0.6, 0.0])
    assert Scaling(10.0, False).apply(h, mean)[0].tolist() == pytest.approx([6, 8])
    assert Scaling(None, False).apply(h, mean)[0].tolist() == pytest.approx([3, 4])
    # u − ū = (0.6, 0.8) − (0.6, 0) = (0, 0.8): made unit, times 10
    assert Scaling(10.0, True).apply(h, mean)[0].tolist() == pytest.approx([0, 10], abs=1e-5)
    assert Scaling(None, True).apply(h, mean)[0].tolist() == pytest.approx([0, 5], abs=1e-5)


@pytest.mark.parametrize("ratio", [510, 2038])
def test_planted_mode_5_scale_far_from_the_norms(ratio: float) -> None:
    with pytest.raises(ModelError, match=f"ratio {ratio}"):
        check_scale(26.0 * ratio, 26.0, 100.0)
    with pytest.raises(ModelError, match="injection scale"):
        check_scale(1e-3, 26.0, 14000.0)
    assert check_scale(26.0, 26.0, 14000.0)["to_embedding_norm"] == 1.0
    assert check_scale(14000.0, 26.0, 14000.0)["to_activation_norm"] == 1.0


def test_contract_round_trip_and_foreign_spelling(toy_subject: Any, tmp_path: Any) -> None:
    contract = build_contract(toy_subject())
    contract.write(tmp_path / "nla_meta.yaml")
    assert read_contract(tmp_path) == contract
    foreign = contract.model_dump(mode="json")
    templates = foreign.pop("prompt_templates")
    foreign["prompt_templates"] = {"actor": templates["av"], "critic": templates["ar"]}
    foreign["critic"] = {"num_hidden_layers": 1}
    del foreign["ar"], foreign["nlakit"]
    read = Contract.model_validate(foreign)
    assert read.prompt_templates.ar == templates["ar"]
    assert read.ar["num_hidden_layers"] == 1
    assert read.ar_blocks == 2


def test_scale_words_of_the_sidecar(toy_subject: Any) -> None:
    contract = build_contract(toy_subject(), centring="none")
    contract.extraction.injection_scale = "sqrt_d_model"
    assert contract.scaling.scale == pytest.approx(32**0.5)
    contract.extraction.injection_scale = None
    assert contract.scaling.scale is None


def test_broken_sidecars(tmp_path: Any) -> None:
    with pytest.raises(ContractError, match="no sidecar"):
        read_contract(tmp_path)
    (tmp_path / "nla_meta.yaml").write_text("kind: [", encoding="utf-8")
    with pytest.raises(ContractError, match="not YAML"):
        read_contract(tmp_path)
    (tmp_path / "nla_meta.yaml").write_text("kind: nla_model", encoding="utf-8")
    with pytest.raises(ContractError, match="d_model"):
        read_contract(tmp_path)


def test_special_tokens_are_letters_unless_a_template_spells_them() -> None:
    tokenizer = toy_tokenizer()
    for text in ("a <eos> b", "<pad>", "<bos><eos>", "plain"):
        ids = encode(tokenizer, text, special=False)
        assert not {0, 1, 2} & set(ids)
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert encode(tokenizer, text, special=True) == [2, *ids]
    assert encode(tokenizer, "a<eos>", special=False, parse=True)[-1] == 1


def test_an_explanation_cannot_spell_the_special_tokens_of_its_template() -> None:
    tokenizer, template = toy_tokenizer(), "<eos>It says {explanation}<pad>"
    plain = ar_ids(tokenizer, template, "a b")
    assert plain == encode(tokenizer, "<eos>It says a b<pad>", special=True, parse=True)
    ids = ar_ids(tokenizer, template, "a <eos> b")
    assert (ids.count(0), ids.count(1), ids.count(2)) == (1, 1, 1)
    assert tokenizer.decode(ids[2:-1]) == "It says a <eos> b"
    assert not {0, 1} & set(ar_ids(tokenizer, "It says {explanation}.", "a <eos>"))


def test_a_parsed_text_has_one_bos() -> None:
    tokenizer = toy_tokenizer()
    assert document_ids(tokenizer, "<bos>a<eos>", "parse") == document_ids(
        tokenizer, "a<eos>", "parse"
    )
    assert document_ids(tokenizer, "<bos>", "text")[0] == 2
    assert document_ids(tokenizer, "<bos>", "text").count(2) == 1
