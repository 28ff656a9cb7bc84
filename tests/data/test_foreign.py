"""Tables in the reference's shape, both ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from nlakit.cli.use.files import import_
from nlakit.core.contract import read_contract, table_sidecar
from nlakit.data import foreign
from nlakit.data.foreign import export_tables, import_tables
from nlakit.data.tables import MEAN_FILE, shape
from nlakit.errors import ConfigError, ContractError, DataError
from nlakit.files.parquet import matrix, read_table, vector_array, write_table
from nlakit.models.lora import read_tensors
from nlakit.run.folder import RunDir
from tests.conftest import D, build_contract

PARTS = ("av", "ar", "rl", "test")


@pytest.fixture
def run(toy_subject: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose tables are finished: two rows of one document a part."""
    contract = build_contract(toy_subject("llama"), role="table")
    contract.kind = "nla_dataset"
    folder = tmp_path / "run" / "05_tables"
    rng = np.random.default_rng(1)
    for part in PARTS:
        table = pa.table(
            {
                "row_id": [f"{part}:0", f"{part}:1"],
                "doc_id": [part, part],
                "api_explanation": [f"{part} one", f"{part} two {{x}}"],
                "detokenized_text_truncated": ["a", "ab"],
                "source_family": ["f", "f"],
                "token": ["a", "b"],
                "position": [7, 8],
                "n_raw_tokens": [8, 9],
                "activation_layer": [1, 1],
                "activation_vector": vector_array(rng.standard_normal((2, D))),
                "part": [part, part],
            }
        )
        write_table(folder / f"{part}.parquet", shape(table, part, contract))
        contract.write(table_sidecar(folder / f"{part}.parquet"))
    monkeypatch.setattr(RunDir, "need", lambda self, stage: folder)
    return tmp_path / "run"


def test_export_has_the_references_columns(run: Path, tmp_path: Path) -> None:
    export_tables(run, tmp_path / "out")
    av = read_table(tmp_path / "out" / "av_sft.parquet").to_pylist()
    assert av[0]["prompt"] == [{"role": "user", "content": "<concept><INJECT></concept>"}]
    assert av[0]["response"] == "<explanation>\nav one\n</explanation>"
    ar = read_table(tmp_path / "out" / "ar_sft.parquet").to_pylist()
    tail = "<text>ar one</text> <summary>"
    assert ar[0]["prompt"] == f"Summary of the following text: {tail}"
    assert (
        "response" not in ar[0]
        and "response" not in read_table(tmp_path / "out" / "rl.parquet").column_names
    )
    sidecar = yaml.safe_load(
        (tmp_path / "out" / "av_sft.parquet.nla_meta.yaml").read_text(encoding="utf-8")
    )
    assert sidecar["extraction"]["d_model"] == D and sidecar["kind"] == "nla_dataset"
    assert sidecar["prompt_templates"]["actor"] == "<concept>{injection_char}</concept>"
    assert "injection_scale" not in sidecar["extraction"]


@pytest.mark.parametrize("bare", [False, True])
def test_round_trip(run: Path, tmp_path: Path, bare: bool) -> None:
    """Texts and vectors come back; `bare` has nothing but the reference's own columns and keys."""
    out = tmp_path / "out"
    export_tables(run, out)
    for file in out.glob("*.parquet") if bare else ():
        data = yaml.safe_load(table_sidecar(file).read_text(encoding="utf-8"))
        del data["nlakit"], data["d_model"]
        table_sidecar(file).write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        table = read_table(file)
        if "rl" not in file.name and "test" not in file.name:
            write_table(file, table.drop_columns(["api_explanation"]))
    import_tables(out, tmp_path / "back", None, "float32")
    for part in PARTS:
        was = read_table(run / "05_tables" / f"{part}.parquet")
        now = read_table(tmp_path / "back" / f"{part}.parquet")
        assert now["api_explanation"].to_pylist() == was["api_explanation"].to_pylist()
        assert np.array_equal(matrix(now), matrix(was))
        assert now["position"].to_pylist() == [7, 8]
        assert {"row_id", "doc_id", "source_family", "token"} <= set(now.column_names)
    contract = read_contract(table_sidecar(tmp_path / "back" / "av.parquet"))
    assert contract.av_prompt() == "<concept>㊗</concept>"
    assert contract.nlakit.av_open == "<explanation>\n"
    written = yaml.safe_load(table_sidecar(tmp_path / "back" / "av.parquet").read_text("utf-8"))
    assert "injection_scale" not in written["extraction"]  # theirs names none, and none is made up
    mean = read_tensors(tmp_path / "back" / MEAN_FILE)["mean_unit"].numpy()
    train = np.concatenate(
        [matrix(read_table(run / "05_tables" / f"{part}.parquet")) for part in PARTS[:3]]
    )
    u = train / np.linalg.norm(train, axis=1, keepdims=True)
    assert np.allclose(mean, u.mean(0), atol=1e-6)
    assert contract.nlakit.baseline == pytest.approx(np.square(u - u.mean(0)).sum(1).mean(), 1e-4)


def rows_without_text(table: pa.Table) -> pa.Table:
    return table.drop_columns(["api_explanation", "response"]).append_column(
        "response", pa.array(["no tags"] * table.num_rows)
    )


def null_text(table: pa.Table) -> pa.Table:
    texts = pa.array([None, "one"], pa.string())
    return table.drop_columns(["api_explanation"]).append_column("api_explanation", texts)


def other_document(table: pa.Table) -> pa.Table:
    return table.drop_columns(["doc_id"]).append_column("doc_id", pa.array(["ar", "ar"]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rows_without_text, "2 of 2 whose response"),
        (null_text, "1 of 2 whose api_explanation is null"),
        (other_document, "a document lies in two tables.*ar in ar and av"),
        (lambda table: table.drop_columns(["doc_id"]), "no column doc_id"),
    ],
)
def test_bad_tables_are_refused(
    run: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    export_tables(run, tmp_path / "out")
    file = tmp_path / "out" / "av_sft.parquet"
    write_table(file, change(read_table(file)))
    with pytest.raises(DataError, match=says):
        import_tables(tmp_path / "out", tmp_path / "back", None, "float32")
    assert not (tmp_path / "back").exists()


def with_layer(table: pa.Table) -> pa.Table:
    at = table.column_names.index("activation_layer")
    return table.set_column(at, "activation_layer", pa.array([3] * table.num_rows))


def test_tables_of_other_activations_are_refused(run: Path, tmp_path: Path) -> None:
    """By the column, whatever the sidecar says; and by the sidecars, which must agree."""
    export_tables(run, tmp_path / "out")
    file = tmp_path / "out" / "av_sft.parquet"
    plain = read_table(file)
    write_table(file, with_layer(plain))
    with pytest.raises(ContractError, match="another layer than its sidecar.*'3'"):
        import_tables(tmp_path / "out", tmp_path / "back", None, "float32")
    write_table(file, plain)
    sidecar = table_sidecar(file)
    written = sidecar.read_text(encoding="utf-8")
    for name, value in (("layer_index", 0), ("base_model", "some/other")):
        data = yaml.safe_load(written)
        data["extraction"][name] = value
        sidecar.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
        with pytest.raises(ContractError, match="ar_sft and av_sft differ in their"):
            import_tables(tmp_path / "out", tmp_path / "back", None, "float32")


def test_tables_of_other_types_are_joined(run: Path, tmp_path: Path) -> None:
    """Plain lists, missing and unknown counts: the imported tables have one schema."""
    export_tables(run, tmp_path / "out")
    av, ar = tmp_path / "out" / "av_sft.parquet", tmp_path / "out" / "ar_sft.parquet"
    table = read_table(av).drop_columns(["n_raw_tokens", "activation_vector"])
    lists = pa.array(matrix(read_table(av)).tolist(), pa.list_(pa.float64()))
    write_table(av, table.append_column("activation_vector", lists))
    table = read_table(ar).drop_columns(["n_raw_tokens"])
    write_table(ar, table.append_column("n_raw_tokens", pa.array([None, 9], pa.int64())))
    import_tables(tmp_path / "out", tmp_path / "back", None, "float32")
    made = [read_table(tmp_path / "back" / f"{part}.parquet") for part in PARTS]
    assert len({str(table.schema.remove_metadata()) for table in made}) == 1
    assert made[1]["n_raw_tokens"].to_pylist() == [0, 9]


def test_rl_rows_need_no_explanation(run: Path, tmp_path: Path) -> None:
    export_tables(run, tmp_path / "out")
    file = tmp_path / "out" / "rl.parquet"
    write_table(file, null_text(read_table(file)))
    import_tables(tmp_path / "out", tmp_path / "back", None, None)
    made = read_table(tmp_path / "back" / "rl.parquet")
    assert made["api_explanation"].to_pylist() == ["", "one"]
    # The precision is the recorded one.
    contract = read_contract(table_sidecar(tmp_path / "back" / "rl.parquet"))
    assert contract.nlakit.subject_precision == "float32"


def test_two_files_of_one_part_are_refused(run: Path, tmp_path: Path) -> None:
    export_tables(run, tmp_path / "out")
    first, second = tmp_path / "out" / "av_sft.parquet", tmp_path / "out" / "av_sft_2.parquet"
    second.write_bytes(first.read_bytes())
    table_sidecar(second).write_bytes(table_sidecar(first).read_bytes())
    with pytest.raises(DataError, match=r"av_sft\.parquet and av_sft_2\.parquet"):
        import_tables(tmp_path / "out", tmp_path / "back", None, None)


def renamed(source: Path, target: Path, doc: str) -> None:
    """A copy of a table under another name, of another document."""
    table = read_table(source)
    at = table.column_names.index("doc_id")
    table = table.set_column(at, "doc_id", pa.array([doc] * table.num_rows))
    write_table(target, table)
    table_sidecar(target).write_bytes(table_sidecar(source).read_bytes())


def splits(run: Path, out: Path, *names: str) -> dict[str, str]:
    """Tables of these names beside `av_sft_train` and `ar_sft_train`; part → document found."""
    export_tables(run, out)
    for half in ("av", "ar"):
        (out / f"{half}_sft.parquet").rename(out / f"{half}_sft_train.parquet")
        sidecar = table_sidecar(out / f"{half}_sft.parquet")
        sidecar.rename(table_sidecar(out / f"{half}_sft_train.parquet"))
    (out / "test.parquet").unlink()
    for name in names:
        renamed(out / f"{name[:2]}_sft_train.parquet", out / f"{name}.parquet", name)
    return {
        part: read_table(f)["doc_id"][0].as_py() for part, f in foreign._files_of(out)[0].items()
    }


@pytest.mark.parametrize("name", ["av_sft_val", "ar_sft_val", "av_sft_test", "ar_sft-validation"])
def test_held_out_tables_are_the_test_part_and_never_train(
    run: Path, tmp_path: Path, name: str
) -> None:
    """The sidecar's stage is that of the training table: the name says what it is for."""
    out, back = tmp_path / "out", tmp_path / "back"
    assert splits(run, out, name) == {"av": "av", "ar": "ar", "rl": "rl", "test": name}
    for file in out.glob("*.parquet"):
        if file.name.startswith(("av", "ar")):
            write_table(file, read_table(file).drop_columns(["api_explanation"]))
    import_tables(out, back, None, "float32")
    texts = read_table(back / "test.parquet")["api_explanation"].to_pylist()
    assert texts == [f"{name[:2]} one", f"{name[:2]} two {{x}}"]
    trained = {read_table(back / f"{p}.parquet")["doc_id"][0].as_py() for p in ("av", "ar", "rl")}
    assert trained == {"av", "ar", "rl"}


def test_validation_beside_test_is_left_out_and_said(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = splits(run, out, "av_sft_val", "ar_sft_val", "av_sft_test")
    assert found == {"av": "av", "ar": "ar", "rl": "rl", "test": "av_sft_test"}
    said = import_tables(out, tmp_path / "back", None, "float32")
    assert said[-2:] == [
        f"left out: {h}_sft_val.parquet holds validation rows" for h in ("ar", "av")
    ]
    renamed(out / "ar_sft_train.parquet", out / "ar_sft_test.parquet", "more")
    with pytest.raises(DataError, match="ar_sft_test.*av_sft_test.parquet; do: move one away"):
        foreign._files_of(out)


@pytest.mark.parametrize("names", [("av_sft_val", "ar_sft_val"), ("ar_val", "av_val")])
def test_validation_of_both_halves_is_one_test_part(
    run: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    """As EasyNLA publishes them. A row that both hold counts once, and RL rows have no labels."""
    out, back = tmp_path / "out", tmp_path / "back"
    splits(run, out, *names)
    renamed(out / "rl.parquet", out / "rl_val.parquet", "rl_val")
    said = import_tables(out, back, None, "float32")
    assert said[-1] == "left out: rl_val.parquet holds validation rows"
    made = read_table(back / "test.parquet")
    av, ar = sorted(names, reverse=True)
    assert made["doc_id"].to_pylist() == [av, av, ar, ar]
    assert made["api_explanation"].to_pylist()[:2] == ["av one", "av two {x}"]
    assert len(set(made["row_id"].to_pylist())) == 4
    (out / f"{ar}.parquet").write_bytes((out / f"{av}.parquet").read_bytes())
    import_tables(out, tmp_path / "again", None, "float32")
    assert read_table(tmp_path / "again" / "test.parquet")["doc_id"].to_pylist() == [av, av]
    renamed(out / "ar_sft_train.parquet", out / f"{ar}.parquet", "av")
    with pytest.raises(DataError, match="a document lies in two tables.*av in av and test"):
        import_tables(out, tmp_path / "no", None, "float32")


def test_a_part_is_read_from_whole_words(run: Path, tmp_path: Path) -> None:
    export_tables(run, tmp_path / "out")
    for name, part in (("av_sft_latest", "av"), ("ar_sft_evaluator", "ar"), ("validation", "val")):
        renamed(tmp_path / "out" / "av_sft.parquet", tmp_path / f"{name}.parquet", "d")
        sidecar = table_sidecar(tmp_path / f"{name}.parquet")
        text = sidecar.read_text(encoding="utf-8").replace("stage: av_sft", "stage: null")
        sidecar.write_text(text, encoding="utf-8")
        assert foreign._part_of(tmp_path / f"{name}.parquet") == part


def test_a_sidecar_without_tokens_takes_the_other_tables(run: Path, tmp_path: Path) -> None:
    export_tables(run, tmp_path / "out")
    sidecar = table_sidecar(tmp_path / "out" / "ar_sft.parquet")
    data = yaml.safe_load(sidecar.read_text(encoding="utf-8"))
    del data["tokens"]
    sidecar.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    import_tables(tmp_path / "out", tmp_path / "back", None, None)
    made = [read_contract(table_sidecar(tmp_path / "back" / f"{p}.parquet")) for p in ("av", "ar")]
    assert made[0].tokens == made[1].tokens and made[1].tokens.injection_char == "㊗"


def test_options_for_tables(run: Path, tmp_path: Path) -> None:
    out, back = tmp_path / "out", tmp_path / "back"
    export_tables(run, out)
    with pytest.raises(ConfigError, match="unknown --precision; found: fp8"):
        import_tables(out, back, None, "fp8")
    options: list[dict[str, Any]] = [{"other": "x"}, {"vectors": Path("x")}, {"ar_blocks": 2}]
    for option in options:
        with pytest.raises(ConfigError, match="an option for pairs"):
            import_(str(out), back, **option)
    assert not back.exists()


def test_nothing_half_written_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError("disk full")

    export_tables(run, tmp_path / "out")
    monkeypatch.setattr(foreign, "save_file", full)
    with pytest.raises(OSError, match="disk full"):
        import_tables(tmp_path / "out", tmp_path / "back", None, None)
    assert not (tmp_path / "back").exists()
