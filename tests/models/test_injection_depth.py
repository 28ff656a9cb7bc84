"""The vector behind blocks: in training, log-probabilities and cached decoding, on every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from nlakit.config.sections import AVConfig
from nlakit.core.injection import Injection, inject, norm_matched
from nlakit.errors import ContractError
from nlakit.models.subject import blocks_of, capture
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.ar import enable_checkpointing
from nlakit.train.av import way_in
from tests.conftest import FAMILIES, SMALL_LORA, D, build_contract
from tests.models.greedy import greedy_is_whole_forwards

WAYS = {
    "each block": Injection(blocks=(0, 1, 2), block_scale=30.0),
    "one block": Injection(embedding=False, blocks=(1,), block_scale=30.0),
    "add": Injection(embedding=False, blocks=(1,), how="add"),
}
everywhere = pytest.mark.parametrize("family", FAMILIES)
each_way = pytest.mark.parametrize("way", WAYS)


def verbalizer(subject: Any, way: str) -> Verbalizer:
    contract = build_contract(subject, injection=WAYS[way])
    return Verbalizer(subject, contract, np.full(D, 0.01), SMALL_LORA, 0).eval()


@torch.no_grad()
def states(av: Verbalizer, injected: torch.Tensor | None, ids: torch.Tensor) -> dict[int, Any]:
    """Outputs `(b, t, d)` of all blocks but the last, as the next block gets them."""
    with av.injecting(injected), capture(av.decoder, range(len(blocks_of(av.decoder)) - 1)) as seen:
        av.decoder(input_ids=ids, use_cache=False)
    return seen


@everywhere
@each_way
def test_the_markers_row_alone_is_changed(
    toy_subject: Any, vectors: np.ndarray, family: str, way: str
) -> None:
    """What stands before the marker is the same bit for bit behind every block; the marker's row
    is what the contract says; what stands behind it sees it."""
    av, injection = verbalizer(toy_subject(family), way), WAYS[way]
    injected = av.scaled(vectors[:3])
    ids = torch.tensor([[*av.prompt, 40, 41, 42]] * 3)
    place = av.prompt.index(av.contract.tokens.injection_token_id)
    plain, changed = states(av, None, ids), states(av, injected, ids)
    first = 0 if injection.embedding else injection.blocks[0]
    for block in plain:
        assert torch.equal(plain[block][:, :place], changed[block][:, :place])
        same_after = torch.equal(plain[block][:, place + 1 :], changed[block][:, place + 1 :])
        assert same_after == (block <= first and not injection.embedding)
        if block in injection.blocks and injection.how == "replace":
            row = changed[block][:, place]
            assert torch.allclose(row.norm(dim=-1), torch.tensor(30.0), rtol=1e-5)
            direction = torch.nn.functional.normalize(injected, dim=-1)
            assert torch.allclose(row / 30.0, direction, atol=1e-6)
    if injection.how == "add":
        own, row = plain[1][:, place], changed[1][:, place]
        wanted = own + own.norm(dim=-1, keepdim=True) * torch.nn.functional.normalize(injected)
        assert torch.allclose(row, wanted, rtol=1e-5, atol=1e-5)


@everywhere
@each_way
def test_cached_decoding_and_losses_are_those_of_whole_forwards(
    toy_subject: Any, vectors: np.ndarray, family: str, way: str
) -> None:
    av = verbalizer(toy_subject(family), way)
    greedy_is_whole_forwards(av, av.scaled(vectors[:2]), 4)


@everywhere
@each_way
def test_recomputed_blocks_give_the_same_gradient(
    toy_subject: Any, vectors: np.ndarray, family: str, way: str
) -> None:
    """The backward pass runs after the body of `injecting` has ended."""
    subject, found = toy_subject(family), []
    for checkpointing in (False, True):
        av = verbalizer(subject, way).train()
        torch.manual_seed(0)
        with torch.no_grad():  # B starts at zero and would hide A's gradient
            for name, parameter in av.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        if checkpointing:
            enable_checkpointing(av.model)
        av.nll(av.scaled(vectors[:2]), [[40, 41, 42], [50, 51]]).mean().backward()
        found.append({n: p.grad for n, p in av.named_parameters() if p.grad is not None})
    plain, recomputed = found
    assert plain and plain.keys() == recomputed.keys()
    for name, gradient in plain.items():
        assert torch.allclose(recomputed[name], gradient, rtol=1e-4, atol=1e-7), name


def test_the_maths_by_hand() -> None:
    hidden = torch.tensor([[[3.0, 4.0], [1.0, 0.0]], [[0.0, 2.0], [6.0, 8.0]]])
    rows, columns = torch.tensor([0, 1]), torch.tensor([0, 1])
    vectors = torch.tensor([[0.0, 7.0], [0.0, 0.0]])
    added = norm_matched(hidden, rows, columns, vectors)
    assert added[0].tolist() == [[3.0, 9.0], [1.0, 0.0]]  # 4 + |h| = 5 along the second axis
    assert torch.equal(added[1], hidden[1])  # a zero vector has no direction
    assert inject(hidden, rows, columns, vectors)[:, :, 1].tolist() == [[7.0, 0.0], [2.0, 0.0]]


def test_padding_on_the_left_and_rows_in_any_order(toy_subject: Any, vectors: np.ndarray) -> None:
    av = verbalizer(toy_subject("llama"), "each block")
    injected = av.scaled(vectors[:1])
    alone = states(av, injected, torch.tensor([av.prompt]))[2][0]
    ids = torch.tensor([[0, 0, 0, *av.prompt]])
    mask = torch.tensor([[0, 0, 0] + [1] * len(av.prompt)])
    with torch.no_grad(), av.injecting(injected), capture(av.decoder, [2]) as seen:
        av.decoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            use_cache=False,
        )
    assert torch.allclose(seen[2][0, 3:], alone, atol=1e-4)


def test_the_way_in_is_recorded_and_read_again(
    toy_subject: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    subject = toy_subject("llama", 2)
    plain = build_contract(subject)
    for settings, expected in (
        ({"injection": "reference"}, None),
        ({}, Injection(blocks=(0, 1, 2), block_scale=10.0)),
        (
            {"injection": "blocks", "injection_blocks": [2]},
            Injection(blocks=(2,), block_scale=10.0),
        ),
        ({"injection": "add"}, WAYS["add"]),
    ):
        assert way_in(AVConfig.model_validate(settings), plain) == expected
    av = verbalizer(subject, "each block")
    av.save(tmp_path)
    from nlakit.core.contract import read_contract

    read = read_contract(tmp_path)
    assert read.injection == WAYS["each block"]
    again = Verbalizer.load(subject, read, np.full(D, 0.01), tmp_path)
    assert again.explain(vectors[:2]) == av.explain(vectors[:2])
    assert again.contract.injection.described() == (
        "in place of the marker's embedding and the marker's row behind blocks 0 to 2"
    )


def test_blocks_without_a_use_or_a_place_are_told(toy_subject: Any) -> None:
    with pytest.raises(ValidationError, match="are not used by injection: reference"):
        AVConfig.model_validate({"injection": "reference", "injection_blocks": [1]})
    subject = toy_subject("llama")
    deep = build_contract(subject, injection=Injection(blocks=(9,)))
    with pytest.raises(ContractError, match="found: block 9 of 4"):
        Verbalizer(subject, deep, np.zeros(D), SMALL_LORA, 0)
