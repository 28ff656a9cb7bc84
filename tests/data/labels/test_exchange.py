"""Labels from files, labels to files, and that nothing is lost on the way there and back."""

from __future__ import annotations

import csv
import gzip
import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from nlakit.config.labels import LabelFileConfig
from nlakit.config.load import load_config, parse_config
from nlakit.config.sections import RunConfig
from nlakit.data.labels import export as label_export
from nlakit.data.labels import label as labels
from nlakit.data.labels.export import export_labels
from nlakit.data.labels.file import FileLabeler
from nlakit.data.labels.labeler import SCHEMA, Label, LabelRequest, label_table, text_sha256
from nlakit.errors import ConfigError, DataError, RunError
from nlakit.files.parquet import read_table, write_table
from nlakit.run.folder import Rows, RunDir, file_sha256
from nlakit.run.stage import stage

EXAMPLES = Path(__file__).parents[3] / "examples"
THINGS = "whale ledger psalm violin engine garden harbour tax river captain kettle orchard".split()
TEXTS = [
    f"In the year {1800 + i} the {THINGS[i]} was brought to the town, and nobody who saw it "
    f"could say why the {THINGS[-1 - i]} had been left behind with so little care, for"
    for i in range(len(THINGS))
]
REQUESTS = [LabelRequest(f"d{i}:{60 + i}", text, " for") for i, text in enumerate(TEXTS)]
AUDITED: dict[str, Any] = {
    "labeler_model": "anthropic:writer",
    "auditor_model": "google:reader",
    "verdict": "keep",
    "audit_score": 0.9,
    "labeler_prompt": "ab12",
    "auditor_prompt": "cd34",
    "labelled_at": "2026-01-02T03:04:05+00:00",
    "tokens_in": 812,
    "tokens_out": 97,
    "cost": 0.00125,
    "attempts": 2,
}
# Every kind of row a run can have: audited, bare, refused, failed.
LABELS = [
    Label(REQUESTS[0].row_id, "A label, with “quotes”,\na second line | and a bar.", **AUDITED),
    Label(REQUESTS[1].row_id, "What the ledger held.", labeler_model="offline"),
    Label(REQUESTS[2].row_id, None, "audit_refused", **AUDITED),
    Label(REQUESTS[3].row_id, None, "attempts", attempts=6),
    *(Label(r.row_id, f"About {r.text[22:40]}", labeler_model="offline") for r in REQUESTS[4:]),
]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Rows as .parquet, .jsonl or .csv, as other tools write them."""
    rows = list(rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def labeler_of(
    path: Path, columns: dict[str, str] | None = None, rows: int | None = None
) -> FileLabeler:
    return FileLabeler(LabelFileConfig(path=str(path), columns=columns or {}), rows)


def row(index: int, **more: Any) -> dict[str, Any]:
    return {"detokenized_text_truncated": TEXTS[index], "api_explanation": f"E{index}"} | more


def build_run(path: Path, made: Callable[[], pa.Table] | None, **settings: Any) -> RunDir:
    """A run over TEXTS with finished stages up to the labels `made` gives (None: no labels)."""
    config = parse_config({"name": "toy", "seed": 3} | settings)
    rundir = RunDir.create(path, config)

    @stage("corpus", sections=("corpus",))
    def corpus(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
        write_table(folder / "corpus.parquet", {"doc_id": ["d"], "text": [" ".join(TEXTS)]})
        return Rows(entered=1, kept=1)

    @stage("activations", parents=("corpus",), sections=("subject",))
    def activations(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
        table = {
            "row_id": [request.row_id for request in REQUESTS],
            "doc_id": [request.row_id.split(":")[0] for request in REQUESTS],
            "source_family": ["a|b" if i % 3 else "plain" for i in range(len(REQUESTS))],
            "position": pa.array([60 + i for i in range(len(REQUESTS))], pa.int32()),
            "token": [request.token for request in REQUESTS],
            "detokenized_text_truncated": TEXTS,
            "expected_tokens": [[" a", " the"]] * len(TEXTS),
            "expected_chances": [[0.5, 0.25]] * len(TEXTS),
            "activation_vector": [[float(i), 1.0] for i in range(len(TEXTS))],
        }
        write_table(folder / "part-00000.parquet", table)
        return Rows(entered=len(TEXTS), kept=len(TEXTS))

    @stage("labels", parents=("corpus", "activations"), sections=("labels",))
    def labelled(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
        assert made is not None
        table = made()
        write_table(folder / "part-00000.parquet", table.slice(0, 5))
        write_table(folder / "part-00001.parquet", table.slice(5))
        return Rows(entered=table.num_rows, kept=table.num_rows)

    for one in (corpus, activations, *([labelled] if made else [])):
        one(config, rundir)
    return rundir


@pytest.fixture
def finished(tmp_path: Path) -> RunDir:
    return build_run(tmp_path / "run", lambda: label_table(LABELS, REQUESTS))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_there_and_back_loses_nothing(finished: RunDir, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / "out" / f"labels{suffix}"
    assert export_labels(finished, target) == len(TEXTS)
    back = labeler_of(target, rows=len(REQUESTS)).label(REQUESTS)
    assert label_table(back, REQUESTS).equals(label_table(LABELS, REQUESTS))


def test_there_and_back_in_two_runs(tmp_path: Path) -> None:
    alike: dict[str, Any] = {"max_duplicate_share": 1.0}
    first = build_run(tmp_path / "one", None, labels=alike)
    labels.run(load_config(first.path / "config.yaml"), first)
    export_labels(first, tmp_path / "out" / "labels.parquet")
    file = {"path": str(tmp_path / "out")}
    settings = alike | {"labeler": "file", "file": file, "rows_per_chunk": 5}
    second = build_run(tmp_path / "two", None, labels=settings)
    labels.run(load_config(second.path / "config.yaml"), second)
    old, new = (read_table(run.need("labels")) for run in (first, second))
    assert old.equals(new)
    assert new["api_explanation"].null_count == 0


def test_equal_texts_with_own_labels_come_back_as_they_were(tmp_path: Path) -> None:
    asked = [*REQUESTS[:2], replace(REQUESTS[0], row_id="copy:60")]
    given = [LABELS[0], LABELS[1], Label("copy:60", None, "attempts", attempts=6)]
    path = tmp_path / "labels.parquet"
    write_table(path, label_table(given, asked))
    back = labeler_of(path).label(asked)
    assert label_table(back, asked).equals(label_table(given, asked))
    # A row of another run takes what label its text has.
    other = replace(REQUESTS[0], row_id="other:1")
    assert labeler_of(path).label([other])[0].explanation == LABELS[0].explanation


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_a_published_file_is_read_by_its_column_map(tmp_path: Path, suffix: str) -> None:
    path = write(
        tmp_path / f"published{suffix}",
        [
            {
                "prefix": request.text, "summary": label.explanation, "who": "human",
                "score": 0.5, "spent": None if index == 1 else 12, "verdict": "keep",
                "why": None if label.explanation else "boring", "other": index,
            }
            for index, (request, label) in enumerate(zip(REQUESTS, LABELS, strict=True))
        ],
    )  # fmt: skip
    columns = {
        "detokenized_text_truncated": "prefix", "api_explanation": "summary",
        "labeler_model": "who", "audit_score": "score", "tokens_in": "spent", "reason": "why",
    }  # fmt: skip
    found = labeler_of(path, columns).label(REQUESTS)
    assert [one.explanation for one in found] == [one.explanation for one in LABELS]
    assert [one.reason for one in found[1:4]] == [None, "boring", "boring"]
    assert [one.tokens_in for one in found[:3]] == [12, None, 12]
    assert {(one.labeler_model, one.audit_score, one.verdict) for one in found} == {
        ("human", 0.5, "keep")
    }
    assert [one.row_id for one in found] == [request.row_id for request in REQUESTS]


def test_rows_are_found_by_hash_then_text_then_row_id(tmp_path: Path) -> None:
    right, wrong = REQUESTS[0], REQUESTS[1]
    keys = {
        "text_sha256": (text_sha256(right.text), text_sha256(wrong.text)),
        "detokenized_text_truncated": (right.text, wrong.text),
        "row_id": (right.row_id, wrong.row_id),
    }
    for count in (3, 2, 1):
        first, *rest = list(keys)[-count:]
        record = {"api_explanation": "E", first: keys[first][0]}
        record |= {name: keys[name][1] for name in rest}
        found = labeler_of(write(tmp_path / f"{count}.jsonl", [record])).label([right, wrong])
        assert [one.explanation for one in found] == ["E", None]


def test_rows_without_a_label_say_why(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(0), row(1, api_explanation=None, reason=None)])
    advanced: list[int] = []
    found = labeler_of(path).label(REQUESTS[:3], advanced.append)
    assert [(one.explanation, one.reason) for one in found] == [
        ("E0", None), (None, "no_label"), (None, "not_in_file"),
    ]  # fmt: skip
    assert sum(advanced) == 3


def test_origin_defaults_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", [row(0, labeler_model=""), row(1, labeler_model="me")])
    assert [one.labeler_model for one in labeler_of(path).label(REQUESTS[:2])] == [
        "file:a.csv", "me",
    ]  # fmt: skip
    path = write(tmp_path / "b.csv", [row(0)])
    assert labeler_of(path).label(REQUESTS[:1])[0].labeler_model == "file:b.csv"


def test_a_reason_beside_an_explanation_drops_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(0, reason="the auditor liked it")])
    found = labeler_of(path).label(REQUESTS[:1])[0]
    assert (found.explanation, found.reason) == ("E0", None)


@pytest.mark.parametrize("change", [lambda t: t + "\n", lambda t: unicodedata.normalize("NFD", t)])
def test_texts_are_equal_to_the_character(tmp_path: Path, change: Callable[[str], str]) -> None:
    text = TEXTS[0] + " Zoë"
    labeler = labeler_of(write(tmp_path / "a.parquet", [row(0, detokenized_text_truncated=text)]))
    asked = [LabelRequest("a", text, ""), LabelRequest("b", change(text), "")]
    assert [one.explanation for one in labeler.label(asked)] == ["E0", None]


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / ".cache").mkdir()
    write(tmp_path / "data" / "a.parquet", [row(0)])
    write(tmp_path / "b.jsonl", [row(1), row(0)])
    write(tmp_path / "c.csv", [row(2)])
    write(tmp_path / ".cache" / "d.jsonl", [row(0, api_explanation="stale")])
    (tmp_path / "README.md").write_text("no labels")
    found = labeler_of(tmp_path).label(REQUESTS[:4])
    assert [one.explanation for one in found] == ["E0", "E1", "E2", None]


def test_packed_label_files_are_read_and_what_is_not_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, last in enumerate((".jsonl", ".csv")):
        plain = write(tmp_path / f"a{last}", [row(index)])
        plain.with_name(f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    found = labeler_of(tmp_path).label(REQUESTS[:2])
    assert [label.explanation for label in found] == ["E0", "E1"]
    assert capsys.readouterr().err == f"left out of {tmp_path}: notes.txt\n"


def test_keys_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    records = [{"row_id": name, "api_explanation": "1.50"} for name in ("12:30", "007")]
    asked = [LabelRequest("12:30", "x", ""), LabelRequest("007", "y", "")]
    found = labeler_of(write(tmp_path / "a.csv", records)).label(asked)
    assert [one.explanation for one in found] == ["1.50", "1.50"]


def test_a_line_of_json_may_leave_out_what_is_null(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_export, "BATCH_ROWS", 2)
    records = [row(0), row(1, verdict="keep"), row(2), row(3)]
    del records[3]["api_explanation"]
    labeler = labeler_of(write(tmp_path / "a.jsonl", records), {"verdict": "verdict"})
    found = labeler.label(REQUESTS[:4])
    assert [one.verdict for one in found] == [None, "keep", None, None]
    assert [one.explanation for one in found] == ["E0", "E1", "E2", None]


def test_two_different_labels_for_one_key(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(0), row(0, api_explanation="F"), row(1), row(1)])
    labeler = labeler_of(path)
    assert labeler.label(REQUESTS[1:2])[0].explanation == "E1"
    with pytest.raises(DataError, match=f"one key: {text_sha256(TEXTS[0])}.*'E0' and 'F'"):
        labeler.label(REQUESTS[:1])
    path = write(tmp_path / "b.jsonl", [row(0, row_id="a"), row(0, row_id="a", api_explanation="")])
    with pytest.raises(DataError, match="different labels"):
        labeler_of(path).label([replace(REQUESTS[0], row_id="a")])


def test_nothing_matched_is_told_once_all_rows_are_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(0, detokenized_text_truncated="another", note=1)])
    labeler = labeler_of(path, rows=4)
    assert labeler.label(REQUESTS[:2])[0].reason == "not_in_file"  # one chunk cannot tell
    with pytest.raises(DataError, match="no row of the run.*'another'.*, note; the run has row_id"):
        labeler.label(REQUESTS[2:4])
    path = write(tmp_path / "b.jsonl", [row(0)])
    labeler = labeler_of(path, rows=4)
    labeler.label(REQUESTS[:2])
    assert labeler.label(REQUESTS[2:4])[1].reason == "not_in_file"


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("record", "columns", "message"),
    [
        ({"text": "x", "api_explanation": "E"}, {}, "no column to find a row by.*text, api_expl"),
        ({"row_id": "x", "label": "E"}, {}, "'api_explanation'; found: columns row_id, label; do:"),
        (row(0), {"verdict": "judged"}, "no one column 'judged'.*labels.file.columns"),
        (row(0, audit_score="high"), {}, "the column 'audit_score' .* cannot be read as float"),
        (row(0, detokenized_text_truncated=None), {}, "1 of 1 rows"),
    ],
)
def test_files_without_what_is_needed(
    tmp_path: Path, suffix: str, record: dict[str, Any], columns: dict[str, str], message: str
) -> None:
    path = write(tmp_path / f"a{suffix}", [record])
    with pytest.raises(DataError, match=message):
        labeler_of(path, columns)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labels at .*nowhere.*labels.file.path"):
        labeler_of(tmp_path / "nowhere.parquet")
    with pytest.raises(DataError, match="holds none; found: no files"):
        labeler_of(tmp_path)
    broken = {
        "cut.parquet": b"PAR1 and no more",
        "cut.jsonl": b'{"api_explanation": "E", ',
        "mixed.jsonl": b'{"api_explanation": "E", "row_id": 1}\n{"row_id": "a"}\n',
        "huge.jsonl": b'{"api_explanation": "E", "row_id": 99999999999999999999999}\n',
        "half.jsonl": b'{"api_explanation": "\\ud800", "row_id": "a"}\n',
        "ragged.csv": b"row_id,api_explanation\na,E\nb\n",
        "twice.csv": b"row_id,api_explanation,api_explanation\na,E,F\n",
        "latin.csv": b"row_id,api_explanation\na,caf\xe9\n",
        "empty.csv": b"",
        "empty.jsonl": b"",
        "header.csv": b"row_id,api_explanation\n",
        "labels.txt": b"E",
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name} .*found: ."):
            labeler_of(tmp_path / name)


def test_misspelt_column_map(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(0)])
    with pytest.raises(ConfigError, match="found: api_explanaton; do: .*api_explanation"):
        labeler_of(path, {"api_explanaton": "summary"})


def test_an_export_has_labels_and_texts_and_no_vectors(finished: RunDir, tmp_path: Path) -> None:
    export_labels(finished, tmp_path / "out" / "labels.parquet")
    table = read_table(tmp_path / "out" / "labels.parquet")
    assert table.column_names == [
        *SCHEMA.names, "detokenized_text_truncated", "doc_id", "source_family", "position",
    ]  # fmt: skip
    assert table["detokenized_text_truncated"].to_pylist() == TEXTS
    assert table["position"].to_pylist() == [60 + i for i in range(len(TEXTS))]
    export_labels(finished, tmp_path / "out" / "labels.jsonl")
    lines = (tmp_path / "out" / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == table.to_pylist()


def test_labels_in_another_order_keep_their_texts(tmp_path: Path) -> None:
    order = list(reversed(range(len(TEXTS))))
    run = build_run(tmp_path / "run", lambda: label_table(LABELS, REQUESTS).take(order))
    export_labels(run, tmp_path / "labels.parquet")
    table = read_table(tmp_path / "labels.parquet")
    texts = table["detokenized_text_truncated"].to_pylist()
    assert texts == TEXTS[::-1]
    assert [text_sha256(text) for text in texts] == table["text_sha256"].to_pylist()


def card_of(run: RunDir, folder: Path) -> tuple[dict[str, Any], str]:
    """Front matter and body of the card beside an export."""
    export_labels(run, folder / "labels.parquet")
    _, front, body = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_says_what_the_file_is(finished: RunDir, tmp_path: Path) -> None:
    front, body = card_of(finished, tmp_path)
    assert front["license"] == "other"
    assert front["language"] == ["en"]
    assert "natural-language-autoencoder" in front["tags"]
    assert front["size_categories"] == ["n<1K"]
    assert front["configs"][0]["data_files"][0]["path"] == "labels.parquet"
    lines = body.splitlines()
    for line in (
        "| rows | 12, of which 10 have an explanation |",
        f"| file | `labels.parquet`, SHA-256 `{file_sha256(tmp_path / 'labels.parquet')}` |",
        "| offline | 9 |",
        "| anthropic:writer | 2 |",
        "| google:reader | 2 |",
        "| ab12 | 2 |",
        "| keep | 2 |",
        "| audit_refused | 1 |",
        "| cost, US dollars | 0.0025 | 2 of 12 |",
        "| tokens read | 1,624 | 2 of 12 |",
        "| requests | 10 | 3 of 12 |",
        "| a\\|b | 8 | 7 |",
        "| plain | 4 | 3 |",
        "| corpus sources | demo |",
    ):
        assert line in lines, line
    assert "`hidden_states[13]`" in body
    assert "does not certify truth" in " ".join(body.split())
    for name in read_table(tmp_path / "labels.parquet").column_names:
        assert f"| `{name}` |" in body
    snippet = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    config = parse_config({"name": "again"} | snippet)
    assert config.labels.file == LabelFileConfig(path="labels.parquet")


def test_what_is_unknown_is_called_unknown(tmp_path: Path) -> None:
    bare = [Label(request.row_id, "A label.", labeler_model="offline") for request in REQUESTS]
    run = build_run(tmp_path / "run", lambda: label_table(bare, REQUESTS))
    _, body = card_of(run, tmp_path)
    assert "| cost, US dollars | unknown | 0 of 12 |" in body
    assert "| auditor's verdict | rows |\n|---|---|\n| none | |" in body


def test_the_card_keeps_local_folders_private(tmp_path: Path) -> None:
    settings = {
        "corpus": {"sources": [{"path": str(tmp_path / "notes.jsonl"), "family": "notes"}]},
        "subject": {"model": str(tmp_path / "model")},
    }
    run = build_run(tmp_path / "run", lambda: label_table(LABELS, REQUESTS), **settings)
    _, body = card_of(run, tmp_path)
    assert "| corpus sources | notes.jsonl, notes |" in body
    assert "| subject | `model`" in body
    assert str(tmp_path) not in body


def test_a_foreign_readme_is_not_replaced(finished: RunDir, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# My own words\n")
    with pytest.raises(ConfigError, match="README.md was not written by nlakit"):
        export_labels(finished, tmp_path / "labels.parquet")
    assert card.read_text() == "# My own words\n"
    assert not (tmp_path / "labels.parquet").exists()
    card.unlink()
    export_labels(finished, tmp_path / "labels.parquet")
    first = card.read_text(encoding="utf-8")
    export_labels(finished, tmp_path / "labels.jsonl")
    assert card.read_text(encoding="utf-8") != first


def test_exports_that_are_refused(finished: RunDir, tmp_path: Path) -> None:
    for name in ("labels.csv", "labels"):
        with pytest.raises(ConfigError, match=r"end it in \.parquet or \.jsonl"):
            export_labels(finished, tmp_path / name)
    unfinished = build_run(tmp_path / "unfinished", None)
    with pytest.raises(RunError, match="stage labels is not finished"):
        export_labels(unfinished, tmp_path / "labels.parquet")
    foreign = [replace(LABELS[0], row_id="gone:1"), *LABELS[1:]]
    stale = build_run(tmp_path / "stale", lambda: label_table(foreign, REQUESTS))
    with pytest.raises(RunError, match="1 of 12 rows are not among them.*--redo labels"):
        export_labels(stale, tmp_path / "labels.parquet")
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("name", ["labels-from-file.yaml", "labels-card-datasets.yaml"])
def test_examples_parse_and_map_known_columns(name: str, tmp_path: Path) -> None:
    config = load_config(EXAMPLES / name)
    assert config.labels.labeler == "file" and config.labels.file is not None
    columns = config.labels.file.columns
    records = [{column: f"value of {ours}" for ours, column in columns.items()}]
    labeler = labeler_of(write(tmp_path / "a.jsonl", records), columns)
    text = "value of detokenized_text_truncated"
    assert labeler.label([LabelRequest("x", text, "")])[0].explanation == "value of api_explanation"
