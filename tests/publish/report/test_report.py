"""The report: every number beside its floor, every text escaped, one file, the same bytes."""

from __future__ import annotations

import base64
import copy
import hashlib
import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from markupsafe import Markup

from nlakit.config.load import parse_config
from nlakit.config.sections import EvalConfig, ReportConfig
from nlakit.core.metrics import mean_unit
from nlakit.evaluate.battery import assemble, scores_of
from nlakit.evaluate.bench import Bench, Measured, Part
from nlakit.evaluate.findings import SCHEMA
from nlakit.evaluate.findings import findings as findings_of
from nlakit.evaluate.parts import roundtrip
from nlakit.evaluate.scoring import score_table
from nlakit.files.rows import TableRows
from nlakit.publish.report import figures, report
from nlakit.publish.report.numbers import plain
from nlakit.publish.report.parts import condition_words, measure_words
from nlakit.publish.report.report import NAMES, interval, num, percent, render
from nlakit.publish.report.rows import SHOWN_SOURCE, best_first, safe_json, source_parts
from nlakit.publish.report.sections import level, looked_up, sections, word_scale
from nlakit.run.folder import FOLDERS, Manifest, Rows, RunDir

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
        self.tokenizer = SpaceTokenizer()
        rng = np.random.default_rng(1)
        self.known = {t: v + noise * rng.standard_normal(len(v)) for t, v in known.items()}

    def reconstruct(self, texts: list[str]) -> np.ndarray:
        lost = 3 * np.eye(16)[0] + 0.3 * np.eye(16)[1]
        return np.stack([self.known.get(text, lost) for text in texts])


class SpaceTokenizer:
    """A token a word."""

    def __call__(self, text: str, add_special_tokens: bool, **_: Any) -> dict[str, list[str]]:
        return {"input_ids": text.split()}

    def decode(self, ids: list[str]) -> str:
        return " ".join(ids)


def build_results(**overrides: Any) -> tuple[dict[str, Any], pa.Table]:
    """results.json and scores.parquet of a good pair, made by the battery's own functions."""
    rows = overrides.pop("rows", None) or build_rows()
    texts = overrides.pop("texts", None) or [f"text {i} {EVIL}" for i in range(len(rows))]
    n = len(rows)
    ar: Any = FakeAR(dict(zip([*rows.texts, *texts], [*rows.vectors, *rows.vectors], strict=True)))
    settings = EvalConfig(permutations=50)
    bench = Bench(rows, texts, mean_unit(rows.vectors), settings, 0, Path(), ar=ar)
    trip = roundtrip.measure(bench)
    results = assemble(bench, [trip])
    scores = score_table(scores_of(trip, bench.base), rows)
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
    return results | overrides, scores


def build_parts(rows: TableRows) -> list[Part]:
    """Parts with every kind of finding, and one that the report does not know."""
    rng = np.random.default_rng(2)
    n = len(rows)

    def drawn(mean: float) -> Any:
        return mean + 0.1 * rng.standard_normal(n)

    trip = Part("roundtrip", detail={"card": {"attempted": n}})
    reading = Part("ar_reading", notes=["three texts are too short"])
    for name in ("fve", "centred_cosine"):
        trip.measured += [
            Measured(name, "real", drawn(0.4), "empty"),
            Measured(name, "empty", drawn(0.0)),
        ]
        for place, condition in enumerate(
            ("empty", "prefix_10", "prefix_20", "prefix_40", "prefix_80", "word_shuffle", "real")
        ):
            floor = None if condition == "empty" else "empty"
            reading.measured.append(Measured(name, condition, drawn(0.1 * place), floor))
    reading.measured.append(Measured("moved", "prefix_10", drawn(0.3)))
    reading.detail["retained"] = {
        "word_shuffle": {
            "rows": n, "changed": 1.0, "moved_share": 0.4, "centred_cosine": None,
            "fve": {"ratio": 0.8125, "low": 0.7, "high": 0.9},
        }
    }  # fmt: skip
    words = Part("attribution", [Measured("share_top5", "real", drawn(0.5), "other_vector")])
    words.measured.append(Measured("share_top5", "other_vector", drawn(0.4)))
    words.detail["words"] = {
        row: [[EVIL, 0.5], ["plain", -0.25], ["nothing", None]] for row in rows.row_ids[:3]
    }
    sweep = Part("av_sweep")
    for scale in ("0.25", "0.5", "1", "2"):
        floor = f"scale_{scale}_other_row"
        sweep.measured.append(Measured("fve", f"scale_{scale}", drawn(0.3), floor))
        sweep.measured.append(Measured("fve", floor, drawn(0.05)))
    found = Part("retrieval")
    found.measured = [
        Measured("top1", "tfidf:explanation", drawn(0.5), "tfidf:shuffled", 0.0004),
        Measured("top1", "tfidf:shuffled", drawn(0.1)),
    ]
    truth = Part("truth", notes=["nothing"])
    truth.detail["claims"] = [[{"kind": "name", "text": EVIL, "found": False}]] + [[]] * (n - 1)
    unknown = Part(f"odd {EVIL}", [Measured("strange", f"new {EVIL}", np.full(n, np.nan))])
    unknown.detail = {EVIL: [1.0, {"a": None}], "long": "x" * 20_000}
    return [trip, reading, words, sweep, found, truth, unknown]


def build_full(rows: TableRows | None = None) -> tuple[dict[str, Any], pa.Table, list[Any]]:
    """results.json, scores.parquet and the records of findings.parquet of a full evaluation."""
    rows = rows or build_rows()
    results, scores = build_results(rows=rows)
    parts = build_parts(rows)
    results["parts"] = {part.name: {"notes": part.notes, "detail": part.detail} for part in parts}
    results["warnings"] = [
        {"code": "reads_opening", "message": f"only {EVIL}", "evidence": {"gain": 0.01234}}
    ]
    groups = roundtrip.groups_of(rows)
    return results, scores, findings_of(parts, rows.doc_ids, groups)


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


def page_of(results: dict[str, Any], scores: pa.Table, found: Any = (), rows: int = 6) -> str:
    settings = ReportConfig(rows=rows)
    return render(results, scores, *build_training(), "name: toy-run\n", settings, found)


@pytest.fixture(scope="module")
def page() -> str:
    return page_of(*build_results())


@pytest.fixture(scope="module")
def full() -> str:
    return page_of(*build_full())


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not drawn, which is most of a page's time."""
    monkeypatch.setattr(figures, "_svg", lambda figure, salt: Markup("<svg></svg>"))


class Balance(HTMLParser):
    """Open tags that were never closed, ids seen, and addresses a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
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


@pytest.mark.parametrize("kind", ["page", "full"])
def test_texts_are_escaped(kind: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(kind)
    tags = parsed(page).tags
    assert tags.count("script") == 2 and "img" not in tags  # the page's own: its rows, its reader
    assert html.escape(EVIL, quote=False).split("'")[0] in page
    assert "<img" not in page and page.count("</script>") == 2


@pytest.mark.parametrize("kind", ["page", "full"])
def test_page_is_one_well_formed_file(kind: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(kind)
    balance = parsed(page)
    assert balance.open == [] and balance.loaded == []
    assert len(balance.ids) == len(set(balance.ids))
    assert "@import" not in page and "url(http" not in page


def test_only_the_page_s_own_script_may_run(page: str) -> None:
    script = re.search(r"<script>(.*)</script>", page, re.DOTALL)
    policy = re.search(r"script-src 'sha256-([^']+)'", html.unescape(page))
    assert script and policy
    assert base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode() == policy[1]
    assert "innerHTML" not in script[1] and "insertAdjacent" not in script[1]


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
def test_collapsed_pair_is_called_so() -> None:
    results, scores = build_results(texts=["the same text"] * 23 + [""])
    page = page_of(results, scores, rows=24)
    assert re.search(r'<h2 id="verdict">.*collapsed</h2>', page)
    assert "Under half of the texts are unique." in page and "</span> not met</td>" in page
    assert "(empty)" in page


def test_two_renders_are_the_same_bytes(full: str) -> None:
    assert page_of(*build_full()) == full


@pytest.mark.usefixtures("undrawn")
def test_examples_span_best_and_worst(page: str) -> None:
    results, _ = build_results()
    order = sorted(results["examples"], key=lambda e: -e["centred_cosine"])
    shown = [order[0], order[-1]]
    assert page.count('<article class="example"') == 6
    assert all(f"<small>{example['row_id']}</small>" in page for example in shown)


@pytest.mark.usefixtures("undrawn")
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


def rows_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="rows-data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


@pytest.mark.usefixtures("undrawn")
def test_warnings_stand_under_the_verdict(page: str, full: str) -> None:
    assert "none was looked for" in page
    assert "reads_opening" in full and "gain 0.012" in full
    assert full.index('id="verdict"') < full.index("reads_opening") < full.index('class="cards"')
    results, scores = build_results(warnings=[])
    assert "None was raised." in page_of(results, scores)


def test_every_finding_stands_with_floor_and_gain(full: str) -> None:
    *_, found = build_full()
    for one in found:
        above = one["part"] == "roundtrip" and one["group"] == "all"
        if one["mean"] is None or above or one["condition"].endswith("_other_row"):
            continue
        assert f"<b>{num(one['mean'])}</b><small>{interval(one)}</small>" in full
        if one["floor"]:
            gain = f"<b>{num(one['gain'], 3, True)}</b><small>{interval(one, of='gain_')}</small>"
            assert gain in full
    assert "&lt; 0.001" in full  # the p of retrieval
    assert "Three texts are too short." in full
    assert "<b>81%</b><small>[70%, 90%]</small>" in full  # retained
    assert "first 10 tokens" in full and "tf-idf: AV text" in full


def test_a_part_nobody_knows_is_shown_by_its_own_names(full: str) -> None:
    evil = html.escape(EVIL).replace("&#x27;", "&#39;")
    assert f"odd {evil}</h2>" in full and f"<b>new {evil}</b>" in full and "strange" in full
    assert "all of them are in results.json" in full  # the detail is cut, and says so


def test_words_are_coloured_by_what_they_carry(full: str) -> None:
    evil = html.escape(EVIL).replace("&#x27;", "&#39;")
    assert f'<span class="w5" title="Δ FVE +0.500">{evil}</span>' in full
    assert '<span class="wn2" title="Δ FVE −0.250">plain</span>' in full
    assert '<span title="Δ FVE –">nothing</span>' in full
    assert f"Strongest: {evil} +0.500" in full


def test_figures_by_length_norm_and_group(full: str) -> None:
    for title in ("Score by length read", "Score by norm of the vector", "By family"):
        assert f"<h3>{title}</h3>" in full
    assert ">×0.25<" in full and ">80<" in full


@pytest.mark.usefixtures("undrawn")
def test_parts_without_findings_or_keys_are_left_out_or_said() -> None:
    assert sections([], {}, 5) == []
    (one,) = sections([], {"claims": {"notes": ["no judge"]}}, 5)
    assert (one.name, one.notes, one.blocks) == ("claims", ["no judge"], [])
    record = dict.fromkeys(SCHEMA.names) | {
        "part": "x", "measure": "m", "condition": "c", "group": "all", "rows": 0, "documents": 0,
        "floor": "gone",
    }  # fmt: skip
    (two,) = sections([record], {}, 5)
    assert two.blocks[0].lines[0].floor is None and two.blocks[0].lines[0].floor_title == "gone"
    results, scores = build_results(warnings=[{"code": "a", "message": "b"}], parts=None, card={})
    page = page_of(results, scores, [record])
    assert '<a href="#part-1">x</a>' in page


@pytest.mark.usefixtures("undrawn")
def test_rows_without_labels_and_parts_without_their_keys_are_shown() -> None:
    rows = build_rows()
    rows.texts[:] = [""] * len(rows)
    parts = {"av_reading": {"notes": ["no AV"]}, "roundtrip": {"notes": ["x"]}, "odd": {}}
    results, scores = build_results(rows=rows, parts=parts)
    assert "label" not in results["scores"]
    del results["av_controls"], results["card"]
    page = page_of(results, scores)
    assert "No AV." in page and page.count("(none)") == 6
    assert not re.search(r"\b(nan|None)\b", page)


def test_judged_claims_say_verdict_and_loss() -> None:
    said = {"claim": "A ship sails", "verdict": "true", "delta_fve": 0.0125}
    parts = {
        "claims": {"detail": {"claims": [[], [said, said | {"verdict": None, "delta_fve": None}]]}}
    }
    assert looked_up(parts, ["r0", "r1", "r2"]) == {
        "r1": [
            ["A ship sails", "judged true, ΔFVE +0.013"],
            ["A ship sails", "judged by nobody, ΔFVE –"],
        ]
    }


def test_words_from_records_of_older_evaluations() -> None:
    detail = {"words": [{"row_id": "r1", "words": [["a", 1.0]]}]}
    (one,) = sections([], {"attribution": {"detail": detail}}, 5)
    assert one.words[0]["row_id"] == "r1" and one.words[0]["words"] == [("a", 5, 1.0)]


def test_colour_has_five_levels_either_way() -> None:
    assert [level(d, 1.0) for d in (0.19, 0.21, 1, 9, -0.5, math.nan, None)] == [
        0,
        1,
        5,
        5,
        -2,
        0,
        0,
    ]
    assert level(1.0, 0.0) == 0
    assert word_scale({}) == 0.0 and word_scale({"r": [("a", -2.0), ("b", None)]}) == 2.0


def test_every_row_is_there_with_its_own_floor(full: str) -> None:
    results, scores, _ = build_full()
    data = rows_of(full)
    rows = [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]
    order = best_first(results["examples"])
    assert [row["id"] for row in rows] == [one["row_id"] for one in order]
    assert [row["explanation"] for row in rows] == [one["explanation"] for one in order]
    assert all(
        row["source"] + row["last"] == o["source"] for row, o in zip(rows, order, strict=True)
    )
    floor = results["gains"]["centred_cosine"]["best_floor"]
    at = {
        row["row_id"]: row["centred_cosine"]
        for row in scores.to_pylist()
        if row["condition"] == floor
    }
    assert all(abs(row["floor"] - at[row["id"]]) < 1e-4 for row in rows)
    claims = {row["id"]: row["claims"] for row in rows if row["claims"]}
    assert claims == {"r0": [[f"name: {EVIL}", "not in the source"]]}
    assert sum(row["words"] is not None for row in rows) == 3


@pytest.mark.usefixtures("undrawn")
def test_long_sources_say_how_much_is_cut() -> None:
    rows = build_rows()
    rows.sources[0] = "a" * 5000 + " word end"
    data = rows_of(page_of(*build_results(rows=rows)))
    (row,) = [r for r in data["rows"] if r[1] == "r0"]
    found = dict(zip(data["columns"], row, strict=True))
    assert found["cut"] + len(found["source"]) + len(found["last"]) == len(rows.sources[0])
    assert found["last"] == "end" and len(found["source"]) == 1200


@pytest.mark.parametrize(
    "evil", ["</script><b>", "<!--<script>", "\u2028\u2029", "]]>&amp;", "\x00"]
)
def test_json_cannot_end_its_script(evil: str) -> None:
    text = safe_json([evil])
    assert not set(text) & set("<>&\u2028\u2029\x00") and json.loads(text) == [evil]


@pytest.mark.usefixtures("undrawn")
def test_two_thousand_rows_stay_under_six_megabytes() -> None:
    results, scores = build_results()
    one = results["examples"][0]
    results["examples"] = [
        one | {"row_id": f"r{i}", "source": f"{i} " + "<word> & " * 33, "label": "label " * 50,
               "explanation": "a text of words " * 25}
        for i in range(2000)
    ]  # fmt: skip
    page = page_of(results, scores, rows=20)
    assert len(rows_of(page)["rows"]) == 2000
    assert len(page.encode()) < 6e6


def test_names_of_conditions_and_measures() -> None:
    assert condition_words("prefix_40")[0] == "first 40 tokens"
    assert condition_words("scale_0.25")[0] == "norm × 0.25"
    assert condition_words("after_8_words")[0] == "without the first 8 words"
    assert condition_words("embedding:label")[0] == "embedding: label"
    assert condition_words("logit_lens_other_row")[0] == "logit lens, another row's"
    assert condition_words("other_row")[0] == "another row's text"
    assert condition_words("real_vs_patchscopes")[0] == "AV text over untrained subject"
    assert condition_words("mix_0.25")[0] == "mix, 25% of the second"
    assert condition_words("never_seen") == ("never_seen", "")
    assert measure_words("within_family_top1")[0] == "Top-1, within the family"
    assert measure_words("unique_80")[0] == "Unique in 80 characters"
    assert measure_words("never_seen") == ("never_seen", "")


def test_plain_values() -> None:
    assert (
        plain({"a": 0.12345, "b": [1, None, True], "c": {"d": -2}})
        == "a 0.123, b 1, –, yes, c d −2"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (-0.1234, "−0.123"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, "–"),
        (None, "–"),
        (-0.0001, "0.000"),
    ],
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
    assert len(parts[1]) <= SHOWN_SOURCE and len(parts[2].strip()) <= 24


@pytest.mark.usefixtures("undrawn")
def test_stage_reads_the_run_folder(tmp_path: Any) -> None:
    import pyarrow.parquet as pq

    rundir = RunDir.create(tmp_path / "run", CONFIG)
    results, scores, findings = build_full()
    training, summaries = build_training()
    for name in report.PARENTS:
        folder = rundir.path / FOLDERS[name]
        folder.mkdir()
        if name == "eval":
            (folder / "results.json").write_text(json.dumps(results))
            pq.write_table(scores, folder / "scores.parquet")
            table = pa.Table.from_pylist(findings, schema=SCHEMA)
            pq.write_table(table, folder / "findings.parquet")
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
    assert "first 10 tokens" in page
