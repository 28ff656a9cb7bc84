"""What a probe reads in activations and in the words for them, on pairs that keep or lose it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from nlakit.cli.use import probe as cli_probe
from nlakit.core import probing
from nlakit.errors import DataError
from nlakit.evaluate.bench import Part
from nlakit.evaluate.findings import findings
from nlakit.evaluate.parts import probe
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, build_contract

ROWS, D = 60, 8
TEXTS = [f"report {i} of a {'calm' if i % 2 else 'angry'} person" for i in range(ROWS)]
LABELS = ["calm" if i % 2 else "angry" for i in range(ROWS)]
DOCUMENTS = [f"d{i // 2}" for i in range(ROWS)]


class FakeNLA:
    """Activations say the mood in their first number; the AV says it if `keeps`, else the form."""

    def __init__(self, keeps: bool, av: bool = True, ar: bool = True) -> None:
        self.keeps = keeps
        self.av = SimpleNamespace(explain=self.explain) if av else None
        self.ar = object() if ar else None
        extraction = SimpleNamespace(base_model="fake")
        self.contract = SimpleNamespace(extraction=extraction, layer=1)

    def activations(self, text: str, positions: str) -> tuple[list[int], list[int], np.ndarray]:
        rng = np.random.default_rng([len(text), int(text.split()[1])])
        vector = rng.standard_normal(D).astype(np.float32)
        vector[0] += 4 if "calm" in text else -4
        return [0], [0], vector[None]

    def explain(self, vectors: np.ndarray, batch: int, on_batch: Any) -> list[str]:
        on_batch(len(vectors))
        if not self.keeps:
            return [f"a written report, {'late' if v[1] > 0 else 'early'}" for v in vectors]
        return ["a calm voice" if v[0] > 0 else "an angry voice" for v in vectors]

    def reconstruct(self, texts: list[str]) -> np.ndarray:
        return np.array([[len(text), "calm" in text] for text in texts], dtype=np.float32)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SHUFFLES", 1)
    monkeypatch.setattr(probing, "PENALTIES", (1.0,))
    monkeypatch.setattr(probe, "embedder", lambda name: None)


def probed(nla: Any, **options: Any) -> tuple[Part, dict[tuple[str, str], dict[str, Any]]]:
    part = probe.run(nla, TEXTS, LABELS, DOCUMENTS, **options)
    found = findings([part], DOCUMENTS)
    return part, {(one["measure"], one["condition"]): one for one in found}


def test_words_that_say_it_keep_all_a_probe_reads() -> None:
    part, found = probed(FakeNLA(keeps=True))
    for condition in ("activation", "reconstruction", "explanation_words", "source_words"):
        assert found["auc", condition]["mean"] > 0.98
        assert found["auc", condition]["gain_low"] > 0.1
        assert found["balanced_accuracy", condition]["mean"] > 0.95
    assert found["auc_retained", "explanation_words"]["mean"] == pytest.approx(1, abs=0.05)
    assert found["auc", "majority"]["mean"] == 0.5
    assert found["balanced_accuracy", "majority"]["low"] == pytest.approx(0.5)
    assert abs(found["auc", "shuffled_labels"]["mean"] - 0.5) < 0.25
    assert part.texts["explanation"][1] == "a calm voice"
    assert part.detail["classes"] == {"angry": 30, "calm": 30}
    assert any("--embedding" in note for note in part.notes)


def test_planted_words_that_leave_the_label_out() -> None:
    _, found = probed(FakeNLA(keeps=False))
    assert found["auc", "activation"]["mean"] > 0.98
    assert found["auc_minus_activation", "explanation_words"]["high"] < -0.2
    assert found["auc_retained", "explanation_words"]["high"] < 0.7
    assert ("auc_retained", "shuffled_labels") not in found


def test_half_a_pair_is_probed_as_far_as_it_goes() -> None:
    part, found = probed(FakeNLA(keeps=True, ar=False))
    assert ("auc", "reconstruction") not in found
    assert ("auc", "explanation_words") in found
    part, found = probed(FakeNLA(keeps=True, av=False))
    assert {condition for _, condition in found} == {
        "activation", "source_words", "shuffled_labels", "majority"
    }  # fmt: skip
    assert any("no AV" in note for note in part.notes)


def test_labels_that_mean_nothing_leave_nothing_to_retain() -> None:
    labels = ["a" if (i // 2) % 2 else "b" for i in range(ROWS)]  # the mood alternates inside
    part = probe.run(FakeNLA(keeps=True), TEXTS, labels, DOCUMENTS)  # type: ignore[arg-type]
    assert not [one for one in part.measured if one.measure == "auc_retained"]
    assert any("nothing to retain" in note for note in part.notes)


@pytest.mark.parametrize(
    ("texts", "labels", "documents", "match"),
    [
        (["a", " "], ["x", "y"], ["1", "2"], "empty texts.*1 of 2 rows, first 1"),
        (["a"] * 20, ["x"] * 20, list(map(str, range(20))), "needs two classes.*x"),
        ([], [], [], "needs two classes.*no rows"),
        (["a"] * 20, ["x"] * 11 + ["y"] * 9, list(map(str, range(20))), "fewer than 10 rows.*y: 9"),
        (["a"] * 20, ["x", "y"] * 10, ["1", "2", "3", "4"] * 5, "fewer than 5 documents.*x: 2"),
    ],
)
def test_what_no_probe_can_be_fitted_to(
    texts: list[str], labels: list[str], documents: list[str], match: str
) -> None:
    with pytest.raises(DataError, match=match):
        probe.check(texts, labels, documents)


def test_a_real_pair_of_a_toy_subject(toy_subject: Callable[..., Subject]) -> None:
    subject = toy_subject()
    mean = np.zeros(subject.d_model)
    av = Verbalizer(subject, build_contract(subject, max_new_tokens=4), mean, SMALL_LORA, 0)
    ar = Reconstructor(subject, build_contract(subject, role="ar"), SMALL_LORA, 0)
    texts, labels = TEXTS[:20], LABELS[:20]
    documents = list(map(str, range(20)))
    part = probe.run(NLA(subject, av, ar, mean), texts, labels, documents)
    values = part.of("auc", "reconstruction")
    assert values.shape == (20,)
    assert np.isfinite(values).all()


def build_app() -> typer.Typer:
    app = typer.Typer()
    app.command("other")(lambda: None)
    cli_probe.register(app)
    return app


def test_the_command_shows_and_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NLA, "load", lambda *args, **options: FakeNLA(keeps=True))
    table = tmp_path / "moods.jsonl"
    rows = zip(TEXTS, LABELS, DOCUMENTS, strict=True)
    table.write_text(
        "".join(json.dumps(dict(zip(("said", "mood", "doc_id"), row, strict=True))) + "\n"
                for row in rows), encoding="utf-8",
    )  # fmt: skip
    saved = tmp_path / "found.json"
    done = CliRunner().invoke(
        build_app(),
        ["probe", str(table), "--text", "said", "--label", "mood", "--save", str(saved)],
        env={"COLUMNS": "80"},
        catch_exceptions=False,
    )
    assert done.exit_code == 0
    assert "explanation words" in done.output
    assert "60 rows (angry 30, calm 30) of 30 documents" in done.output
    record = json.loads(saved.read_text(encoding="utf-8"))
    assert {"provenance", "findings", "part"} == set(record)
    again = findings([Part.parse(json.dumps(record["part"]))], DOCUMENTS)
    assert json.loads(json.dumps(again)) == record["findings"]


def test_tables_are_read_in_three_formats(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {"text": ["one, two", "three\nfour"], "label": [1, 0]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text('text,label\n"one, two",1\n"three\nfour",0\n')
    (tmp_path / "a.jsonl").write_text(
        '{"text": "one, two", "label": 1}\n{"text": "three\\nfour", "label": 0}\n'
    )
    wanted = (["one, two", "three\nfour"], ["1", "0"], ["row 0", "row 1"])
    for ending in ("parquet", "csv", "jsonl"):
        found = cli_probe.read_labelled(tmp_path / f"a.{ending}", "text", "label", None)
        assert found == wanted


@pytest.mark.parametrize(
    ("content", "doc_id", "match"),
    [
        ("text,kind\na,b\n", None, "no column 'label'.*text, kind.*--label"),
        ("text,label\na,b\n", "essay", "no column 'essay'"),
        ("text,label\na,\nc,d\n", None, "without a value in 'label'.*1 of 2 rows, first 0"),
        ("text,label,doc_id\na,b,x\nc,d,\n", None, "without a value in 'doc_id'"),
    ],
)
def test_tables_that_cannot_be_used(
    tmp_path: Path, content: str, doc_id: str | None, match: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=match):
        cli_probe.read_labelled(path, "text", "label", doc_id)
    for other in ("none.csv", "bad.xls"):
        with pytest.raises(DataError, match="no table at"):
            cli_probe.read_labelled(tmp_path / other, "text", "label", None)


def test_the_command_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    heavy = "{'torch', 'sklearn', 'transformers', 'matplotlib'}"
    code = f"import sys, nlakit.cli.use.probe; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
