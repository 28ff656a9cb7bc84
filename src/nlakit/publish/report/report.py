"""The report: one HTML file that says what a pair is worth, each number beside its floor."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nlakit.config.load import dump_config
from nlakit.config.sections import ReportConfig, RunConfig
from nlakit.evaluate.verdict import MAX_EMPTY, MAX_OPENING, MIN_UNIQUE, SENSITIVE_GAIN
from nlakit.files.parquet import read_table
from nlakit.files.text import read_jsonl, read_record
from nlakit.publish.report import figures
from nlakit.publish.report.numbers import interval, num, p_value, percent, plain, sentence
from nlakit.publish.report.parts import CONDITIONS, MEASURES, NAMES
from nlakit.publish.report.rl import RLSection, rl_section
from nlakit.publish.report.rows import rows_json, spread_examples
from nlakit.publish.report.sections import looked_up, sections, word_scale, words_of
from nlakit.run.folder import Rows, RunDir, atomic_write
from nlakit.run.stage import stage

PARENTS = ("eval", "ar", "av", "pair")
HALVES = {
    "ar": "AR, on labels",
    "av": "AV, on labels",
    "pair": "AR, adapted to the AV's texts",
}


@stage("report", parents=PARENTS, sections=("report",))
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write report.html from the finished stages; no model is loaded."""
    evaluated = rundir.need("eval")
    results = read_record(evaluated / "results.json")
    results.setdefault("provenance", {})["manifests"] = rundir.parent_identities(PARENTS)
    scores = read_table(evaluated / "scores.parquet")
    found = evaluated / "findings.parquet"
    findings = read_table(found).to_pylist() if found.exists() else []
    training, summaries = {}, {}
    for half in HALVES:
        training[half] = [one for _, one in read_jsonl(rundir.need(half) / "metrics.jsonl")]
        summaries[half] = read_record(rundir.need(half) / "training.json")
    learnt, place = None, rundir.need("pair") / "rl"
    if config.rl and (place / "training.json").exists():
        steps = [one for _, one in read_jsonl(place / "metrics.jsonl")]
        learnt = rl_section(steps, read_record(place / "training.json"), config.rl.keep)
    settings = dump_config(config)
    page = render(results, scores, training, summaries, settings, config.report, findings, learnt)
    atomic_write(folder / "report.html", page)
    count = results["rows"]["attempted"]
    return Rows(entered=count, kept=count)


def render(
    results: Mapping[str, Any],
    scores: pa.Table,
    training: Mapping[str, Sequence[Mapping[str, Any]]],
    summaries: Mapping[str, Mapping[str, Any]],
    config_yaml: str,
    settings: ReportConfig,
    findings: Sequence[Mapping[str, Any]] = (),
    rl: RLSection | None = None,
) -> str:
    """The whole page. `training` and `summaries` are metrics.jsonl and training.json by stage;
    `findings` the records of findings.parquet, which older evaluations lack; `rl` is given where
    the pair went through joint RL.

    The same arguments give the same bytes. Numbers that are missing or not finite are shown as
    such; every text is escaped.
    """
    floors = {name: results["gains"][name]["best_floor"] for name in ("fve", "centred_cosine")}
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "num": num, "percent": percent, "interval": interval, "p": p_value, "plain": plain,
        "sentence": sentence,
    }  # fmt: skip
    script = (here / "report.js").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        results=results,
        name=(yaml.safe_load(config_yaml) or {}).get("name", "run"),
        checks=checks(results["verdict"]["evidence"]),
        floors=floors,
        names=NAMES,
        measures=MEASURES,
        groups=condition_groups(results["scores"]),
        sections=sections(findings, results.get("parts") or {}, settings.rows),
        pictures=score_pictures(results, scores, floors["centred_cosine"]),
        curves=training_pictures(training),
        halves=HALVES,
        summaries=summaries,
        rl=rl,
        examples=spread_examples(results["examples"], settings.rows),
        families=sorted({example["source_family"] for example in results["examples"]}),
        every_row=every_row(results, scores, floors["centred_cosine"]),
        config_yaml=config_yaml,
        style=Markup((here / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The only script that a browser may run here, whatever the texts hold.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def every_row(results: Mapping[str, Any], scores: pa.Table, floor: str) -> Markup:
    """All rows for the page's script, each with the best floor's score of the same row."""
    parts = results.get("parts") or {}
    words = words_of((parts.get("attribution") or {}).get("detail") or {})
    at_floor = by_condition(scores).get(floor, {})
    return rows_json(
        results["examples"],
        {row: value for row, (value, _) in at_floor.items()},
        looked_up(parts, [example["row_id"] for example in results["examples"]]),
        words,
        word_scale(words),
    )


def checks(evidence: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """What `content-sensitive` asks for, what was found, what is needed, and whether it is met."""
    gain, fve = evidence["content_gain"], evidence["fve"]
    topic = evidence.get("gain_over_same_document")
    unique, opening = evidence["unique_share"], evidence["top_opening_share"]
    empty = evidence["empty_share"]

    def spanned(found: Mapping[str, Any] | None) -> str:
        return f"{num(found['mean'])} {interval(found)}" if found else "–"

    def above(found: Mapping[str, Any] | None, bound: float, strict: bool = True) -> str:
        if not found:
            return "not measured"
        low = found["low"]  # null where the interval has no bounds
        return met(low is not None and (low > bound if strict else low >= bound))

    def met(fulfilled: bool) -> str:
        return "met" if fulfilled else "not met"

    floor = NAMES.get(evidence["best_floor"], evidence["best_floor"])
    return [
        ("Different texts", percent(unique), f"at least {percent(MIN_UNIQUE)}",
         met(unique >= MIN_UNIQUE)),
        ("Rows with the commonest opening", percent(opening), f"at most {percent(MAX_OPENING)}",
         met(opening <= MAX_OPENING)),
        ("Empty texts", percent(empty), f"at most {percent(MAX_EMPTY)}", met(empty <= MAX_EMPTY)),
        (f"Content gain: centred cosine over the best floor ({floor})", spanned(gain),
         f"lower bound {num(SENSITIVE_GAIN, 2)} or more", above(gain, SENSITIVE_GAIN, False)),
        ("FVE", spanned(fve), "lower bound above 0", above(fve, 0)),
        ("Gain over another position of the same document", spanned(topic), "lower bound above 0",
         above(topic, 0)),
    ]  # fmt: skip


def condition_groups(scores: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Groups of table rows; a condition that this module does not know comes last."""
    unknown = {key: (key, "") for key in scores if key not in NAMES}
    groups = []
    for title, members in {**CONDITIONS, "Other": unknown}.items():
        rows = [
            {"key": key, "name": name, "meaning": meaning, **scores[key]}
            for key, (name, meaning) in members.items()
            if key in scores
        ]
        if rows:
            groups.append((title, rows))
    return groups


def score_pictures(
    results: Mapping[str, Any], scores: pa.Table, floor: str
) -> list[tuple[Any, str, str]]:
    """SVG (None if there are no numbers), title and description of the round trip's figures."""
    found = by_condition(scores)
    real, label = found.get("real", {}), found.get("label", {})
    shared = [row for row in real if row in label]
    means = {name: found["centred_cosine"]["mean"] for name, found in results["scores"].items()}
    floor_name = NAMES.get(floor, floor)
    pictures = [
        (
            figures.histogram(
                [value for value, _ in real.values()],
                [value for value, _ in found.get(floor, {}).values()],
                floor_name,
            ),
            "Centred cosine by row",
            f"Rows by centred cosine. The pair averages {num(means.get('real'))}, the best floor"
            f" ({floor_name}) {num(means.get(floor))}; the less overlap, the more is read from"
            " the text.",
        ),
        (
            figures.scatter(
                [label[row][0] for row in shared],
                [real[row][0] for row in shared],
                [real[row][1] for row in shared],
            ),
            "Label against AV text",
            f"A point a row. The labels average {num(means.get('label'))}, the AV's texts"
            f" {num(means.get('real'))}. On the dashed line both do equally well; below it the"
            " AV says less than the label.",
        ),
    ]
    return pictures + [bar_picture(results["scores"], key) for key in ("centred_cosine", "fve")]


def bar_picture(scores: Mapping[str, Any], measure: str) -> tuple[Any, str, str]:
    colours = dict(zip(CONDITIONS, ("#3f86bd", "#3c9a6c", "#c9752d", "#8b939b"), strict=True))
    entries = [
        (row["name"], row[measure], colours.get(title, "#8b939b"))
        for title, rows in condition_groups(scores)
        for row in rows
    ]
    title = MEASURES[measure]
    text = (
        "Mean and 95% interval over documents. Blue: the pair; green: ceiling; orange: floors;"
        " grey: copy controls. The table above has the numbers."
    )
    return figures.bars(title, entries), f"{title} by condition", text


def by_condition(scores: pa.Table) -> dict[str, dict[str, tuple[float, str]]]:
    """Condition → row id → centred cosine and family."""
    columns = [
        scores[name].to_pylist()
        for name in ("condition", "row_id", "centred_cosine", "source_family")
    ]
    found: dict[str, dict[str, tuple[float, str]]] = {}
    for condition, row, value, family in zip(*columns, strict=True):
        found.setdefault(condition, {})[row] = (float("nan") if value is None else value, family)
    return found


def training_pictures(
    training: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[tuple[Any, str, str]]:
    """Loss and held-out curves of each half."""
    fve = {"fve_real": "own text", "fve_empty": "empty", "fve_other": "another row's"}
    gap = {"gap_nats": "gap on labels"}
    pictures = []
    for half, title in HALVES.items():
        shown = gap if half == "av" else fve
        measure = "held out: gap, nats a token" if half == "av" else "held out: FVE"
        records = training.get(half, [])
        ends = [
            f"{name} {num(values[-1])}"
            for key, name in {"loss": "training loss", **shown}.items()
            if (values := figures.series(records, key)[1])
        ]
        text = "At the end: " + ", ".join(ends) + "."
        pictures.append((figures.training(half, records, shown, measure), title, text))
    return pictures
