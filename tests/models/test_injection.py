"""How a foreign AV takes the vector in is read or stated, and never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from nlakit.cli import evaluate as cli_evaluate
from nlakit.cli.main import app
from nlakit.cli.use import files as cli_files
from nlakit.core.contract import read_contract
from nlakit.core.injection import NORM_MATCHED, Injection
from nlakit.errors import ConfigError, ContractError
from nlakit.models.decode import decode
from nlakit.models.foreign.convert import export_pair, import_pair
from nlakit.models.nla import NLA
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import D
from tests.models.test_foreign import TEXTS, edit, pair
from tests.models.test_foreign_adapters import assert_read_exactly
from tests.reader_peft import PeftAV

OPEN = "leave open how this AV takes the vector in.*--injection.*reference: .*add: behind block 1"
CPU: dict[str, Any] = {"device": "cpu", "precision": "float32", "ar_bos": "yes"}


def of_a_data_set(data: dict[str, Any]) -> None:
    """The sidecar that EasyNLA and nanoNLA leave beside weights."""
    data["kind"] = "nla_dataset"
    del data["extraction"]["injection_scale"], data["extraction"]["mse_scale"], data["role"]
    data.pop("nlakit", None)


@pytest.fixture(params=["kitft", "peft"])
def theirs(request: pytest.FixtureRequest, toy_subject: Any, tmp_path: Path) -> Path:
    """A toy pair in folders `av` and `critic`, with the sidecar of its data set in both."""
    folder = tmp_path / "theirs"
    export_pair(pair(toy_subject, "llama"), folder, request.param)
    (folder / "ar").rename(folder / "critic")
    for half in ("av", "critic"):
        edit(folder / half / "nla_meta.yaml", of_a_data_set)
        (folder / half / "mean_unit.safetensors").unlink()
    return folder


def test_a_data_sets_sidecar_is_refused_until_it_is_stated(
    theirs: Path, vectors: np.ndarray
) -> None:
    for where in (theirs, theirs / "av", [theirs / "critic", theirs / "av"]):
        with pytest.raises(ContractError, match=OPEN) as caught:
            NLA.load(where, **CPU)
        assert "\n" not in str(caught.value)
    with pytest.raises(
        ConfigError, match=r"unknown --injection; found: norm_add.*add: behind block 1"
    ):
        NLA.load(theirs, injection="norm_add", **CPU)
    nla = NLA.load(theirs, injection="reference", **CPU)
    assert nla.av is not None and nla.ar is not None
    assert float(nla.av.scaled(vectors[:1]).norm()) == pytest.approx(D**0.5)
    assert len(nla.explain(vectors[:2])) == 2


def test_what_an_import_writes_says_where_it_comes_from(theirs: Path, tmp_path: Path) -> None:
    import_pair([theirs], tmp_path / "ours", injection="reference", **CPU)
    written = yaml.safe_load((tmp_path / "ours" / "av" / "nla_meta.yaml").read_text("utf-8"))
    assert written["extraction"]["injection_scale"] == "sqrt_d_model"
    source = written["nlakit"]["injection_source"]
    assert source.startswith("--injection reference; the files say: nla_meta.yaml is a data set's")
    assert NLA.load(tmp_path / "ours", device="cpu").av is not None


def test_the_ar_alone_is_read_exactly_and_claims_no_scale(theirs: Path, tmp_path: Path) -> None:
    """An AR injects nothing, and of its vectors the direction alone counts."""
    known = NLA.load(theirs, injection="reference", **CPU).reconstruct(TEXTS)
    assert np.array_equal(NLA.load(theirs / "critic", **CPU).reconstruct(TEXTS), known)
    import_pair([theirs / "critic"], tmp_path / "ours", **CPU)
    file = tmp_path / "ours" / "ar" / "nla_meta.yaml"
    written = yaml.safe_load(file.read_text("utf-8"))
    assert "injection_scale" not in written["extraction"]
    assert written["nlakit"]["injection_source"] == "unknown"
    again = NLA.load(tmp_path / "ours", device="cpu")
    assert np.allclose(again.reconstruct(TEXTS), known, atol=1e-5)
    export_pair(
        again, tmp_path / "out", "kitft" if (theirs / "av/config.json").exists() else "peft"
    )
    data = yaml.safe_load((tmp_path / "out" / "ar" / "nla_meta.yaml").read_text("utf-8"))
    assert "injection_scale" not in data["extraction"]
    # The unsaid stays unsaid when an AV is put in the AR's place.
    assert read_contract(file).nlakit.injection_source == "unknown"


@pytest.mark.parametrize(
    ("kind", "given", "read", "source"),
    [
        ("nla_model", "absent", D**0.5, "left out of a model's sidecar: sqrt_d_model"),
        ("nla_model", None, 60.0, "the sidecar"),
        ("nla_model", 7.5, 7.5, "the sidecar"),
        ("nla_dataset", 7.5, 7.5, "the sidecar"),
        ("nla_dataset", "sqrt_d_model", D**0.5, "the sidecar"),
        ("nla_dataset", None, None, ""),
    ],
)
def test_what_each_sidecar_means(
    toy_subject: Any, tmp_path: Path, kind: str, given: Any, read: float | None, source: str
) -> None:
    """Null in a data set's sidecar stands beside AVs that add at the vector's own norm."""
    export_pair(pair(toy_subject, "llama"), tmp_path / "out", "kitft")

    def change(data: dict[str, Any]) -> None:
        del data["nlakit"]
        data["kind"] = kind
        data["extraction"]["injection_scale"] = given
        if given == "absent":
            del data["extraction"]["injection_scale"]

    edit(tmp_path / "out" / "av" / "nla_meta.yaml", change)
    if read is None:
        with pytest.raises(ContractError, match=OPEN):
            NLA.load(tmp_path / "out" / "av", **CPU)
        return
    av = NLA.load(tmp_path / "out" / "av", **CPU).av
    assert av is not None and av.contract.nlakit.injection_source == source
    vector = np.zeros((1, D), dtype=np.float32)
    vector[0, 3] = 60.0
    assert float(av.scaled(vector)[0, 3]) == pytest.approx(read)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("extraction", "injection_layer", 1),
        ("extraction", "injection_mode", "norm_matched_add"),
        ("tokens", "injection_method", "add"),
        (None, "injection", {"block": 1}),
    ],
)
def test_a_model_that_names_another_way_in_is_refused(
    toy_subject: Any, tmp_path: Path, place: str | None, name: str, value: Any
) -> None:
    export_pair(pair(toy_subject, "llama"), tmp_path / "out", "kitft")
    file = tmp_path / "out" / "av" / "nla_meta.yaml"
    edit(file, lambda data: (data[place] if place else data).update({name: value}))
    with pytest.raises(ContractError, match=f"found: {name}: .*the reference does not have"):
        NLA.load(tmp_path / "out", **CPU)
    edit(file, lambda data: (data[place] if place else data).update({name: "reference"}))
    assert NLA.load(tmp_path / "out", **CPU).av is not None


def added(av: Verbalizer, vectors: np.ndarray) -> list[str]:
    """Texts of an AV whose marker row becomes h + |h| v/|v| behind block 1."""
    wanted = torch.as_tensor(vectors)

    def add(module: Any, args: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        if hidden.shape[1] == 1:
            return None
        at = av.prompt.index(av.contract.tokens.injection_token_id)
        row = hidden[:, at]
        hidden[:, at] = row + row.norm(dim=-1, keepdim=True) * torch.nn.functional.normalize(wanted)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = av.decoder.layers[1].register_forward_hook(add)
    try:
        with torch.no_grad():
            ids = torch.tensor([av.prompt] * len(vectors))
            found = decode(av.model, av.decoder, ids, av.close, av.decoding(), 0)
    finally:
        handle.remove()
    return [av.tokenizer.decode(row, skip_special_tokens=True).strip() for row in found]


def test_planted_norm_matched_add_is_never_silently_read(
    theirs: Path, vectors: np.ndarray, tmp_path: Path
) -> None:
    """Read as the reference's it writes other texts than those of its own way in, each as fluent:
    nothing but the statement of the user can tell them apart. Stated, it is read exactly."""
    av = NLA.load(theirs, injection="reference", **CPU).av
    assert av is not None
    assert av.explain(vectors) != (expected := added(av, vectors))
    with pytest.raises(ContractError, match=OPEN):
        NLA.load(theirs, **CPU)
    own = NLA.load(theirs, injection="add", **CPU)
    assert own.av is not None and own.av.explain(vectors) == expected
    import_pair([theirs], tmp_path / "ours", injection="add", **CPU)
    again = NLA.load(tmp_path / "ours", device="cpu")
    assert again.av is not None and again.av.explain(vectors) == expected
    with pytest.raises(
        ContractError, match="found: added at the norm .* behind block 1; do: .*--format peft"
    ):
        export_pair(again, tmp_path / "out", "kitft")
    assert not (tmp_path / "out").exists()


def test_the_commands_take_the_statement(theirs: Path, vectors: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", vectors)
    rows, where = str(tmp_path / "v.npy"), [str(theirs), "--device", "cpu", "--ar-bos", "yes"]
    said, runner = ["--injection", "reference"], CliRunner()
    for command in (
        ["explain", *where, "--vectors", rows],
        ["reconstruct", *where, "a text"],
        ["score", *where, "--vectors", rows, *["x"] * len(vectors)],
        ["import", str(theirs), str(tmp_path / "ours"), *where[1:], "--vectors", rows],
        ["export", str(theirs), str(tmp_path / "out"), "--format", "peft", *where[1:]],
    ):
        found = runner.invoke(app, command)
        assert isinstance(found.exception, ContractError), command
        assert "leave open" in str(found.exception)
        assert not (tmp_path / "ours").exists() and not (tmp_path / "out").exists()
    for command in (
        ["explain", *where, "--vectors", rows, *said],
        ["import", str(theirs), str(tmp_path / "ours"), *where[1:], "--vectors", rows, *said],
        ["score", str(tmp_path / "ours"), "--device", "cpu", "--vectors", rows, *["x"] * 8],
    ):
        found = runner.invoke(app, command)
        assert found.exit_code == 0, (command, found.exception)


def test_an_evaluation_refuses_before_it_claims_its_folder(theirs: Path, tmp_path: Path) -> None:
    application = typer.Typer()
    cli_evaluate.register(application)
    cli_files.register(application)
    out, data = str(tmp_path / "out"), str(tmp_path / "rows.parquet")
    pairs = ["eval", str(theirs), "--data", data, "--out", out]
    found = CliRunner().invoke(application, pairs)
    assert "leave open" in str(found.exception) and not Path(out).exists()
    stated = ["--injection", "reference", "--ar-bos", "yes"]
    found = CliRunner().invoke(application, [*pairs, *stated])
    assert "leave open" not in str(found.exception)
    run = CliRunner().invoke(application, ["eval", __file__, "--injection", "reference"])
    assert "--ar-bos are for pairs" in str(run.exception)


def test_what_is_added_behind_block_1_is_written_as_adapters_and_read_without_a_word(
    toy_subject: Any, vectors: np.ndarray, tmp_path: Path
) -> None:
    """The sidecar says it to nlakit, and to others that the embedding is not the place: they find
    no scale to feed it at. Blocks that no other tool knows stay refused."""
    made = pair(toy_subject, "llama", injection=NORM_MATCHED)
    export_pair(made, tmp_path / "out", "peft")
    theirs = PeftAV(tmp_path / "out" / "av", Path(made.subject.config.model))
    again = NLA.load(tmp_path / "out", **CPU)
    assert_read_exactly(again, theirs, vectors)
    assert made.av is not None and again.av is not None
    assert again.av.explain(vectors) == made.av.explain(vectors)
    assert again.av.contract.injection == NORM_MATCHED
    # A statement counts only where the files leave it open.
    assert NLA.load(tmp_path / "out", injection="reference", **CPU).contract.injection == (
        NORM_MATCHED
    )
    written = yaml.safe_load((tmp_path / "out" / "av" / "nla_meta.yaml").read_text("utf-8"))
    assert written["extraction"]["injection_scale"] is None
    assert written["extraction"]["injection_mode"] == "norm_matched_add"
    edit(tmp_path / "out" / "av" / "nla_meta.yaml", lambda data: data.pop("nlakit"))
    with pytest.raises(ContractError, match="injection_mode: norm_matched_add, which the ref"):
        NLA.load(tmp_path / "out", **CPU)
    import_pair([tmp_path / "out"], tmp_path / "ours", injection="add", **CPU)
    assert_read_exactly(NLA.load(tmp_path / "ours", device="cpu"), theirs, vectors)
    export_pair(NLA.load(tmp_path / "ours", device="cpu"), tmp_path / "again", "peft")
    assert_read_exactly(NLA.load(tmp_path / "again", **CPU), theirs, vectors)
    other = pair(toy_subject, "llama", injection=Injection(embedding=False, blocks=(2,), how="add"))
    with pytest.raises(ContractError, match="behind block 2; do: share the pair"):
        export_pair(other, tmp_path / "no", "peft")
