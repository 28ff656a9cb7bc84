"""Adapters of other projects: read exactly, as a plain reader reads them, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nlakit.errors import ContractError
from nlakit.models.foreign.convert import export_pair, import_pair
from nlakit.models.head import head_of
from nlakit.models.nla import NLA
from nlakit.models.verbalizer import Verbalizer
from tests.models.greedy import greedy_is_whole_forwards
from tests.reader_peft import PeftAV, write_av

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
DELTA = ["in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "out_proj"]
TEXT = "a text of words"


def logits(av: Verbalizer, vector: np.ndarray, text: str) -> torch.Tensor:
    """Logits `(t, v)` of our AV from the last token of the prompt on."""
    response = av.tokenizer(text, add_special_tokens=False)["input_ids"]
    with torch.no_grad(), av.injecting(av.scaled(vector[None])):
        hidden = av.decoder(input_ids=torch.tensor([av.prompt + response]), use_cache=False)[0]
    return head_of(av.model).logits(hidden[0, len(av.prompt) - 1 :])


def assert_read_exactly(
    nla: NLA, theirs: PeftAV, vectors: np.ndarray, way: str = "add", nearest: float = 0.9999
) -> None:
    """The same prompt, and for each vector the logits of the plain reader."""
    assert nla.av is not None and nla.av.prompt == theirs.ids
    for vector in vectors[:3]:
        made, known = logits(nla.av, vector, TEXT), theirs.logits(vector, TEXT, way)
        assert float(torch.nn.functional.cosine_similarity(made, known).min()) >= nearest
        assert torch.allclose(made, known, atol=1e-3)


@pytest.mark.parametrize("rank", [8, 6])
def test_rank_stabilised_adapters_are_read_and_kept_exactly(
    toy_folder: Any, vectors: np.ndarray, tmp_path: Path, rank: int
) -> None:
    """Their scale is alpha / sqrt(r): read, imported as ours and written again it stays that."""
    base, folder = toy_folder("llama"), tmp_path / "av"
    write_av(base, folder, ATTENTION, r=rank)
    theirs = PeftAV(folder, base)
    nla = NLA.load(folder, injection="add", **CPU)
    assert_read_exactly(nla, theirs, vectors)
    # Read as alpha / r the same file gives other logits: the test can tell the two apart.
    file = folder / "adapter_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"use_rslora": False}))
    wrong = NLA.load(folder, injection="add", **CPU).av
    assert wrong is not None
    assert not torch.allclose(
        logits(wrong, vectors[0], TEXT), theirs.logits(vectors[0], TEXT, "add"), atol=1e-2
    )
    file.write_text(json.dumps(settings))
    import_pair([folder], tmp_path / "ours", injection="add", **CPU)
    written = json.loads((tmp_path / "ours" / "av" / "adapter_config.json").read_text())
    assert not written["use_rslora"]
    assert written["lora_alpha"] / rank == pytest.approx(16 / rank**0.5, rel=1e-15)
    assert_read_exactly(NLA.load(tmp_path / "ours", device="cpu"), theirs, vectors)


def add_tower(folder: Path, value: float, module: str = "visual.blocks.0.attn.qkv") -> None:
    """Adapters on another part of the model, as a suffix list of modules leaves them."""
    file = folder / "adapter_model.safetensors"
    name = f"base_model.model.model.{module}"
    state = {
        f"{name}.lora_A.weight": torch.randn(8, 16),
        f"{name}.lora_B.weight": torch.full((16, 8), value),
    }
    save_file(load_file(file) | state, file)


@pytest.mark.parametrize(
    "module",
    [
        "visual.blocks.0.attn.qkv",
        "vision_tower.encoder.layers.0.self_attn.q_proj",
        "mtp.layers.0.self_attn.q_proj",
    ],
)
def test_adapters_on_a_tower_that_change_nothing_are_left_out(
    toy_folder: Any,
    vectors: np.ndarray,
    tmp_path: Path,
    module: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where a tower's blocks, or those that predict further tokens, are named as the language
    model's."""
    base, folder = toy_folder("llama"), tmp_path / "av"
    write_av(base, folder, ATTENTION)
    theirs = PeftAV(folder, base)
    add_tower(folder, 0.0, module)
    nla = NLA.load(folder, injection="add", **CPU)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 adapters with B = 0, which change nothing, are left out" in said and module in said
    assert_read_exactly(nla, theirs, vectors)
    write_av(base, folder, ATTENTION)
    add_tower(folder, 1e-8, module)
    with pytest.raises(ContractError, match=f"more than the blocks.*{module}") as caught:
        NLA.load(folder, injection="add", **CPU)
    assert "\n" not in str(caught.value)


def test_idle_adapters_on_modules_that_ours_do_not_adapt(
    toy_folder: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    base, folder = toy_folder("llama"), tmp_path / "av"
    write_av(base, folder, ATTENTION)
    theirs = PeftAV(folder, base)
    add_tower(folder, 0.0, "layers.0.mlp.experts.gate")
    assert_read_exactly(NLA.load(folder, injection="add", **CPU), theirs, vectors)
    write_av(base, folder, ATTENTION)
    add_tower(folder, 0.1, "layers.0.mlp.experts.gate")
    with pytest.raises(ContractError, match=r"2 unexpected, first layers\.0\.mlp\.experts\.gate"):
        NLA.load(folder, injection="add", **CPU)


@pytest.mark.parametrize("family", ["qwen3_next", "qwen3_5"])
def test_adapters_on_linear_attention_are_read_and_kept(
    toy_folder: Any, vectors: np.ndarray, tmp_path: Path, family: str
) -> None:
    """Read, imported as ours, and written as adapters again; and rows that end at different steps
    leave the others alone in the caches of both kinds of attention."""
    base, folder = toy_folder(family), tmp_path / "av"
    write_av(base, folder, ATTENTION + DELTA)
    theirs = PeftAV(folder, base)
    assert any("linear_attn.in_proj" in name for name in theirs.model.state_dict())
    assert_read_exactly(NLA.load(folder, injection="add", **CPU), theirs, vectors)
    import_pair([folder], tmp_path / "ours", injection="add", **CPU)
    again = NLA.load(tmp_path / "ours", device="cpu")
    assert_read_exactly(again, theirs, vectors)
    assert again.av is not None
    greedy_is_whole_forwards(again.av, again.av.scaled(vectors[:3]), 6)
    texts = again.av.explain(vectors)
    assert len(set(map(len, texts))) > 1
    assert [again.av.explain(vector[None])[0] for vector in vectors] == texts
    export_pair(again, tmp_path / "theirs", "peft")
    written = PeftAV(tmp_path / "theirs" / "av", base)
    assert_read_exactly(again, written, vectors)
    known = theirs.logits(vectors[0], TEXT, "add")
    assert torch.allclose(written.logits(vectors[0], TEXT, "add"), known, atol=1e-3)


def test_adapters_on_linear_attention_of_another_model_are_refused(
    toy_folder: Any, tmp_path: Path
) -> None:
    write_av(toy_folder("qwen3_next"), tmp_path / "av", ATTENTION + DELTA)
    with pytest.raises(ContractError, match=r"unexpected, first layers\.0\.linear_attn\.in_proj"):
        NLA.load(tmp_path / "av", injection="add", base_model=str(toy_folder("llama")), **CPU)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias lora_only"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"use_qalora": True}, "use_qalora"),
        ({"kasa_config": {"beta": 1}}, "kasa_config"),
        ({"use_what_comes_next": True}, "use_what_comes_next"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights loftq"),
        ({"init_lora_weights": "another"}, "init_lora_weights another"),
    ],
)
def test_adapters_of_another_kind_are_refused_by_name(
    toy_folder: Any, tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    write_av(toy_folder("llama"), tmp_path, ATTENTION)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ContractError, match=f"no plain LoRA.*{says}") as caught:
        NLA.load(tmp_path, injection="add", **CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ("a/author/{name}", False),
        ("/cache/models--a--{name}/snapshots/0123abcd", False),
        ("/scratch/{name}-merged", True),
        (None, False),
    ],
)
def test_adapters_made_over_a_model_of_another_name_are_told(
    toy_folder: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    made: str | None,
    told: bool,
) -> None:
    """Other adapters may have been merged into it, and the sidecar names the model below."""
    base = toy_folder("llama")
    write_av(base, tmp_path, ATTENTION)
    file = tmp_path / "adapter_config.json"
    over = made and made.format(name=base.name)
    change = {"base_model_name_or_path": over}
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    NLA.load(tmp_path, injection="add", **CPU)
    said = " ".join(capsys.readouterr().err.split())
    assert (f"were made over {over}, and are read over {base}" in said) == told
