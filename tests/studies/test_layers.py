"""The survey of layers: on a toy model from end to end, what is reused, what is refused, and a
planted layer of noise."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from nlakit.cli import layers as cli_layers
from nlakit.config.sections import RunConfig, SubjectConfig
from nlakit.errors import ConfigError, DataError, ModelError, NlakitError, RunError
from nlakit.files.parquet import matrix, read_table
from nlakit.files.rows import TableRows
from nlakit.models.subject import Subject, load_subject
from nlakit.run.folder import RunDir
from nlakit.studies import layer_measures
from nlakit.studies.layer_measures import Shared, measure_geometry, read_shared
from nlakit.studies.layers import chosen_layers, depth_and_width, settings, survey, table_of
from tests.conftest import LAYERS, D, toy_corpus

MEASURES = ("mean_share", "mean_cosine", "norm", "document_retrieval", "next_token", "own_token")


def build(model: Path, corpus: Path, layers: Sequence[int], **overrides: Any) -> RunConfig:
    """Settings of a survey with ARs that take a second."""
    subject = SubjectConfig(model=str(model), layer=0, dtype="float32", device="cpu")
    config = settings(subject, str(corpus), layers, documents=30, positions=3, seed=0)
    small = {"batch_rows": 4, "lora": {"r": 2, "alpha": 4}}
    data = config.model_dump()
    return RunConfig.model_validate({**data, "ar": {**data["ar"], **small}} | overrides)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two files, so two families."""
    folder = tmp_path_factory.mktemp("corpus")
    whole = toy_corpus(folder / "even.jsonl", 60).read_text(encoding="utf-8").splitlines()
    for name, lines in (("even", whole[::2]), ("odd", whole[1::2])):
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def surveyed(
    tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path], corpora: Path
) -> tuple[RunConfig, Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("runs") / "layers"
    config = build(toy_folder("gemma3"), corpora, range(LAYERS))
    return config, folder, survey(config, folder, steps=2, rows=32)


def test_every_layer_has_every_measure_with_its_floor(
    surveyed: tuple[RunConfig, Path, dict[str, Any]],
) -> None:
    _, folder, report = surveyed
    assert json.loads((folder / "layers.json").read_text(encoding="utf-8")) == report
    assert [record["layer"] for record in report["layers"]] == list(range(LAYERS))
    split = read_table(folder / "03_split" / "split.parquet")
    held_out = split["part"].to_pylist().count("test")
    for record in report["layers"]:
        for name in (*MEASURES, "family_probe"):
            found = record[name]
            assert found["low"] <= found["mean"] <= found["high"], name
            assert found["documents"] == held_out
            assert name == "norm" or found["floors"], name
        assert record["family_probe"]["classes"] == 2
        assert record["family_probe"]["floors"]["guess"] == 0.5
        assert set(record["ar"]["scores"]) == {"real", "mean", "empty", "gibberish", "other_row"}
        gain, scores = record["ar"]["gain"]["centred_cosine"], record["ar"]["scores"]
        best = max(one["centred_cosine"]["mean"] for name, one in scores.items() if name != "real")
        assert gain["mean"] == pytest.approx(scores["real"]["centred_cosine"]["mean"] - best)
        assert gain["rows"] == 32
    assert report["provenance"]["corpus_sha256"] and report["provenance"]["stages"]
    assert report["config"]["seed"] == 0 and report["config"]["steps"] == 2
    assert (folder / "layers.png").read_bytes().startswith(b"\x89PNG")
    console = Console(width=220, record=True)
    console.print(table_of(report))
    shown = " ".join(console.export_text().split())
    assert report["recommendation"]["reason"] in shown


def test_all_layers_come_from_one_pass_and_are_those_of_the_model(
    surveyed: tuple[RunConfig, Path, dict[str, Any]],
) -> None:
    import torch

    config, folder, report = surveyed
    subject = load_subject(config.subject)
    shared = read_shared(RunDir(folder), subject.tokenizer, True, config)
    row = int(np.flatnonzero(shared.held_out)[0])
    text = dict(
        zip(
            *read_table(folder / "01_corpus" / "corpus.parquet", ["doc_id", "text"])
            .to_pydict()
            .values(),
            strict=True,
        )
    )[shared.rows.doc_ids[row]]
    ids = subject.tokenizer(text)["input_ids"]
    place = shared.rows.positions[row]
    assert [shared.token_ids[row], shared.next_ids[row]] == ids[place : place + 2]
    states = subject.model(
        input_ids=torch.tensor([ids[: place + 1]]), output_hidden_states=True
    ).hidden_states
    for layer in range(LAYERS - 1):  # the last of hidden_states is normed
        column = "activation_vector" if layer == 0 else f"activation_vector_L{layer}"
        vectors = matrix(read_table(folder / "02_activations", [column]), column)[shared.kept]
        np.testing.assert_allclose(
            vectors[row], states[layer + 1][0, -1].detach().numpy(), rtol=1e-3, atol=1e-3
        )
        norms = np.linalg.norm(vectors[shared.held_out], axis=1)
        assert report["layers"][layer]["norm"]["mean"] == pytest.approx(norms.mean(), rel=1e-5)


def test_finished_layers_are_not_measured_again(
    tmp_path: Path, toy_folder: Callable[[str], Path], corpora: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = build(toy_folder("gemma3"), corpora, range(LAYERS))
    measured: list[int] = []
    whole = layer_measures.quick_ar

    def until_killed(shared: Any, vectors: Any, subject: Any, own: RunConfig, *rest: Any) -> Any:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(own.subject.layer)
        return whole(shared, vectors, subject, own, *rest)

    monkeypatch.setattr(layer_measures, "quick_ar", until_killed)
    with pytest.raises(KeyboardInterrupt):
        survey(config, tmp_path / "run", steps=1, rows=16)
    assert measured == [0, 1]
    assert not (tmp_path / "run" / "layers.json").exists()
    before = (tmp_path / "run" / "layers" / "L000.json").stat().st_mtime_ns
    extracted = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")}

    def counted(shared: Any, vectors: Any, subject: Any, own: RunConfig, *rest: Any) -> Any:
        measured.append(own.subject.layer)
        return whole(shared, vectors, subject, own, *rest)

    monkeypatch.setattr(layer_measures, "quick_ar", counted)
    resumed = survey(config, tmp_path / "run", steps=1, rows=16)
    assert measured == [0, 1, 2, 3]
    assert (tmp_path / "run" / "layers" / "L000.json").stat().st_mtime_ns == before
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")} == extracted
    again = survey(config, tmp_path / "run", steps=1, rows=16)
    assert measured == [0, 1, 2, 3] and again == resumed

    straight = survey(config, tmp_path / "straight", steps=1, rows=16)
    for left, right in zip(resumed["layers"], straight["layers"], strict=True):
        assert {**left, "seconds": 0} == {**right, "seconds": 0}

    (tmp_path / "run" / "layers" / "L002.json").write_text('{"key', encoding="utf-8")
    survey(config, tmp_path / "run", steps=1, rows=16)
    assert measured[-1] == 2  # a damaged file is measured again, and it alone
    survey(config, tmp_path / "run", steps=2, rows=16)
    assert measured[-4:] == [0, 1, 2, 3]
    other = build(toy_folder("gemma3"), corpora, range(2))
    with pytest.raises(RunError, match="made under other conditions"):
        survey(other, tmp_path / "run", steps=1, rows=16)


def noise_and_signal(noisy: int) -> tuple[Shared, dict[int, Any]]:
    """Rows of 40 documents of two families in five layers that hold the document, but for one that
    is noise (mode 12: a layer much worse than its neighbours)."""
    rng = np.random.default_rng(0)
    documents, per = 40, 4
    n = documents * per
    docs = [f"d{row // per:02d}" for row in range(n)]
    topics = np.repeat(rng.standard_normal((documents, D)), per, axis=0)
    rows = TableRows(
        [f"{doc}:{row}" for row, doc in enumerate(docs)], docs, [""] * n, [""] * n,
        ["even" if int(doc[1:]) % 2 else "odd" for doc in docs], ["x"] * n,
        [50 + 40 * (row % per) for row in range(n)], np.zeros((n, 0), np.float32),
    )  # fmt: skip
    held_out = np.array([int(doc[1:]) % 5 < 2 for doc in docs])
    ids = rng.integers(5, 60, size=n)
    shared = Shared(rows, held_out, ids, np.roll(ids, 1), np.arange(n), 0)
    layers = {
        layer: (1.0 + (0 if layer == noisy else 1) * topics + 0.8 * rng.standard_normal((n, D)))
        for layer in range(5)
    }
    return shared, {layer: v.astype(np.float32) for layer, v in layers.items()}


@pytest.mark.parametrize("noisy", [0, 3, 4])
def test_planted_mode_12_a_layer_of_noise_is_seen_and_never_recommended(
    noisy: int, toy_subject: Callable[..., Subject]
) -> None:
    from nlakit.core.layer_choice import recommend, warnings
    from nlakit.studies.layers import compared

    shared, vectors = noise_and_signal(noisy)
    subject, found = toy_subject(), {}
    for layer, values in vectors.items():
        record, rows = measure_geometry(shared, values, subject, seed=0)
        found[layer] = {"record": record, "values": rows}
    retrieval = {k: one["record"]["document_retrieval"] for k, one in found.items()}
    assert (
        retrieval[noisy]["mean"]
        < 0.1
        < 0.5
        < min(one["mean"] for layer, one in retrieval.items() if layer != noisy)
    )
    assert retrieval[noisy]["low"] <= retrieval[noisy]["floors"]["chance"] + 0.05
    (measure,) = compared(found)
    warned = warnings([measure])
    assert [one["layer"] for one in warned] == [noisy]
    assert warned[0]["text"].startswith(f"layer {noisy}: document retrieval 0.0")
    advice = recommend(measure, 5, {noisy})
    assert advice["layer"] not in (None, noisy) and noisy not in advice["tied"]
    unwarned = recommend(measure, 5, set())  # beaten by its own figures as well
    assert noisy not in unwarned["tied"]
    if noisy == 3:
        assert unwarned["two_thirds"] == 3 and ", far below" in unwarned["reason"]


def test_what_cannot_be_measured_says_why(
    tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    corpus = toy_corpus(tmp_path / "one.jsonl", 30)  # a file without families is one family
    config = build(toy_folder("llama"), corpus, [1, 3])
    config = config.model_copy(
        update={"activations": config.activations.model_copy(update={"positions_per_document": 1})}
    )
    with pytest.raises(DataError, match="no layer can be compared"):
        survey(config, tmp_path / "run", steps=0, rows=16)
    report = survey(config, tmp_path / "run", steps=1, rows=16)
    for record in report["layers"]:
        assert "two families" in record["family_probe"]["not_measured"]
        assert "32 tokens apart" in record["document_retrieval"]["not_measured"]


def test_without_steps_documents_decide(
    tmp_path: Path, toy_folder: Callable[[str], Path], corpora: Path
) -> None:
    config = build(toy_folder("gpt2"), corpora, [0, 2])
    report = survey(config, tmp_path / "run", steps=0, rows=16)
    assert report["recommendation"]["by"] == "document retrieval"
    assert {record["ar"]["not_measured"] for record in report["layers"]} == {"--steps 0"}
    assert not (tmp_path / "run" / "04_labels").exists()


def test_refused_layers_and_models(tmp_path: Path, toy_folder: Callable[[str], Path]) -> None:
    assert chosen_layers("all", 3) == [0, 1, 2]
    assert chosen_layers("2, 0,2", 3) == [0, 2]
    assert chosen_layers("0, 1-2,2", 3) == [0, 1, 2]
    for asked in ("", "1,", "-1", "2-1", "1-", "1-2-3", "0-99999999", "x"):
        with pytest.raises(ConfigError, match="takes numbers and spans"):
            chosen_layers(asked, 3)
    with pytest.raises(ConfigError, match="no block 3; found: blocks 0 to 2"):
        chosen_layers("0,3", 3)
    config = SubjectConfig(model=str(toy_folder("gpt2")), layer=0)
    assert depth_and_width(config) == (LAYERS, D)
    with pytest.raises(ModelError, match="cannot read the configuration"):
        depth_and_width(SubjectConfig(model=str(tmp_path / "no-model")))


def test_too_few_documents_are_refused(tmp_path: Path, toy_folder: Callable[[str], Path]) -> None:
    corpus = toy_corpus(tmp_path / "few.jsonl", 8)
    with pytest.raises(DataError, match="too few documents to compare layers"):
        survey(build(toy_folder("gemma3"), corpus, [1]), tmp_path / "run", steps=0, rows=16)


def test_the_command(tmp_path: Path, toy_folder: Callable[[str], Path], corpora: Path) -> None:
    app = typer.Typer(pretty_exceptions_enable=False)
    cli_layers.register(app)
    app.callback()(lambda: None)

    def call(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["layers", *arguments])

    model, out = str(toy_folder("gemma3")), str(tmp_path / "run")
    common = ["--device", "cpu", "--dtype", "float32", "--steps", "0"]
    made = call(model, str(corpora), "--layers", "1,3", "--documents", "40", "--out", out, *common)
    assert made.exit_code == 0, made.exception
    assert "2 layers of 4, up to 160 rows" in made.output
    report = json.loads((tmp_path / "run" / "layers.json").read_text(encoding="utf-8"))
    assert [record["layer"] for record in report["layers"]] == [1, 3]

    empty = tmp_path / "empty.txt"
    empty.write_text("", encoding="utf-8")
    for arguments, message in (
        ((model, str(corpora), "--layers", "9"), "no block 9"),
        ((model, str(empty), "--out", str(tmp_path / "e")), "is empty; found: 0 bytes"),
        ((model, str(tmp_path / "none"), "--out", str(tmp_path / "n")), "does not exist"),
        ((model, str(corpora), "--dtype", "int3"), "unknown --dtype; found: int3"),
        ((str(tmp_path / "no"), "demo"), "cannot read the configuration"),
        ((model, str(corpora), "--out", out, *common), "made under other conditions"),
    ):
        refused = call(*arguments)
        assert isinstance(refused.exception, NlakitError), arguments
        assert message in str(refused.exception)
