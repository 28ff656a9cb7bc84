"""Decoder directions of SAEs in the layouts in which they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nlakit.core.contract import Contract
from nlakit.errors import ConfigError, ContractError
from nlakit.models.foreign.sae import model_key, open_sae, parse_features

M, WIDTH = 6, 4
DECODER = np.arange(M * WIDTH, dtype=np.float32).reshape(M, WIDTH)


def contract_of(
    subject: str = "google/gemma-2-2b", layer: int = 12, width: int = WIDTH
) -> Contract:
    extraction = {"base_model": subject, "layer_index": layer}
    return Contract.model_validate(
        {"kind": "nla_model", "d_model": width, "extraction": extraction}
    )


def saelens(folder: Path, stored: torch.dtype = torch.float32, **settings: Any) -> Path:
    """What `SAE.save_model` writes: tensors by their names, settings as JSON."""
    folder.mkdir(parents=True)
    decoder = torch.tensor(DECODER).to(stored)
    tensors = {
        "W_enc": decoder.T.contiguous(), "W_dec": decoder, "b_enc": torch.zeros(M, dtype=stored),
        "b_dec": torch.zeros(WIDTH, dtype=stored),
    }  # fmt: skip
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps({"d_in": WIDTH, "d_sae": M, **settings}))
    return folder


# As versions 1, 3 and 6 of SAELens write them.
OLDEST = {
    "model_name": "gemma-2-2b", "hook_point": "blocks.12.hook_resid_post", "hook_point_layer": 12,
    "hook_point_head_index": None, "dtype": "torch.float32",
}  # fmt: skip
OLD = {
    "architecture": "standard", "model_name": "gemma-2-2b", "hook_layer": 12,
    "hook_name": "blocks.12.hook_resid_post", "hook_head_index": None, "dtype": "float32",
}  # fmt: skip
NEW = {
    "architecture": "jumprelu", "dtype": "float32", "apply_b_dec_to_input": False,
    "metadata": {
        "sae_lens_version": "6.12.1", "model_name": "gemma-2-2b",
        "hook_name": "blocks.12.hook_resid_post",
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", [OLDEST, OLD, NEW], ids=["oldest", "old", "new"])
def test_every_version_of_saelens_is_read(tmp_path: Path, settings: dict[str, Any]) -> None:
    sae = open_sae(saelens(tmp_path / "sae", **settings))
    assert (sae.subject, sae.layer, sae.features, sae.width) == ("gemma-2-2b", 12, M, WIDTH)
    sae.check(contract_of())
    np.testing.assert_array_equal(sae.directions([5, 0, 2]), DECODER[[5, 0, 2]])
    assert open_sae(tmp_path / "sae" / "sae_weights.safetensors") == sae


def test_half_precision_is_read(tmp_path: Path) -> None:
    found = open_sae(saelens(tmp_path / "sae", torch.bfloat16, **NEW)).directions([1])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, DECODER[[1]])


def gemma_scope_2(folder: Path, **settings: Any) -> Path:
    folder.mkdir(parents=True)
    save_file({"w_dec": torch.tensor(DECODER), "w_enc": torch.zeros(WIDTH, M)},
              folder / "params.safetensors")  # fmt: skip
    given = {
        "hf_hook_point_in": "model.layers.12.output", "hf_hook_point_out": "model.layers.12.output",
        "model_name": "google/gemma-3-1b-pt", "architecture": "jump_relu", "width": M, "l0": 60,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(given | settings))
    return folder


def test_gemma_scope_2_is_read(tmp_path: Path) -> None:
    sae = open_sae(gemma_scope_2(tmp_path / "layer_12_width_16k_l0_medium"))
    sae.check(contract_of("google/gemma-3-1b-pt"))
    sae.check(contract_of("unsloth/gemma-3-1b"))
    np.testing.assert_array_equal(sae.directions([3]), DECODER[[3]])


def test_gemma_scope_says_neither_model_nor_layer(tmp_path: Path) -> None:
    folder = tmp_path / "layer_12" / "width_16k" / "average_l0_82"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", W_dec=DECODER, W_enc=DECODER.T)
    with pytest.raises(ContractError, match="does not say its layer; do: if it reads the pair's"):
        open_sae(folder).check(contract_of())
    sae = open_sae(folder, "google/gemma-2-2b:12")
    sae.check(contract_of())
    np.testing.assert_array_equal(sae.directions([4, 4]), DECODER[[4, 4]])
    (folder / "params.npz").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ContractError, match="is damaged"):
        open_sae(folder)


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.7.hook_resid_post", 7), ("blocks.7.hook_resid_pre", 6), ("model.layers.7", 7),
        ("transformer.h.7", 7), ("gpt_neox.layers.7", 7), ("model.layers.7.output", 7),
        ("model.language_model.layers.7.output", 7),
    ],
)  # fmt: skip
def test_the_residual_stream_by_all_its_names(tmp_path: Path, hook: str, layer: int) -> None:
    found = open_sae(saelens(tmp_path / "sae", metadata={"hook_name": hook, "model_name": "m"}))
    assert found.layer == layer


@pytest.mark.parametrize(
    "hook",
    ["blocks.7.hook_mlp_out", "blocks.7.attn.hook_z", "hook_embed", "blocks.0.hook_resid_pre",
     "model.layers.7.self_attn.o_proj.input", "model.layers.7.mlp"],
)  # fmt: skip
def test_other_places_are_refused(tmp_path: Path, hook: str) -> None:
    with pytest.raises(ContractError, match=f"does not read the output of a block; found: {hook}"):
        open_sae(saelens(tmp_path / "sae", hook_name=hook, model_name="m"))


def test_transcoders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="holds a transcoder"):
        open_sae(saelens(tmp_path / "a", **NEW | {"architecture": "skip_transcoder"}))
    with pytest.raises(ContractError, match=r"holds a transcoder.*layers\.12\.output to .*13"):
        open_sae(gemma_scope_2(tmp_path / "b", hf_hook_point_out="model.layers.13.output"))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (contract_of(layer=11), "another layer than the pair; found: 12, and 11"),
        (contract_of(width=8), "another width than the pair; found: 4, and 8"),
        (contract_of("google/gemma-2-9b"), "another subject .* gemma-2-2b, and google/gemma-2-9b"),
    ],
)
def test_what_the_pair_does_not_read_is_refused(
    tmp_path: Path, wanted: Contract, said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        open_sae(saelens(tmp_path / "sae", **NEW)).check(wanted)


def test_the_same_model_under_another_name(tmp_path: Path) -> None:
    wanted = contract_of("/models/my copy")
    folder = saelens(tmp_path / "sae", **NEW)
    with pytest.raises(ContractError, match="another subject.* do: .*--sae-of NAME:LAYER"):
        open_sae(folder).check(wanted)
    open_sae(folder, "/models/my copy:12").check(wanted)
    with pytest.raises(ContractError, match="another layer"):
        open_sae(folder, "/models/my copy:3").check(wanted)


def test_models_are_known_without_their_owners() -> None:
    same = [
        "google/gemma-3-270m",
        "gemma-3-270m-pt",
        "unsloth/Gemma-3-270m/",
        "C:\\m\\gemma-3-270m",
    ]
    assert {model_key(name) for name in same} == {"gemma-3-270m"}
    assert model_key("openai-community/gpt2") == model_key("gpt2-small") != model_key("gpt2-xl")
    assert model_key("gemma-2-2b") != model_key("gemma-2-2b-it")


def test_features_are_numbers_and_ranges() -> None:
    assert parse_features("0-3") == [0, 1, 2, 3]
    assert parse_features("9, 2-4,3") == [9, 2, 3, 4]
    for wrong in ("", "a", "3-1", "-1", "1-", "1.5", "²"):
        with pytest.raises(ConfigError, match="takes numbers and ranges"):
            parse_features(wrong)


def test_faults_are_named(tmp_path: Path) -> None:
    folder = saelens(tmp_path / "sae", **NEW)
    with pytest.raises(ConfigError, match="no feature 6; found: 6 features; do: give 0 to 5"):
        open_sae(folder).directions([0, 6])
    for wrong in ("gemma-2-2b", ":3", "gemma:x"):
        with pytest.raises(ConfigError, match="--sae-of takes the model and the layer"):
            open_sae(folder, wrong)
    with pytest.raises(ContractError, match="no SAE in .*nowhere; found: no such folder"):
        open_sae(tmp_path / "nowhere")
    save_file({"W_enc": torch.zeros(WIDTH, M)}, folder / "sae_weights.safetensors")
    with pytest.raises(ContractError, match="has no W_dec; found: W_enc"):
        open_sae(folder)
    save_file({"W_dec": torch.full((M, WIDTH), torch.nan)}, folder / "sae_weights.safetensors")
    with pytest.raises(ContractError, match="not finite"):
        open_sae(folder).directions([0])
    (folder / "sae_weights.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(ContractError, match="is damaged"):
        open_sae(folder)
    (folder / "sae_weights.safetensors").unlink()
    with pytest.raises(ContractError, match="none of its files"):
        open_sae(folder)
