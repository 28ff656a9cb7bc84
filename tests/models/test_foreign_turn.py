"""The form of a foreign AV's prompt is read or stated, and never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.errors import ConfigError, ContractError
from nlakit.models.foreign.convert import import_pair
from nlakit.models.nla import NLA
from tests.models.test_foreign import edit
from tests.models.test_foreign_adapters import ATTENTION, TEXT, assert_read_exactly, logits
from tests.reader_kitft import ReferenceAV
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
