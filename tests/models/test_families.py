"""What must hold for every architecture, at toy size with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma4Config,
    Mistral3Config,
)

from nlakit.config.sections import SubjectConfig
from nlakit.errors import ConfigError, ContractError, DataError, ModelError
from nlakit.models.decode import Decoding
from nlakit.models.families import check_weights, is_tested, load_causal_lm
from nlakit.models.head import head_of
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import (
    blocks_of,
    capture,
    decoder_of,
    load_subject,
    sliced_decoder,
    verify_family,
)
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.ar import enable_checkpointing
from tests.conftest import FAMILIES, LAYERS, SMALL_LORA, VOCAB, D, build_contract, toy_config
from tests.models.greedy import greedy_is_whole_forwards

IDS = torch.tensor([[2, 10, 45, 60, 33, 80, 21, 9], [2, 44, 70, 31, 90, 12, 55, 66]])


def states_of(subject: Any, ids: torch.Tensor = IDS) -> list[torch.Tensor]:
    """hidden_states; of Gemma 3n's streams the active one."""
    with torch.no_grad():
        states = subject.model(input_ids=ids, output_hidden_states=True).hidden_states
    return [state[0] if state.ndim == 4 else state for state in states]


@pytest.mark.parametrize("family", FAMILIES)
def test_capture_is_hidden_states_k_plus_1(toy_subject: Any, family: str) -> None:
    subject = toy_subject(family)
    states, layers = states_of(subject), range(subject.blocks - 1)
    with torch.no_grad(), capture(decoder_of(subject.model), layers) as found:
        subject.model(input_ids=IDS)
    for layer in layers:
        assert torch.equal(found[layer], states[layer + 1])
        assert not torch.equal(found[layer], states[layer])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_sliced_decoder_equals_hidden_states_bit_for_bit(
    toy_subject: Any, family: str, dtype: str
) -> None:
    subject = toy_subject(family, dtype=dtype)
    states = states_of(subject)
    for blocks in (1, subject.config.layer + 1):
        with torch.no_grad():
            sliced = sliced_decoder(subject.model, blocks)(input_ids=IDS, use_cache=False)[0]
        assert torch.equal(sliced, states[blocks])


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_either_side_changes_nothing(toy_subject: Any, family: str) -> None:
    """With a mask and positions that count real tokens, a row is the same alone, and padded on
    the left or the right beside a longer one."""
    subject = toy_subject(family)
    long = torch.randint(5, 90, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    for decoder in (
        decoder_of(subject.model),
        sliced_decoder(subject.model, subject.config.layer + 1),
    ):
        for short in (IDS[0].tolist(), long[:30]):
            pad = [0] * (len(long) - len(short))
            with torch.no_grad():
                alone = decoder(input_ids=torch.tensor([short]), use_cache=False)[0][0]
                for left, right in ((pad, []), ([], pad)):
                    mask = torch.tensor(
                        [[1] * len(long), [0 * p for p in left] + [1] * len(short) + right]
                    )
                    padded = decoder(
                        input_ids=torch.tensor([long, left + short + right]),
                        attention_mask=mask,
                        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
                        use_cache=False,
                    )[0][1]
                    kept = padded[len(left) : len(left) + len(short)]
                    assert torch.allclose(
                        kept, alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max())
                    )


@pytest.mark.parametrize("family", FAMILIES)
def test_head_gives_the_models_own_logits(toy_subject: Any, family: str) -> None:
    """Softcaps and biases included; and the loss in tiles is the cross-entropy of these logits."""
    subject = toy_subject(family)
    head, targets = head_of(subject.model), IDS[:, 1:].reshape(-1)
    with torch.no_grad():
        logits = subject.model(input_ids=IDS).logits[:, :-1].reshape(len(targets), -1)
        hidden = decoder_of(subject.model)(input_ids=IDS, use_cache=False)[0][:, :-1]
        hidden = hidden.reshape(len(targets), -1)
    assert torch.allclose(head.logits(hidden), logits, atol=1e-5)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(head.nll(hidden, targets), expected, atol=1e-4)
    subject.model.requires_grad_(True)  # a head that is trained goes another way
    trained = head_of(subject.model).nll(hidden.requires_grad_(), targets)
    assert torch.allclose(trained, expected, atol=1e-4)
    trained.sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_check_of_untested_families_passes_for_tested_ones(
    toy_subject: Any, family: str
) -> None:
    subject = toy_subject(family)
    assert is_tested(subject.model)
    verify_family(subject.model)


def test_last_block_is_captured_before_the_final_norm(toy_subject: Any) -> None:
    subject = toy_subject("gemma3", LAYERS - 1)
    with torch.no_grad(), capture(decoder_of(subject.model), [LAYERS - 1]) as found:
        states = subject.model(input_ids=IDS, output_hidden_states=True).hidden_states
    assert not torch.allclose(found[LAYERS - 1], states[-1])


def test_three_trees_share_one_set_of_weights(toy_subject: Any) -> None:
    subject = toy_subject()
    contract = build_contract(subject)
    av = Verbalizer(subject, contract, np.zeros(D), SMALL_LORA, 0)
    ar = Reconstructor(subject, contract, SMALL_LORA, 0)
    base = {p.data_ptr() for p in subject.model.parameters()}
    for half in (av.model, ar.decoder):
        frozen = {p.data_ptr() for p in half.parameters() if not p.requires_grad}
        assert frozen <= base
    assert len(blocks_of(decoder_of(subject.model))) == LAYERS


@pytest.mark.parametrize("family", FAMILIES)
def test_injection_changes_exactly_the_markers_row(
    toy_subject: Any, vectors: np.ndarray, family: str
) -> None:
    """The same hook serves training, log-probabilities and cached generation."""
    subject = toy_subject(family)
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    injected = av.scaled(vectors[:2])
    seen: list[torch.Tensor] = []
    tables: list[torch.Tensor] = []

    def see(module: Any, args: Any, kwargs: Any) -> None:
        entered = (args or tuple(kwargs.values()))[0].clone()
        seen.append(entered[0] if entered.ndim == 4 else entered)

    handle = blocks_of(av.decoder)[0].register_forward_pre_hook(see, with_kwargs=True)
    per_layer = getattr(av.decoder, "embed_tokens_per_layer", None)
    if per_layer is not None:
        per_layer.register_forward_hook(lambda module, args, output: tables.append(args[0]))
    response = av.response_ids("abc", 64)
    av.nll(injected, [response, response])
    av.nll(None, [response, response])
    training, plain = seen
    place = av.prompt.index(av.contract.tokens.injection_token_id)
    differs = (training != plain).any(dim=-1)
    assert differs[:, place].all() and differs.sum() == 2
    for ids in tables:  # per-layer embeddings get the real ids, the marker's among them
        assert ids[:, : len(av.prompt)].tolist() == [av.prompt] * 2
    seen.clear()
    av.write(injected, 0, 2, Decoding(3))
    prefill = seen[0]
    assert torch.equal(prefill, training[:, : len(av.prompt)])
    assert all(step.shape[1] == 1 for step in seen[1:])
    handle.remove()


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_decoding_is_uncached_greedy(
    toy_subject: Any, vectors: np.ndarray, family: str
) -> None:
    """And the loss of each token is −log p by the logits that chose it."""
    subject = toy_subject(family)
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    greedy_is_whole_forwards(av, av.scaled(vectors[:3]), 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_save_load_equal(toy_subject: Any, vectors: np.ndarray, family: str, tmp_path: Any) -> None:
    subject = toy_subject(family)
    contract = build_contract(subject)
    av = Verbalizer(subject, contract, np.full(D, 0.01), SMALL_LORA, 3)
    ar = Reconstructor(subject, contract, SMALL_LORA, 4)
    torch.manual_seed(0)
    with torch.no_grad():
        for half in (av, ar):
            for parameter in half.parameters():
                if parameter.requires_grad:
                    noise = 0.1 * torch.randn_like(parameter)
                    parameter.copy_((parameter + noise).to(torch.bfloat16).float())
    av.save(tmp_path / "av")
    ar.save(tmp_path / "ar")
    again = Verbalizer.load(toy_subject(family), contract, np.full(D, 0.01), tmp_path / "av")
    back = Reconstructor.load(toy_subject(family), contract, tmp_path / "ar")
    assert np.array_equal(ar.eval().reconstruct(["one", "two three"]),
                          back.reconstruct(["one", "two three"]))  # fmt: skip
    assert av.eval().explain(vectors[:2]) == again.explain(vectors[:2])


@pytest.mark.parametrize("family", FAMILIES)
def test_ar_gradient_reaches_every_adapter(toy_subject: Any, family: str) -> None:
    """And is the same when blocks are recomputed in the backward pass."""
    subject = toy_subject(family)
    found: list[dict[str, torch.Tensor]] = []
    for checkpointing in (False, True):
        ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).train()
        torch.manual_seed(0)
        with torch.no_grad():  # B starts at zero and would hide A's gradient
            for name, parameter in ar.named_parameters():
                if "lora_B" in name:
                    parameter.normal_()
        if checkpointing:
            enable_checkpointing(ar.decoder)
        ar([ar.encode("some text", 99)])[0].square().sum().backward()
        trained = {name: p for name, p in ar.named_parameters() if p.requires_grad}
        assert {"q_proj", "qkv_proj", "c_attn", "query_key_value"} & {
            part for name in trained for part in name.split(".")
        }
        assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in trained.values())
        found.append({name: p.grad for name, p in trained.items() if p.grad is not None})
    plain, recomputed = found
    for name, gradient in plain.items():
        assert torch.allclose(recomputed[name], gradient, rtol=1e-5), name


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_order_changes_nothing(toy_subject: Any, family: str) -> None:
    subject = toy_subject(family)
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    texts = ["short", "a much longer explanation of something", "middle size", ""]
    together = ar.reconstruct(texts)
    apart = np.concatenate([ar.reconstruct([text]) for text in texts])
    rounding = 1e-5 * float(np.abs(together).max())
    assert np.allclose(together, apart, atol=rounding)
    assert np.allclose(ar.reconstruct(texts[::-1])[::-1], together, atol=rounding)


def test_batch_budget_is_kept(toy_subject: Any) -> None:
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    texts = [f"text {'x' * i}" for i in range(20)]
    assert np.allclose(
        ar.reconstruct(texts, tokens_per_batch=100), ar.reconstruct(texts), atol=1e-5
    )


def test_identity_head_reads_the_last_token(toy_subject: Any) -> None:
    """Before training the AR's output is the subject's own layer K at the prompt's last token."""
    subject = toy_subject("gemma3", 1)
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    ids = ar.encode("hello", 99)
    with torch.no_grad():
        states = subject.model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        made = ar([ids])
    assert torch.allclose(made[0], states.hidden_states[2][0, -1].float(), atol=1e-6)


def test_long_explanations_keep_the_suffix(toy_subject: Any) -> None:
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0)
    ids = ar.encode("x" * 500, 80)
    assert len(ids) == 80
    assert ids[-len(ar.suffix) :] == ar.suffix


def test_no_room_for_text_is_told(toy_subject: Any) -> None:
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0)
    with pytest.raises(ConfigError, match=f"take {len(ar.suffix)}"):
        ar.encode("x" * 500, len(ar.suffix))
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0)
    taken = len(av.prompt) + len(av.close)
    with pytest.raises(ConfigError, match=f"take {taken}"):
        av.response_ids("x" * 500, taken)
    assert len(av.response_ids("x" * 500, taken + 1)) == 1 + len(av.close)


def test_numbers_that_are_none_are_told(toy_subject: Any, vectors: np.ndarray) -> None:
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0)
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    with torch.no_grad():
        ar.head.weight[0] = torch.nan
        subject.model.get_input_embeddings().weight.fill_(torch.inf)
    with pytest.raises(DataError, match="reconstructions are not finite"):
        ar.reconstruct(["x"])
    with pytest.raises(DataError, match="verbalizer's outputs are not finite"):
        av.explain(vectors[:1])
    nla = NLA(subject, av, ar, None)
    with pytest.raises(DataError, match="activations of layer 1 are not finite"):
        nla.activations("some text")


def test_a_text_is_reconstructed_once(toy_subject: Any, vectors: np.ndarray) -> None:
    """The empty text is the floor of every row."""
    subject = toy_subject()
    ar = Reconstructor(subject, build_contract(subject), SMALL_LORA, 0).eval()
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0).eval()
    alone = ar.reconstruct(["b", "", "a"])
    asked: list[list[str]] = []
    made = ar.reconstruct
    ar.reconstruct = lambda texts: asked.append(list(texts)) or made(texts)
    nla = NLA(subject, av, ar, np.zeros(D))
    assert np.allclose(nla.reconstruct(["b", "", "b", "a", ""]), alone[[0, 1, 0, 2, 1]], atol=1e-6)
    assert nla.reconstruct([]).shape == (0, D)
    assert asked == [["b", "", "a"], []]
    asked.clear()
    found = nla.explain(vectors)
    assert asked[1] == [""]
    floors = nla.score([""] * len(vectors), vectors)
    assert [one.floor for one in found] == [floor.centred_cosine for floor in floors]


def edited_copy(source: Path, target: Path, **settings: Any) -> Path:
    """A copy of a saved model with other settings."""
    shutil.copytree(source, target)
    file = target / "config.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | settings), encoding="utf-8")
    return target


def subject_at(folder: Path) -> Any:
    settings = {"model": str(folder), "dtype": "float32", "device": "cpu", "layer": 1}
    return load_subject(SubjectConfig.model_validate(settings))


@pytest.mark.parametrize(
    ("family", "names"),
    [("llama", ["attention_dropout"]), ("gpt_neox", ["attention_dropout", "hidden_dropout"])],
)
def test_nothing_drops_out_in_training(
    toy_folder: Any, tmp_path: Path, family: str, names: list[str]
) -> None:
    """Blocks keep these as numbers, not as layers."""
    folder = edited_copy(toy_folder(family), tmp_path / "m", **dict.fromkeys(names, 0.5))
    model = subject_at(folder).model.train()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_model_that_looks_ahead_is_refused(toy_folder: Any, tmp_path: Path) -> None:
    folder = edited_copy(toy_folder("gemma3"), tmp_path / "m", use_bidirectional_attention=True)
    with pytest.raises(ModelError, match="see what follows them"):
        subject_at(folder)


def test_half_a_download_is_told(toy_folder: Any, tmp_path: Path) -> None:
    folder = edited_copy(toy_folder("gemma3"), tmp_path / "m")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="cannot load the subject"):
        subject_at(folder)


def test_width_and_layer_errors(toy_subject: Any, toy_folder: Any) -> None:
    subject = toy_subject()
    av = Verbalizer(subject, build_contract(subject), np.zeros(D), SMALL_LORA, 0)
    with pytest.raises(ContractError, match="16 instead of 32"):
        av.scaled(np.ones((2, 16), dtype=np.float32))
    for bad in (np.nan, 0.0):
        with pytest.raises(DataError, match="without a direction"):
            av.scaled(np.full((1, D), bad, dtype=np.float32))
    with pytest.raises(ModelError, match="no block 9"):
        toy_subject("gemma3", 9)


def changed_copy(source: Path, target: Path, change: Any) -> Path:
    """A copy of a saved model whose weights went through `change(state)`."""
    shutil.copytree(source, target)
    state = load_file(target / "model.safetensors")
    change(state)
    save_file(state, target / "model.safetensors", {"format": "pt"})
    return target


def widen(state: dict[str, torch.Tensor]) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    state[name] = torch.cat([state[name], state[name]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.layers.2.mlp.up_proj.weight"), "1 missing"),
        (lambda state: state.update({"model.layers.9.extra": torch.ones(1)}), "1 unexpected"),
        (widen, "1 of another shape"),
    ],
)
def test_weights_of_another_model_are_refused(
    toy_folder: Any, tmp_path: Path, change: Any, message: str
) -> None:
    broken = changed_copy(toy_folder("llama"), tmp_path / "broken", change)
    _, info = load_causal_lm(str(broken), torch.float32)
    with pytest.raises(ModelError, match=message):
        check_weights("broken", info)
    with pytest.raises(ModelError):
        load_subject(SubjectConfig(model=str(broken), layer=1, dtype="float32", device="cpu"))


def test_masks_stored_by_old_checkpoints_are_no_fault(toy_folder: Any, tmp_path: Path) -> None:
    def add(state: dict[str, torch.Tensor]) -> None:
        state["transformer.h.0.attn.bias"] = torch.ones(1)
        state["transformer.h.0.attn.masked_bias"] = torch.ones(1)

    _, info = load_causal_lm(
        str(changed_copy(toy_folder("gpt2"), tmp_path / "old", add)), torch.float32
    )
    check_weights("old", info)


VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip
WRAPPERS: dict[str, Any] = {
    "gemma3": Gemma3Config,
    "gemma4": Gemma4Config,
    "gemma4_large": Gemma4Config,
    "mistral": Mistral3Config,
}


def wrapped(family: str) -> Any:
    """A multimodal model of random weights around the family's toy."""
    torch.manual_seed(2)
    parts: dict[str, Any] = {"text_config": toy_config(family), "vision_config": VISION}
    if family == "gemma3":
        parts["vision_config"] = {**VISION, "image_size": 16, "patch_size": 4}
        parts["mm_tokens_per_image"] = 4
    if family == "mistral":
        parts["vision_config"] = {**VISION, "model_type": "pixtral", "head_dim": 8}
    return AutoModelForImageTextToText.from_config(WRAPPERS[family](**parts)).eval()


@pytest.mark.parametrize("layout", ["saved", "old"])
@pytest.mark.parametrize("family", WRAPPERS)
def test_of_a_multimodal_checkpoint_the_text_model_is_loaded(
    family: str, layout: str, tmp_path: Path
) -> None:
    """No tower is built, no weight is lost, and the text model puts out what it does inside."""
    whole = wrapped(family)
    whole.save_pretrained(tmp_path / "saved")
    folder = tmp_path / "saved"
    if layout == "old":  # how checkpoints of Gemma 3 and Mistral 3 lie on the hub

        def rename(state: dict[str, torch.Tensor]) -> None:
            for name in list(state):
                new = name.removeprefix("model.")
                new = new.replace("language_model.", "language_model.model.", 1)
                state[new.replace("lm_head.", "language_model.lm_head.")] = state.pop(name)

        folder = changed_copy(folder, tmp_path / "old", rename)
    model, info = load_causal_lm(str(folder), torch.float32)
    check_weights(family, info)
    assert is_tested(model)
    assert not any("vision" in name for name, _ in model.named_modules())
    with torch.no_grad():
        expected = whole(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits
        found = model.eval()(input_ids=IDS).logits
    assert torch.allclose(found, expected, atol=1e-6)


def test_missing_text_weights_of_a_multimodal_checkpoint_are_refused(tmp_path: Path) -> None:
    wrapped("gemma4").save_pretrained(tmp_path / "whole")
    lost = "model.language_model.layers.1.mlp.up_proj.weight"
    broken = changed_copy(tmp_path / "whole", tmp_path / "broken", lambda state: state.pop(lost))
    _, info = load_causal_lm(str(broken), torch.float32)
    with pytest.raises(ModelError, match="1 missing"):
        check_weights("broken", info)


@pytest.mark.parametrize("family", ["gpt2", "gemma3n"])
def test_training_mode_does_what_use_does(toy_folder: Any, family: str) -> None:
    """GPT-2 has dropout, and Gemma 3n clips weights in place."""
    model, _ = load_causal_lm(str(toy_folder(family)), torch.float32)
    if family == "gemma3n":
        with torch.no_grad():
            model.model.layers[0].altup.prediction_coefs.weight.fill_(500)
    with torch.no_grad():
        used = model.eval()(input_ids=IDS).logits
        assert torch.equal(model.train()(input_ids=IDS).logits, used)


@pytest.mark.parametrize(
    ("family", "own"),
    [
        ("granite", {"embedding_multiplier": 3.0, "logits_scaling": 8.0}),
        ("cohere", {"logit_scale": 0.25}),
        ("mixtral", {"num_local_experts": 4, "num_key_value_heads": 2}),
    ],
)
def test_untested_families_that_work_pass_the_check(family: str, own: dict[str, Any]) -> None:
    model = untested(family, own)
    assert not is_tested(model)
    verify_family(model)


@pytest.mark.parametrize(
    ("family", "own", "fault"),
    [
        ("bloom", {"n_layer": 4, "n_head": 4}, "does not arrive at the first block"),
        ("mamba", {"state_size": 4}, "decoding with a cache"),
        ("bert", {"is_decoder": True}, "no list of blocks"),
    ],
)
def test_untested_families_that_do_not_are_refused(
    family: str, own: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ModelError, match=fault):
        verify_family(untested(family, own))


def untested(family: str, own: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    given = {
        "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": 64, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
    }  # fmt: skip
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **given | own))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def scale_logits(model: Any) -> None:
    model.lm_head.register_forward_hook(lambda module, args, output: 2 * output)


def scale_after_cut(model: Any) -> None:
    model.model.register_forward_hook(
        lambda module, args, output: output.__setitem__(
            "last_hidden_state", 2 * output["last_hidden_state"]
        )
    )


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (scale_logits, "logits are not"),
        (scale_after_cut, "cut after block 2"),
    ],
)
def test_planted_faults_of_a_family_are_found(toy_subject: Any, spoil: Any, fault: str) -> None:
    model = toy_subject("llama").model
    spoil(model)
    with pytest.raises(ModelError, match=fault):
        verify_family(model)


def test_planted_mode_16_marker_of_several_tokens(toy_subject: Any) -> None:
    from nlakit.core.prompts import marker_neighbours
    from tests.conftest import AV_TEMPLATE

    tokenizer = toy_subject().tokenizer
    with pytest.raises(ContractError, match="not one token"):
        marker_neighbours(tokenizer, AV_TEMPLATE, "㈎")
    contract = build_contract(toy_subject())
    contract.tokens.injection_token_id += 1
    with pytest.raises(ContractError, match="disagrees"):
        contract.check_tokenizer(tokenizer)
