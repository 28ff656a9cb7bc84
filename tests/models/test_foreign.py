"""Round trips through other projects' formats, and files that must be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from nlakit.cli.use import files as cli_files
from nlakit.config.sections import SubjectConfig
from nlakit.core.contract import read_contract
from nlakit.core.metrics import cosine
from nlakit.core.prompts import encode
from nlakit.errors import ConfigError, ContractError, DataError, ModelError
from nlakit.files.vectors import read_vectors
from nlakit.models.foreign.convert import export_pair, import_pair
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, D, build_contract, toy_tokenizer
from tests.hubserver import running
from tests.models.test_families import wrapped
from tests.reader_kitft import ReferenceAR, ReferenceAV

TEXTS = ["", "one", "a longer {text} with braces", "two\nlines"]
NEW = 24
FAMILIES = ("gemma3", "gemma4_large", "gpt2", "gpt_neox", "llama", "qwen2")


def shaken(module: torch.nn.Module) -> None:
    """Weights as training leaves them: every trained tensor is away from its start."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


def pair(toy_subject: Any, family: str, full: bool = False, **overrides: Any) -> NLA:
    """A toy pair with shaken weights that is not centred unless an override says so."""
    subject = toy_subject(family)
    record = {"centring": "none", "max_new_tokens": NEW} | overrides
    av_contract = build_contract(subject, **record)
    ar_contract = build_contract(subject, **(record | {"role": "ar", "centring": "none"}))
    lora = None if full else SMALL_LORA
    mean = np.full(D, 0.02, dtype=np.float32)
    av = Verbalizer(subject, av_contract, mean, lora, 1).eval()
    ar = Reconstructor(subject, ar_contract, lora, 2).eval()
    shaken(av)
    shaken(ar)
    return NLA(subject, av, ar, mean)


def assert_same(one: NLA, other: NLA, vectors: np.ndarray) -> None:
    """The promise of a round trip: the same directions and the same greedy texts."""
    assert cosine(one.reconstruct(TEXTS), other.reconstruct(TEXTS)).min() >= 0.9999
    assert one.av is not None and other.av is not None
    texts = one.av.explain(vectors)
    assert len(set(texts)) > 1
    assert other.av.explain(vectors) == texts


def edit(file: Path, change: Any) -> None:
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")


@pytest.fixture
def reference(toy_subject: Any, tmp_path: Path) -> Path:
    """A toy pair in the reference's folders, without any block of ours."""
    folder = tmp_path / "reference"
    export_pair(pair(toy_subject, "llama"), folder, "kitft")
    for role in ("av", "ar"):
        edit(folder / role / "nla_meta.yaml", lambda data: data.pop("nlakit"))
        (folder / role / "mean_unit.safetensors").unlink()
    return folder


@pytest.fixture
def card(toy_subject: Any, tmp_path: Path) -> Path:
    """A toy pair in PEFT folders, without any block of ours."""
    folder = tmp_path / "card"
    export_pair(pair(toy_subject, "llama"), folder, "peft")
    for role in ("av", "ar"):
        edit(folder / role / "nla_meta.yaml", lambda data: data.pop("nlakit"))
        (folder / role / "mean_unit.safetensors").unlink()
    return folder


@pytest.mark.parametrize("form", ["kitft", "peft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(
    toy_subject: Any, vectors: np.ndarray, tmp_path: Path, family: str, form: Any
) -> None:
    """ours → theirs → read directly, and → imported as ours."""
    made = pair(toy_subject, family)
    export_pair(made, tmp_path / "theirs", form)
    options: dict[str, Any] = {"device": "cpu", "precision": "float32"}
    assert_same(made, NLA.load(tmp_path / "theirs", **options), vectors)
    import_pair([tmp_path / "theirs"], tmp_path / "ours", **options)
    again = NLA.load(tmp_path / "ours", device="cpu")
    assert_same(made, again, vectors)
    assert [s.fve for s in again.score(["x"], vectors[:1])] == pytest.approx(
        [s.fve for s in made.score(["x"], vectors[:1])], abs=1e-5
    )


@pytest.mark.parametrize("family", ["gemma3n", "gemma4"])
def test_what_cut_settings_cannot_say_is_refused(
    toy_subject: Any, tmp_path: Path, family: str
) -> None:
    """Several streams, and a last layer whose type is forced: no AR, and nothing left behind. The
    same AR goes as adapters, and the AV both ways."""
    made = pair(toy_subject, family)
    with pytest.raises(ContractError, match="cannot hold.*--format peft"):
        export_pair(made, tmp_path / "a", "kitft")
    assert not (tmp_path / "a").exists()
    export_pair(made, tmp_path / "b", "peft")
    again = NLA.load(tmp_path / "b", device="cpu", precision="float32")
    assert cosine(made.reconstruct(TEXTS), again.reconstruct(TEXTS)).min() >= 0.9999
    export_pair(NLA(made.subject, made.av, None, made.mean), tmp_path / "c", "kitft")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_independent_reader_agrees(
    toy_subject: Any, vectors: np.ndarray, tmp_path: Path, family: str, full: bool
) -> None:
    made = pair(toy_subject, family, full)
    export_pair(made, tmp_path, "kitft")
    av, ar = ReferenceAV(tmp_path / "av"), ReferenceAR(tmp_path / "ar")
    assert made.av is not None
    assert av.ids == made.av.prompt
    assert [av.explain(vector, NEW) for vector in vectors] == made.av.explain(vectors)
    theirs = np.stack([ar.reconstruct(text) for text in TEXTS])
    assert cosine(made.reconstruct(TEXTS), theirs).min() >= 0.9999


def test_adapters_load_over_the_plain_base_with_peft(toy_subject: Any, tmp_path: Path) -> None:
    """The card's own recipe: PEFT over the whole base, a hook after the AR's last block."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    made = pair(toy_subject, "llama")
    export_pair(made, tmp_path, "peft")
    assert made.ar is not None
    base = AutoModelForCausalLM.from_pretrained(made.subject.config.model)
    model: Any = PeftModel.from_pretrained(base, tmp_path / "ar").eval()
    state = torch.load(tmp_path / "ar" / "linear_head.pt", weights_only=True)
    head = torch.nn.Linear(D, D)
    head.load_state_dict(state)
    ids = torch.tensor([made.ar.encode("some words", 99)])
    with torch.no_grad():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states[2][0, -1]
        theirs = head(hidden)
    assert torch.allclose(theirs, torch.tensor(made.reconstruct(["some words"])[0]), atol=1e-5)
    assert {n.split(".")[4] for n, _ in model.named_parameters() if "lora" in n} == {"0", "1"}


@pytest.mark.parametrize("family", ["gemma3", "gemma4"])
def test_adapters_load_over_a_multimodal_base_with_peft(family: str, tmp_path: Path) -> None:
    """The recipe's own model is one: there, the text model lies inside a wrapper."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    wrapped(family).save_pretrained(tmp_path / "base")
    toy_tokenizer().save_pretrained(tmp_path / "base")
    settings = {"model": str(tmp_path / "base"), "layer": 1, "device": "cpu", "dtype": "float32"}
    subject = load_subject(SubjectConfig.model_validate(settings))
    av = Verbalizer(subject, build_contract(subject, centring="none"), None, SMALL_LORA, 1).eval()
    shaken(av)
    export_pair(NLA(subject, av, None, None), tmp_path / "out", "peft")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model: Any = PeftModel.from_pretrained(base, tmp_path / "out" / "av").eval()
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert torch.allclose(found, av.model(input_ids=ids).logits, atol=1e-5)


def test_a_pair_without_our_block(reference: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    """A foreign pair explains; scores that need a baseline say so until vectors are given."""
    nla = NLA.load(reference, device="cpu")
    assert nla.contract.nlakit.centring == "none"
    found = nla.explain(vectors[:2])
    assert found[0].cosine is not None and found[0].fve is None and found[0].floor is None
    assert "cosine" in found._repr_html_()
    with pytest.raises(ContractError, match="--vectors"):
        nla.score(["x"], vectors[:1])
    import_pair([reference], tmp_path / "ours", vectors, "v.npy", device="cpu")
    again = NLA.load(tmp_path / "ours", device="cpu")
    u = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.square(u - u.mean(0)).sum(1).mean()
    assert again.contract.nlakit.baseline == pytest.approx(expected, rel=1e-5)
    assert again.score(["x"], vectors[:1])[0].fve is not None


def test_actor_and_critic_spelling(reference: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    """Other folder names, roles, template keys, and width, layer and base at other places."""
    known = NLA.load(reference, device="cpu").explain(vectors[:2])

    def respell(data: dict[str, Any]) -> None:
        names = {"av": "actor", "ar": "critic"}
        data["role"] = names[data["role"]]
        data["prompt_templates"] = {names[k]: v for k, v in data["prompt_templates"].items()}
        data["critic"] = data.pop("ar")
        extraction = data["extraction"]
        extraction["d_model"] = data.pop("d_model")
        extraction["layer"] = extraction.pop("layer_index")
        data["base_model"] = extraction.pop("base_model")
        data["tokens"]["critic_suffix_ids"] = None

    for role, name in (("av", "actor"), ("ar", "critic")):
        (reference / role).rename(reference / name)
        edit(reference / name / "nla_meta.yaml", respell)
    assert NLA.load(reference, device="cpu").explain(vectors[:2]) == known
    apart = [reference / "critic", reference / "actor"]
    assert NLA.load(apart, device="cpu").explain(vectors[:2]) == known
    with pytest.raises(ContractError, match="two folders hold an AV"):
        NLA.load([reference / "actor", reference], device="cpu")


@pytest.mark.parametrize(
    ("given", "norm"), [("absent", D**0.5), ("sqrt_d_model", D**0.5), (None, 60.0), (7.5, 7.5)]
)
def test_injection_scale(reference: Path, given: Any, norm: float) -> None:
    def change(data: dict[str, Any]) -> None:
        data["extraction"]["injection_scale"] = given
        if given == "absent":
            del data["extraction"]["injection_scale"]

    edit(reference / "av" / "nla_meta.yaml", change)
    av = NLA.load(reference / "av", device="cpu").av
    assert av is not None
    vector = np.zeros((1, D), dtype=np.float32)
    vector[0, 3] = 60.0
    assert float(av.scaled(vector)[0, 3]) == pytest.approx(norm)


def test_a_chat_template_is_filled_in_once(reference: Path) -> None:
    """The prompt is the user's turn; BOS comes once, whoever writes it."""
    file = reference / "av" / "chat_template.jinja"
    file.write_text("<bos>U: {{ messages[0]['content'] }}\nA: ", encoding="utf-8")
    loaded = NLA.load(reference / "av", device="cpu").av
    assert loaded is not None
    text = "<bos>U: <concept>㊗</concept> <explanation>\nA: "
    assert loaded.prompt == encode(loaded.tokenizer, text, special=False, parse=True)
    assert loaded.prompt.count(2) == 1
    assert loaded.contract.nlakit.av_open == "<explanation>\n"


def test_centred_pairs(toy_subject: Any, vectors: np.ndarray, tmp_path: Path) -> None:
    """Refused unless allowed; then ours reads it as before and a plain reader stops."""
    made = pair(toy_subject, "qwen2", centring="mean_unit")
    with pytest.raises(ContractError, match="do not centre"):
        export_pair(made, tmp_path / "a", "kitft")
    export_pair(made, tmp_path / "a", "kitft", allow_centring=True)
    again = NLA.load(tmp_path / "a", device="cpu")
    assert_same(made, again, vectors)
    with pytest.raises(AssertionError, match="no injection scale"):
        ReferenceAV(tmp_path / "a" / "av")
    (tmp_path / "a" / "av" / "mean_unit.safetensors").unlink()
    with pytest.raises(ContractError, match="mean_unit"):
        NLA.load(tmp_path / "a", device="cpu")


def test_halves_of_two_runs_keep_what_they_were_trained_with(
    toy_subject: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    """Each run has a mean and a baseline of its own; a centred AV is fed by its own mean."""
    for name, mean, base in (("a", 0.02, 0.5), ("b", 0.1, 0.9)):
        made = pair(toy_subject, "llama", centring="mean_unit", baseline=base)
        assert made.av is not None
        made.mean = np.full(D, mean)
        made.av.mean.fill_(mean)
        export_pair(made, tmp_path / name, "peft", allow_centring=True)
    texts = NLA.load(tmp_path / "a" / "av", device="cpu").explain(vectors)
    halves = [tmp_path / "a" / "av", tmp_path / "b" / "ar"]
    joined = NLA.load(halves, device="cpu")
    assert joined.mean is not None and np.allclose(joined.mean, 0.1)
    assert joined.measured.baseline == 0.9
    import_pair(halves, tmp_path / "c", device="cpu")
    again = NLA.load(tmp_path / "c", device="cpu")
    assert [one.explanation for one in again.explain(vectors)] == [t.explanation for t in texts]
    assert again.av is not None and again.ar is not None
    for half, mean, base in ((again.av, 0.02, 0.5), (again.ar, 0.1, 0.9)):
        folder = tmp_path / "c" / half.contract.nlakit.role
        assert np.allclose(load_file(folder / "mean_unit.safetensors")["mean_unit"], mean)
        assert half.contract.nlakit.baseline == base


def test_a_pair_is_scored_by_the_half_that_stores_a_baseline(
    toy_subject: Any, reference: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    """Another project's AV stores none; the AR's stands."""
    export_pair(pair(toy_subject, "llama"), tmp_path / "ours", "peft")
    nla = NLA.load([reference / "av", tmp_path / "ours" / "ar"], device="cpu")
    assert nla.score(["x"], vectors[:1])[0].fve is not None
    import_pair([reference / "av", tmp_path / "ours" / "ar"], tmp_path / "c", device="cpu")
    assert read_contract(tmp_path / "c" / "ar").nlakit.baseline == 0.5


def test_two_precisions_are_told(
    toy_subject: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_pair(pair(toy_subject, "llama"), tmp_path / "a", "peft")

    def other(data: dict[str, Any]) -> None:
        data["nlakit"]["subject_precision"] = "bfloat16"

    edit(tmp_path / "a" / "ar" / "nla_meta.yaml", other)
    NLA.load(tmp_path / "a", device="cpu")
    said = " ".join(capsys.readouterr().err.split())
    assert "the AV float32, the AR bfloat16; both run in float32" in said


@pytest.mark.parametrize("rows", [0, 1])
def test_vectors_without_spread_are_no_baseline(
    reference: Path, vectors: np.ndarray, tmp_path: Path, rows: int
) -> None:
    with pytest.raises(DataError, match=f"{rows} rows"):
        import_pair([reference], tmp_path / "ours", vectors[:rows], "v.npy", device="cpu")
    assert not (tmp_path / "ours").exists()


def test_another_setting_of_the_blocks_is_refused(toy_subject: Any, tmp_path: Path) -> None:
    export_pair(pair(toy_subject, "gemma3"), tmp_path / "a", "kitft")
    file = tmp_path / "a" / "av" / "config.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(data | {"query_pre_attn_scalar": 4}), encoding="utf-8")
    with pytest.raises(ContractError, match="query_pre_attn_scalar is 4, not 256"):
        NLA.load(tmp_path / "a" / "av", device="cpu")


def test_a_head_of_two_layers_is_refused(card: Path) -> None:
    layer = torch.load(card / "ar" / "linear_head.pt", weights_only=True)
    both = {f"{at}.{name}": tensor for at in (0, 2) for name, tensor in layer.items()}
    torch.save(both, card / "ar" / "linear_head.pt")
    with pytest.raises(ContractError, match="more than one layer"):
        NLA.load(card, device="cpu")


@pytest.mark.parametrize("made", [np.empty((0, D)), np.array(["a", "b"]), np.empty((2, 2, D))])
def test_files_without_vectors_are_told(tmp_path: Path, made: np.ndarray) -> None:
    np.save(tmp_path / "v.npy", made)
    with pytest.raises(DataError, match="holds no vectors"):
        read_vectors(tmp_path / "v.npy")


def test_a_template_that_fails_is_told(reference: Path) -> None:
    file = reference / "av" / "chat_template.jinja"
    file.write_text("{{ 1 / 0 }}", encoding="utf-8")
    with pytest.raises(ContractError, match="cannot be filled in; found: division by zero"):
        NLA.load(reference / "av", device="cpu")


def test_texts_of_others_are_not_cut_shorter_than_they_write(reference: Path) -> None:
    assert NLA.load(reference, device="cpu").contract.nlakit.max_tokens == 512


def test_a_head_with_a_bias(card: Path, tmp_path: Path) -> None:
    """Read and kept from PEFT folders; the reference's format cannot hold it."""
    file = card / "ar" / "linear_head.pt"
    state = torch.load(file, weights_only=True)
    plain = NLA.load(card, device="cpu", precision="float32").reconstruct(["x"])
    torch.save(state | {"bias": torch.arange(float(D))}, file)
    nla = NLA.load(card, device="cpu", precision="float32")
    assert np.allclose(nla.reconstruct(["x"]), plain + np.arange(D), atol=1e-4)
    import_pair([card], tmp_path / "ours", device="cpu", precision="float32")
    assert np.allclose(
        NLA.load(tmp_path / "ours", device="cpu").reconstruct(["x"]), nla.reconstruct(["x"])
    )
    with pytest.raises(ContractError, match="bias"):
        export_pair(nla, tmp_path / "b", "kitft")


def test_adapters_of_attention_alone_and_beyond_the_ar(card: Path) -> None:
    """The card's AR: attention adapted in every block of the model, of which the AR runs some."""
    known = NLA.load(card, device="cpu", precision="float32")
    file = card / "ar" / "adapter_model.safetensors"
    state = {n: t for n, t in load_file(file).items() if ".self_attn." in n}
    for name, tensor in list(state.items()):
        if ".layers.1." in name:
            for deeper in ("2", "3"):
                state[name.replace(".layers.1.", f".layers.{deeper}.")] = tensor + 1
    save_file(state, file)
    assert known.ar is not None
    with torch.no_grad():
        for name, parameter in known.ar.named_parameters():
            if "lora_B" in name and ".mlp." in name:
                parameter.zero_()
    nla = NLA.load(card, device="cpu", precision="float32", ar_blocks=2)
    assert np.allclose(nla.reconstruct(TEXTS), known.reconstruct(TEXTS), atol=1e-5)
    with pytest.raises(ContractError, match="4 blocks of weights"):
        NLA.load(card, device="cpu", precision="float32")


def test_only_adapters_are_exported_as_adapters(toy_subject: Any, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="weights of its own"):
        export_pair(pair(toy_subject, "llama", full=True), tmp_path / "x", "peft")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DataError, match="not empty"):
        export_pair(pair(toy_subject, "llama"), tmp_path / "full", "peft")


def test_a_hub_id(
    reference: Path, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, settings, tokenizer and sidecar are fetched, pickles are not; then offline."""
    known = NLA.load(reference, device="cpu").explain(vectors[:1])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        files = {f"av/{file.name}": file.read_bytes() for file in (reference / "av").iterdir()}
        server.put("someone/nla-av", files | {"av/pytorch_model.bin": b"x", "av/evil.py": b"x"})
        assert NLA.load("someone/nla-av", device="cpu").explain(vectors[:1])[0].explanation == (
            known[0].explanation
        )
        assert not server.count("GET", "evil.py") and not server.count("GET", ".bin")
        with pytest.raises(ContractError, match="cannot be had from the hub"):
            NLA.load("someone/nothing", device="cpu")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert NLA.load("someone/nla-av", device="cpu").av is not None


def test_a_broken_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the network library come through the hub's client as they are."""

    def broken(*args: Any, **options: Any) -> None:
        raise HfHubHTTPError.__bases__[0]("peer closed the connection")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", broken)
    with pytest.raises(ContractError, match="had from the hub; found: peer closed"):
        NLA.load("someone/nla-av", device="cpu")
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_: ["nla_meta.yaml"])
    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(ContractError, match="had from the hub; found: peer closed"):
        NLA.load("someone/nla-av", device="cpu")


def test_no_half_imported_pair_stays(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Reconstructor, "save", full)
    with pytest.raises(OSError, match="disk full"):
        import_pair([reference], tmp_path / "ours", device="cpu")
    assert not (tmp_path / "ours").exists()


def without_marker(data: dict[str, Any]) -> None:
    del data["tokens"]


def without_av(data: dict[str, Any]) -> None:
    del data["tokens"], data["prompt_templates"]["av"]


@pytest.mark.parametrize("change", [without_marker, without_av])
@pytest.mark.parametrize("form", ["reference", "card"])
def test_an_ar_whose_sidecar_is_silent_about_the_av(
    request: pytest.FixtureRequest, tmp_path: Path, form: str, change: Any
) -> None:
    """It reads, is imported as ours, and goes out again, without an AV template."""
    options: dict[str, Any] = {"device": "cpu", "precision": "float32"}
    folder = request.getfixturevalue(form) / "ar"
    known = NLA.load(folder, **options).reconstruct(TEXTS)
    edit(folder / "nla_meta.yaml", change)
    assert np.array_equal(NLA.load(folder, **options).reconstruct(TEXTS), known)
    import_pair([folder], tmp_path / "ours", **options)
    again = NLA.load(tmp_path / "ours", device="cpu")
    assert again.contract.prompt_templates.av == ""
    assert np.allclose(again.reconstruct(TEXTS), known, atol=1e-5)
    export_pair(again, tmp_path / "theirs", "kitft" if form == "reference" else "peft")
    assert np.allclose(
        NLA.load(tmp_path / "theirs", **options).reconstruct(TEXTS), known, atol=1e-5
    )


def test_a_head_beside_the_embeddings(
    toy_subject: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    """Of a tied subject: the same table stored twice is read, another is refused."""
    made = pair(toy_subject, "gemma3", full=True)
    export_pair(made, tmp_path / "out", "kitft")
    assert made.av is not None
    file = tmp_path / "out" / "av" / "model.safetensors"
    state = load_file(file)
    assert "lm_head.weight" not in state
    head = state["model.embed_tokens.weight"].clone()
    save_file(state | {"lm_head.weight": head}, file)
    again = NLA.load(tmp_path / "out" / "av", device="cpu").av
    assert again is not None and again.explain(vectors) == made.av.explain(vectors)
    head[3, 3] += 1
    save_file(state | {"lm_head.weight": head}, file)
    with pytest.raises(ContractError, match="head of its own"):
        NLA.load(tmp_path / "out" / "av", device="cpu")


def test_an_ar_of_unsaid_depth(card: Path) -> None:
    """Adapters on every block, K not the last, and a sidecar that does not say the depth."""
    file = card / "ar" / "adapter_model.safetensors"
    state = load_file(file)
    for name, tensor in list(state.items()):
        for deeper in ("2", "3") if ".layers.1." in name else ():
            state[name.replace(".layers.1.", f".layers.{deeper}.")] = tensor + 1
    save_file(state, file)
    edit(card / "ar" / "nla_meta.yaml", lambda data: data.pop("ar"))
    with pytest.raises(ContractError, match="say --ar-blocks"):
        NLA.load(card / "ar", device="cpu", precision="float32")
    for depth in (2, 4):
        nla = NLA.load(card / "ar", device="cpu", precision="float32", ar_blocks=depth)
        assert nla.contract.ar_blocks == depth


def test_a_half_alpha_is_kept(card: Path, tmp_path: Path) -> None:
    """alpha / r scales the adapters: 8.5 is not 8, also after an import."""
    file = card / "ar" / "adapter_config.json"
    options: dict[str, Any] = {"device": "cpu", "precision": "float32"}
    known = NLA.load(card / "ar", **options).reconstruct(TEXTS)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"lora_alpha": 8.5}))
    made = NLA.load(card / "ar", **options).reconstruct(TEXTS)
    assert not np.allclose(made, known, atol=1e-4)
    import_pair([card / "ar"], tmp_path / "ours", **options)
    again = NLA.load(tmp_path / "ours", device="cpu").reconstruct(TEXTS)
    assert np.allclose(again, made, atol=1e-5)


def test_options_are_blamed_for_themselves(reference: Path) -> None:
    with pytest.raises(ConfigError, match="unknown --precision; found: fp8"):
        NLA.load(reference, device="cpu", precision="fp8")
    base = NLA.load(reference, device="cpu").contract.extraction.base_model
    edit(reference / "av" / "nla_meta.yaml", lambda d: d["extraction"].update(base_model="x/y"))
    with pytest.raises(ContractError, match="differ in their subject"):
        NLA.load(reference, device="cpu")
    assert NLA.load(reference, device="cpu", base_model=base).av is not None


def test_commands(reference: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    app = typer.Typer()
    cli_files.register(app)
    np.save(tmp_path / "v.npy", vectors)
    runner = CliRunner()
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    halves = [str(reference / "av"), ours, "--with", str(reference / "ar"), "--device", "cpu"]
    found = runner.invoke(app, ["import", *halves, "--vectors", str(tmp_path / "v.npy")])
    assert found.exit_code == 0 and "AV in" in found.output and "AR in" in found.output
    found = runner.invoke(app, ["export", ours, theirs, "--device", "cpu"])
    assert found.exit_code == 0 and "float32" in found.output
    assert ReferenceAR(tmp_path / "theirs" / "ar").reconstruct("x").shape == (D,)
    found = runner.invoke(app, ["export", ours, theirs, "--format", "gguf"])
    assert "kitft or peft" in str(found.exception)


class Bomb:
    def __reduce__(self) -> Any:
        return (print, ("boom",))


ADAPTERS: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa_niter_4"},
    "alora": {"alora_invocation_tokens": [5]},
}
CAPITALS = "The <concept>{injection_char}</concept>"
SCALES = {"scale 0": 0, "scale inf": float("inf"), "scale nan": float("nan"), "scale -1": -1.0}


def damage(reference: Path, card: Path, what: str) -> Path:
    """Spoil a copy of a pair in one way; the folder to load."""
    ar, av = reference / "ar", reference / "av"
    weights = ar / "model.safetensors"
    if what == "bomb":
        torch.save({"weight": Bomb()}, card / "ar" / "linear_head.pt")
        return card
    if what == "text head":
        (card / "ar" / "linear_head.pt").write_text("not a head")
        return card
    if what in ADAPTERS:
        file = card / "av" / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | ADAPTERS[what]))
        return card
    if what == "vision":
        file = card / "av" / "adapter_model.safetensors"
        save_file(load_file(file) | {"base_model.model.tower.lora_A.weight": torch.ones(2)}, file)
        return card
    if what == "missing block":
        file = card / "ar" / "adapter_model.safetensors"
        state = load_file(file)
        save_file({n: t for n, t in state.items() if ".layers.0." not in n}, file)
        return card
    if what == "mean outside":
        change = {"nlakit": {"mean_unit_file": "../../x"}}
        edit(av / "nla_meta.yaml", lambda data: data.update(change))
    elif what == "shard outside":
        state = {"weight_map": dict.fromkeys(load_file(weights), "../../model.safetensors")}
        (ar / "model.safetensors.index.json").write_text(json.dumps(state), encoding="utf-8")
    elif what == "index":
        state = {"weight_map": dict.fromkeys([*load_file(weights), "x"], "model.safetensors")}
        (ar / "model.safetensors.index.json").write_text(json.dumps(state), encoding="utf-8")
    elif what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif what == "missing":
        state = load_file(weights)
        del state["model.layers.1.mlp.up_proj.weight"]
        save_file(state, weights)
    elif what == "unexpected":
        save_file(load_file(weights) | {"model.layers.1.extra": torch.ones(3)}, weights)
    elif what == "deeper":
        edit(ar / "nla_meta.yaml", lambda data: data["ar"].update(num_hidden_layers=5))
    elif what == "no such layer":
        edit(av / "nla_meta.yaml", lambda data: data["extraction"].update(layer_index=9))
        edit(ar / "nla_meta.yaml", lambda data: data["extraction"].update(layer_index=9))
    elif what == "width":
        for half in (av, ar):
            edit(half / "nla_meta.yaml", lambda data: data.update(d_model=16))
    elif what == "head":
        save_file({"weight": torch.eye(16)}, ar / "value_head.safetensors")
    elif what == "ids":
        edit(av / "nla_meta.yaml", lambda data: data["tokens"].update(injection_token_id=7))
    elif what == "tokenizer":
        file = av / "tokenizer.json"
        file.write_text(file.read_text(encoding="utf-8").replace('"a": ', '"å": '), "utf-8")
    elif what == "settings":
        file = ar / "config.json"
        data = json.loads(file.read_text(encoding="utf-8")) | {"rms_norm_eps": 0.5}
        file.write_text(json.dumps(data), encoding="utf-8")
    elif what == "code":
        file = av / "config.json"
        data = json.loads(file.read_text(encoding="utf-8"))
        data |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}}
        (av / "evil.py").write_text("raise SystemExit('ran')", encoding="utf-8")
        file.write_text(json.dumps(data), encoding="utf-8")
    elif what == "types":
        file = av / "config.json"
        data = json.loads(file.read_text(encoding="utf-8")) | {"hidden_size": "wide"}
        file.write_text(json.dumps(data), encoding="utf-8")
    elif what == "tokenizer file":
        (av / "tokenizer.json").write_text("{}", encoding="utf-8")
    elif what == "other ids":
        file = av / "tokenizer.json"
        data = json.loads(file.read_text(encoding="utf-8"))
        data["normalizer"] = {"type": "Lowercase"}
        file.write_text(json.dumps(data), encoding="utf-8")
        edit(av / "nla_meta.yaml", lambda d: d["prompt_templates"].update(av=CAPITALS))
    elif what == "chat":
        (av / "chat_template.jinja").write_text("{% if %}", encoding="utf-8")
    elif what in SCALES:
        edit(av / "nla_meta.yaml", lambda d: d["extraction"].update(injection_scale=SCALES[what]))
    elif what == "no template":
        edit(av / "nla_meta.yaml", lambda data: data["prompt_templates"].pop("av"))
    else:
        assert what == "halves"
        edit(av / "nla_meta.yaml", lambda data: data["extraction"].update(layer_index=0))
    return reference


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("bomb", "a pickle that would run code"),
        ("dora", "no plain LoRA.*use_dora"),
        ("pissa", "no plain LoRA.*init_lora_weights pissa_niter_4"),
        ("alora", "no plain LoRA.*alora_invocation_tokens"),
        ("text head", "linear_head.pt is damaged"),
        ("types", "cannot use.*config.json"),
        ("tokenizer file", "cannot use the tokenizer"),
        ("other ids", "makes other ids of a prompt"),
        ("chat", "chat template of the foreign AV"),
        *[(name, "extraction.injection_scale.*(greater than 0|finite)") for name in SCALES],
        ("vision", "more than the blocks"),
        ("missing block", r"missing, first layers\.0"),
        ("mean outside", r"leads out of the folder.*\.\./\.\./x"),
        ("shard outside", "leads out of the folder"),
        ("index", "1 tensors differ, first x"),
        ("truncated", "is damaged"),
        ("missing", r"1 missing, first layers\.1\.mlp\.up_proj\.weight"),
        ("unexpected", r"1 unexpected, first layers\.1\.extra"),
        ("deeper", "2 blocks of weights.*stands for 6"),
        ("no such layer", "no block 9.*blocks 0 to 3"),
        ("width", "32 instead of 16"),
        ("head", r"\(16, 16\).*\(32, 32\)"),
        ("ids", "marker.*live ids"),
        ("tokenizer", "not the subject's"),
        ("settings", "rms_norm_eps is 0.5"),
        ("code", "cannot use.*config.json"),
        ("no template", "no template for the AV"),
        ("halves", "halves differ in their layer"),
    ],
)
def test_refused(
    reference: Path, card: Path, what: str, says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Damaged, mismatched and malicious files: one line that shows the difference."""
    with pytest.raises(ModelError, match=says) as caught:
        NLA.load(damage(reference, card, what), device="cpu")
    assert "\n" not in str(caught.value)
    assert "boom" not in capfd.readouterr().out
