"""The form of a foreign AV's prompt is read or stated, and never guessed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.config.sections import EvalConfig
from nlakit.core.metrics import cosine
from nlakit.errors import ConfigError, ContractError
from nlakit.models import loading
from nlakit.models.foreign.convert import export_pair, import_pair
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.studies.evaluation import evaluate_pair
from tests.conftest import build_contract
from tests.models.test_foreign import TEXTS, edit, pair
from tests.models.test_foreign_adapters import ATTENTION, TEXT, assert_read_exactly, logits
from tests.reader_kitft import ReferenceAR, ReferenceAV
from tests.reader_peft import PeftAV, write_av, write_merged_av

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}
TURN = "<bos>U: {{ messages[0]['content'] }}\nA: "
# As Qwen3's: told not to think, the answer begins behind empty thoughts.
THINKING = TURN + "{% if enable_thinking is false %}(no thoughts) {% endif %}"
OPEN = "leave open what this AV's prompt is.*--chat.*plain: .*turn: .*no-thinking: .*EasyNLA"


def with_template(folder: Path, template: str) -> Path:
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def of_a_model(data: dict[str, Any]) -> None:
    """A model's sidecar, as the card of the PEFT pairs describes it."""
    data["kind"], data["role"] = "nla_model", "av"
    data["d_model"] = data["extraction"].pop("d_model")


@pytest.mark.parametrize("write", [write_av, write_merged_av])
@pytest.mark.parametrize(
    ("template", "stated", "options"),
    [
        (TURN, None, {}),
        (TURN, "turn", {}),
        (THINKING, "turn", {}),
        (THINKING, "no-thinking", {"enable_thinking": False}),
    ],
)
def test_a_turn_is_read_exactly(
    toy_folder: Any,
    vectors: np.ndarray,
    tmp_path: Path,
    write: Any,
    template: str,
    stated: str | None,
    options: dict[str, Any],
) -> None:
    """EasyNLA's AV, as adapters and merged: the prompts of a table are turns of a chat."""
    base, folder = toy_folder("llama"), tmp_path / "av"
    write(base, folder, ATTENTION)
    theirs = PeftAV(with_template(folder, template), base, options)
    assert_read_exactly(NLA.load(folder, injection="add", chat=stated, **CPU), theirs, vectors)
    import_pair([folder], tmp_path / "ours", injection="add", chat=stated, **CPU)
    assert_read_exactly(NLA.load(tmp_path / "ours", device="cpu"), theirs, vectors)


@pytest.mark.parametrize("write", [write_av, write_merged_av])
def test_a_template_that_knows_thinking_leaves_a_data_sets_sidecar_open(
    toy_folder: Any, vectors: np.ndarray, tmp_path: Path, write: Any
) -> None:
    """Read with the other turn, the logits differ and nothing else tells."""
    base, folder = toy_folder("llama"), tmp_path / "av"
    write(base, folder, ATTENTION)
    theirs = PeftAV(with_template(folder, THINKING), base, {"enable_thinking": False})
    with pytest.raises(ContractError, match=OPEN) as caught:
        NLA.load(folder, injection="add", **CPU)
    assert "enable_thinking" in str(caught.value) and "\n" not in str(caught.value)
    wrong = NLA.load(folder, injection="add", chat="turn", **CPU).av
    assert wrong is not None and wrong.prompt != theirs.ids
    known = theirs.logits(vectors[0], TEXT, "add")
    assert not torch.allclose(logits(wrong, vectors[0], TEXT), known, atol=1e-2)


def test_adapters_with_a_models_sidecar_say_it_or_are_told(
    toy_folder: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    base, folder = toy_folder("llama"), tmp_path / "av"
    write_av(base, folder, ATTENTION)
    edit(folder / "nla_meta.yaml", of_a_model)
    for_plain = NLA.load(folder, **CPU)  # there is no template: plain text is all that it can be
    assert_read_exactly(for_plain, PeftAV(folder, base), vectors, "embedding")
    with pytest.raises(ContractError, match="no tokenizer has a chat template.*copy chat_template"):
        NLA.load(folder, chat="turn", **CPU)
    with_template(folder, TURN)
    with pytest.raises(ContractError, match=OPEN):
        NLA.load(folder, **CPU)
    for stated, options in (("plain", None), ("turn", {})):
        theirs = PeftAV(folder, base, options)
        assert_read_exactly(NLA.load(folder, chat=stated, **CPU), theirs, vectors, "embedding")
    edit(folder / "nla_meta.yaml", lambda data: data.update(chat_template=True))
    theirs = PeftAV(folder, base, {})
    for stated in (None, "plain"):  # a statement counts where the files leave it open
        assert_read_exactly(NLA.load(folder, chat=stated, **CPU), theirs, vectors, "embedding")


def test_the_references_folders_are_turns_as_before(toy_folder: Any, tmp_path: Path) -> None:
    base, folder = toy_folder("llama"), tmp_path / "av"
    write_merged_av(base, folder, ATTENTION)
    edit(folder / "nla_meta.yaml", of_a_model)
    av = NLA.load(with_template(folder, THINKING), **CPU).av
    assert av is not None and av.prompt == ReferenceAV(folder).ids


def test_the_commands_take_the_statement(
    toy_folder: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "av"
    write_av(toy_folder("llama"), folder, ATTENTION)
    with_template(folder, THINKING)
    np.save(tmp_path / "v.npy", vectors[:2])
    rows, said = ["--vectors", str(tmp_path / "v.npy")], ["--injection", "add"]
    command = ["explain", str(folder), *rows, "--device", "cpu", "--precision", "float32", *said]
    found = CliRunner().invoke(app, command)
    assert isinstance(found.exception, ContractError) and "--chat" in str(found.exception)
    found = CliRunner().invoke(app, [*command, "--chat", "no-thinking"])
    assert found.exit_code == 0, found.exception
    found = CliRunner().invoke(app, [*command, "--chat", "yes"])
    assert isinstance(found.exception, ConfigError) and "unknown --chat" in str(found.exception)


@pytest.fixture
def critic(toy_subject: Any, tmp_path: Path) -> Path:
    """An AR as EasyNLA leaves it: a cut model, a head, and the sidecar of the data set."""
    export_pair(pair(toy_subject, "llama"), tmp_path / "out", "kitft")
    folder = tmp_path / "out" / "ar"
    (folder / "mean_unit.safetensors").unlink()

    def change(data: dict[str, Any]) -> None:
        data["kind"] = "nla_dataset"
        data["prompt_templates"] = {"actor": "", "critic": data["prompt_templates"]["ar"]}
        del data["nlakit"], data["role"], data["extraction"]["injection_scale"]

    edit(folder / "nla_meta.yaml", change)
    return folder


@pytest.mark.parametrize("bos", [True, False])
def test_an_ar_with_and_without_a_bos_is_read_exactly(
    critic: Path, tmp_path: Path, bos: bool
) -> None:
    """EasyNLA trains ARs without, nanoNLA's client reads them with: nothing but a statement tells
    them apart where the tokenizer has one."""
    stated = "yes" if bos else "no"
    theirs = ReferenceAR(critic, bos, of_a_data_set=True)
    known = np.stack([theirs.reconstruct(text) for text in TEXTS])
    with pytest.raises(ContractError, match=r"begins with a BOS.*puts \[2\].*--ar-bos") as caught:
        NLA.load(critic, **CPU)
    assert "\n" not in str(caught.value)
    made = NLA.load(critic, ar_bos=stated, **CPU).reconstruct(TEXTS)
    assert cosine(made, known).min() >= 0.9999
    other = NLA.load(critic, ar_bos="no" if bos else "yes", **CPU).reconstruct(TEXTS)
    assert cosine(other, known).min() < 0.9999
    import_pair([critic], tmp_path / "ours", ar_bos=stated, **CPU)
    again = NLA.load(tmp_path / "ours", device="cpu")
    assert cosine(again.reconstruct(TEXTS), known).min() >= 0.9999
    if bos:
        export_pair(again, tmp_path / "theirs", "kitft")
        return
    with pytest.raises(ContractError, match="has no BOS, and the reference puts one before it"):
        export_pair(again, tmp_path / "theirs", "kitft")


def test_a_training_that_goes_on_with_another_bos_says_so(
    critic: Path, toy_subject: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_pair([critic], tmp_path / "ours", ar_bos="no", **CPU)
    subject = toy_subject("llama")
    ours = Reconstructor(subject, build_contract(subject, role="ar"), None, 0)
    ours.adopt(tmp_path / "ours" / "ar")
    said = " ".join(capsys.readouterr().err.split())
    assert "trained with another BOS of the prompt: False, and goes on with True" in said


def test_without_a_bos_in_the_tokenizer_there_is_nothing_to_state(critic: Path) -> None:
    """Qwen's has none. A model's sidecar is read as the reference reads it."""
    edit(critic / "nla_meta.yaml", lambda data: data.update(kind="nla_model"))
    known = NLA.load(critic, **CPU).reconstruct(TEXTS)
    theirs = ReferenceAR(critic, of_a_data_set=True)
    assert cosine(known, np.stack([theirs.reconstruct(text) for text in TEXTS])).min() >= 0.9999
    edit(critic / "nla_meta.yaml", lambda data: data.update(kind="nla_dataset"))
    base = Path(yaml.safe_load((critic / "nla_meta.yaml").read_text())["extraction"]["base_model"])
    bare = critic.parent / "base"
    shutil.copytree(base, bare)
    for folder in (bare, critic):
        file = folder / "tokenizer.json"
        data = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(data | {"post_processor": None}), encoding="utf-8")
    made = NLA.load(critic, base_model=str(bare), **CPU).reconstruct(TEXTS)
    theirs = ReferenceAR(critic, of_a_data_set=True)
    assert cosine(made, np.stack([theirs.reconstruct(text) for text in TEXTS])).min() >= 0.9999


def test_an_ar_that_kept_its_final_norm_is_refused(critic: Path) -> None:
    (critic / "ar_meta.json").write_text('{"final_norm_stripped": true}')
    assert NLA.load(critic, ar_bos="no", **CPU).ar is not None
    (critic / "ar_meta.json").write_text('{"final_norm_stripped": false}')
    with pytest.raises(ContractError, match="behind the final norm.*final_norm_stripped is false"):
        NLA.load(critic, ar_bos="no", **CPU)


def test_an_ar_whose_adapters_have_no_recorded_scale_is_refused(critic: Path) -> None:
    """EasyNLA keeps them so while it trains: rank and alpha, but not that they are
    rank-stabilised."""
    for file in ("config.json", "model.safetensors", "value_head.safetensors"):
        (critic / file).unlink()
    (critic / "ar_lora_value_head.safetensors").write_bytes(b"")
    with pytest.raises(ContractError, match="whose scale no file records.*merge it") as caught:
        NLA.load(critic, **CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", ["llama", "qwen3_5"])
def test_a_pair_of_easynla_is_read_exactly(
    toy_folder: Any, toy_subject: Any, vectors: np.ndarray, tmp_path: Path, family: str
) -> None:
    """As published: `av` with rank-stabilised adapters over a base that may be part linear
    attention, trained inside a turn without thoughts; `critic` a cut model without a BOS; the
    sidecar of the data set in both."""
    base, folder = toy_folder(family), tmp_path / "pair"
    write_av(base, folder / "av", [*ATTENTION, "in_proj_qkv", "in_proj_z", "out_proj"])
    with_template(folder / "av", THINKING)
    made = pair(lambda _: toy_subject(family, 1), family)
    export_pair(NLA(made.subject, None, made.ar, None), tmp_path / "out", "kitft")
    (tmp_path / "out" / "ar").rename(folder / "critic")
    (folder / "critic" / "nla_meta.yaml").write_bytes((folder / "av/nla_meta.yaml").read_bytes())
    nla = NLA.load(folder, injection="add", chat="no-thinking", ar_bos="no", **CPU)
    assert_read_exactly(nla, PeftAV(folder / "av", base, {"enable_thinking": False}), vectors)
    theirs = ReferenceAR(folder / "critic", bos=False, of_a_data_set=True)
    known = np.stack([theirs.reconstruct(text) for text in TEXTS])
    assert cosine(nla.reconstruct(TEXTS), known).min() >= 0.9999
    assert len(nla.explain(vectors[:2])) == 2


def test_what_a_prompt_is_gets_asked_before_the_model_is_loaded(
    toy_folder: Any, critic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subject may have hundreds of gigabytes: no statement about a half needs them."""
    folder = tmp_path / "av"
    write_av(toy_folder("llama"), folder, ATTENTION)
    edit(folder / "nla_meta.yaml", of_a_model)
    with_template(folder, TURN)

    def load(config: Any) -> Any:
        raise AssertionError("the subject was loaded")

    monkeypatch.setattr(loading, "load_subject", load)
    with pytest.raises(ContractError, match=OPEN):
        NLA.load(folder, **CPU)
    with pytest.raises(ContractError, match="begins with a BOS.*--ar-bos"):
        NLA.load(critic, **CPU)
    with pytest.raises(ConfigError, match="unknown --chat"):
        NLA.load(folder, chat="perhaps", **CPU)
    for given, stated in ((folder, {"chat": "turn"}), (critic, {"ar_bos": "no"})):
        with pytest.raises(AssertionError, match="was loaded"):
            NLA.load(given, **stated, **CPU)
    out = tmp_path / "evaluation"
    with pytest.raises(ContractError, match="leave open"):
        evaluate_pair(str(folder), str(critic), "nowhere", EvalConfig(), out, device="cpu")
    assert not out.exists()
