"""The report: every number beside its floor, every text escaped, one file, the same bytes."""

from __future__ import annotations

import copy
import html
import json
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nlakit.config import EvalConfig, ReportConfig, parse_config
from nlakit.evaluate.battery import assemble
from nlakit.evaluate.conditions import gibberish, unrelated
from nlakit.evaluate.scoring import score_all, score_table
from nlakit.publish import report
from nlakit.publish.report import NAMES, interval, num, percent, render, source_parts
from nlakit.rows import TableRows
from nlakit.rundir import FOLDERS, Manifest, Rows, RunDir

EVIL = "<script>alert('x')</script> & <img src=x onerror=alert(1)>"
CONFIG = parse_config({"name": "toy-run"})
VOID = {"meta", "br", "img", "path", "use", "rect", "line", "circle", "link", "input"}


def build_rows(count: int = 24, per_document: int = 2, seed: int = 0) -> TableRows:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 16)) + 3 * np.eye(16)[0]
    return TableRows(
        row_ids=[f"r{i}" for i in range(count)],
        doc_ids=[f"d{i // per_document}" for i in range(count)],
        texts=[f"label {i} {EVIL}" for i in range(count)],
        sources=[f"if (a < {i}) {EVIL} " + "word " * 90 + f"last{i}" for i in range(count)],
        families=[("news", "code", "$fiction_")[i % 3] for i in range(count)],
        tokens=["x"] * count,
        positions=list(range(count)),
        vectors=vectors.astype(np.float32),
    )


class FakeAR:
    """Knows each text's vector up to noise; other texts give one constant direction."""

    def __init__(self, known: dict[str, np.ndarray], noise: float = 0.6) -> None:
        rng = np.random.default_rng(1)
        self.known = {t: v + noise * rng.standard_normal(len(v)) for t, v in known.items()}

    def reconstruct(self, texts: list[str]) -> np.ndarray:
        lost = 3 * np.eye(16)[0] + 0.3 * np.eye(16)[1]
        return np.stack([self.known.get(text, lost) for text in texts])


def build_results(**overrides: Any) -> tuple[dict[str, Any], pa.Table]:
    """results.json and scores.parquet of a good pair, made by the battery's own functions."""
    rows = overrides.pop("rows", None) or build_rows()
    texts = overrides.pop("texts", None) or [f"text {i} {EVIL}" for i in range(len(rows))]
    n = len(rows)
    known = dict(zip([*rows.texts, *texts], [*rows.vectors, *rows.vectors], strict=True))
    ar: Any = FakeAR(known)
    mean = (rows.vectors / np.linalg.norm(rows.vectors, axis=1, keepdims=True)).mean(axis=0)
    inputs = {
        "real": texts,
        "label": rows.texts,
        "empty": [""] * n,
        "gibberish": gibberish(n, 0),
        "unrelated": unrelated(n, 0),
        "other_row": [texts[(i + 2) % n] for i in range(n)],
        "same_document": [texts[i ^ 1] if (i ^ 1) < n else None for i in range(n)],
        "label_other_row": [rows.texts[(i + 2) % n] for i in range(n)],
        "last_token": [f"last{i}" for i in range(n)],
        "last_10_tokens": [f"word word last{i}" for i in range(n)],
    }
    scores = score_all(ar, rows, inputs, mean)
    results = assemble(rows, texts, scores, EvalConfig(bootstrap=50, permutations=50), 0)
    one = {"mean": 0.25, "low": 0.2, "high": 0.3, "rows": n, "documents": n // 2}
    real = results["scores"]["real"]
    results |= {
        "av_loss": {"right": {**one, "mean": 2.1}, "other": {**one, "mean": 2.35}, "gap": one},
        "av_controls": {"zero": {**real, "texts": 1, "example": EVIL}},
        "provenance": {
            "pair": "f" * 64,
            "git_commit": "0123abcd",
            "versions": {"torch": "2.13.0"},
            "base_model": "toy-subject",
            "layer": 12,
            "subject_precision": "bfloat16",
            "baseline": 0.18234,
            "baseline_source": "the evaluated rows",
            "training_baseline": 0.19,
        },
    }
    return results | overrides, score_table(scores, rows)


def build_training() -> tuple[dict[str, list[dict[str, Any]]], dict[str, dict[str, Any]]]:
    measured = {
        "ar": {"fve_real": 0.3, "fve_empty": -0.1, "fve_other": -0.2},
        "av": {"gap_nats": 0.25},
    }
    measured["pair"] = measured["ar"]
    training = {
        half: [
            {"step": step, "loss": 3 / step} | (found if step % 10 == 0 else {})
            for step in range(1, 31)
        ]
        for half, found in measured.items()
    }
    trend = {"slope": -0.01, "r2": 0.5, "descending": True}
    return training, {half: {"steps": 30, "skipped_steps": 0, "trend": trend} for half in training}


def page_of(results: dict[str, Any], scores: pa.Table, rows: int = 6) -> str:
    settings = ReportConfig(rows=rows)
    return render(results, scores, *build_training(), "name: toy-run\n", settings)


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(*build_results())


class Balance(HTMLParser):
    """Open tags that were never closed, ids seen, and addresses a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            if name in found and not (found[name] or "").startswith("#"):
                self.loaded.append(found[name] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(page: str) -> Balance:
    balance = Balance()
    balance.feed(page)
    return balance


def test_texts_are_escaped(page: str) -> None:
    assert not {"script", "img"} & parsed(page).tags
    assert html.escape(EVIL, quote=False).split("'")[0] in page


def test_page_is_one_well_formed_file(page: str) -> None:
    balance = parsed(page)
    assert balance.open == [] and balance.loaded == []
    assert len(balance.ids) == len(set(balance.ids))
    assert "@import" not in page and "url(http" not in page


def test_every_condition_stands_with_its_interval() -> None:
    results, scores = build_results()
    page = page_of(results, scores)
    assert set(results["scores"]) == set(NAMES)
    for condition, found in results["scores"].items():
        assert html.escape(NAMES[condition]).replace("&#x27;", "&#39;") in page
        for measure in ("fve", "centred_cosine", "cosine", "mse"):
            assert f"<b>{num(found[measure]['mean'])}</b>" in page
            assert interval(found[measure]) in page
    for gain in results["gains"].values():
        assert num(gain["mean"], signed=True) in page and interval(gain) in page


def test_verdict_stands_in_words(page: str) -> None:
    results, _ = build_results()
    assert results["verdict"]["word"] == "content-sensitive"
    assert re.search(r'<h2 id="verdict">.*content-sensitive</h2>', page)
    assert page.count("</span> met</td>") == 6 and "not met" not in page


def test_collapsed_pair_is_called_so() -> None:
    results, scores = build_results(texts=["the same text"] * 23 + [""])
    page = page_of(results, scores, rows=24)
    assert re.search(r'<h2 id="verdict">.*collapsed</h2>', page)
    assert "Under half of the texts are unique." in page and "</span> not met</td>" in page
    assert "(empty)" in page


def test_two_renders_are_the_same_bytes(page: str) -> None:
    assert page_of(*build_results()) == page


def test_examples_span_best_and_worst(page: str) -> None:
    results, _ = build_results()
    order = sorted(results["examples"], key=lambda e: -e["centred_cosine"])
    shown = [order[0], order[-1]]
    assert page.count('<article class="example"') == 6
    assert all(f"<small>{example['row_id']}</small>" in page for example in shown)


def test_unbounded_intervals_and_missing_pieces_are_said() -> None:
    results, scores = build_results()
    results = copy.deepcopy(results)
    for found in (results["gains"]["fve"], results["verdict"]["evidence"]["fve"]):
        found |= {"low": -math.inf, "high": math.inf, "documents": 1}
    results["scores"]["real"]["fve"] |= {"mean": math.nan, "low": None, "high": None}
    results["verdict"]["evidence"]["gain_over_same_document"] = None
    results["rows"]["centred_cosine_without_empty"] = None
    del results["scores"]["real"]["retrieval"], results["provenance"]
    del results["av_loss"], results["av_controls"]
    results = json.loads(json.dumps(results))
    page = render(results, scores, {}, {"ar": {}}, "name: toy-run\n", ReportConfig(rows=100))
    assert "no interval (one document)" in page and "not measured" in page
    assert page.count("Not recorded.") == 3
    assert not re.search(r"\b(nan|inf|None)\b", page)
    assert page.count('<article class="example"') == 24


def test_loss_that_is_not_finite_leaves_a_gap() -> None:
    training, summaries = build_training()
    training["ar"][3]["loss"] = math.nan
    results, scores = build_results()
    page = render(results, scores, training, summaries, "name: x\n", ReportConfig())
    assert "Not recorded." not in page


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.1234, "−0.123"), (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "–"), (None, "–")],
)
def test_numbers_for_reading(value: float | None, shown: str) -> None:
    assert num(value) == shown


def test_percent_and_interval() -> None:
    assert percent(0.625) == "62%" and percent(None) == "–"
    assert interval({"low": -0.1, "high": 0.25}, 2) == "[−0.10, 0.25]"
    assert interval(None) == "no interval"


@pytest.mark.parametrize("source", ["", "one", "a b\n", "漢" * 900, "x " * 500 + "end.\n  "])
def test_source_parts_lose_nothing(source: str) -> None:
    parts = source_parts(source)
    assert "".join(parts) == source
    assert len(parts[1]) <= report.SHOWN_SOURCE and len(parts[2].strip()) <= 24


def test_stage_reads_the_run_folder(tmp_path: Any) -> None:
    import pyarrow.parquet as pq

    rundir = RunDir.create(tmp_path / "run", CONFIG)
    results, scores = build_results()
    training, summaries = build_training()
    for name in report.PARENTS:
        folder = rundir.path / FOLDERS[name]
        folder.mkdir()
        if name == "eval":
            (folder / "results.json").write_text(json.dumps(results))
            pq.write_table(scores, folder / "scores.parquet")
        else:
            lines = [json.dumps(record) for record in training[name]]
            (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
            (folder / "training.json").write_text(json.dumps(summaries[name]))
        manifest = Manifest(
            stage=name, config_hash="c", parents={}, files={}, rows=Rows(), seconds=1.0,
            device="cpu", versions={}, git_commit=None, finished="",
        )  # fmt: skip
        (folder / "manifest.json").write_text(manifest.model_dump_json())
    found = report.run(CONFIG, rundir)
    page = (rundir.folder("report") / "report.html").read_text(encoding="utf-8")
    assert found.rows.kept == 24 and set(found.files) >= {"report.html"}
    assert "toy-run" in page and rundir.parent_identities(["eval"])["eval"] in page
