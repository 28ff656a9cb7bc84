"""Every table that a command prints is one line a row in a terminal of 80 columns."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from nlakit.cli import audit, evaluate, hub, main, presets
from nlakit.cli import compare as cli_compare
from nlakit.cli.use import probe
from nlakit.publish.report.parts import NAMES
from nlakit.studies import layers, trial
from nlakit.studies.planning import plan

WIDE = {"mean": -0.066, "low": -0.265, "high": 0.1}  # both sides, and a sign
GAIN = {"gain": 0.446, "gain_low": 0.4, "gain_high": 0.5}


def lines_of(table: Table) -> list[str]:
    """The header and each row as printed, without title and caption."""
    table.title = table.caption = None
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(table)
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, printed)) <= 80
    return [line for line in printed if line.strip(" ─╶╴━")]


def check(table: Table) -> list[str]:
    assert table.row_count
    lines = lines_of(table)
    assert len(lines) == table.row_count + 1, "\n".join(lines)
    return lines


class Screen:
    """A console that keeps the tables it is given."""

    def __init__(self, **_: Any) -> None:
        self.tables: list[Table] = []

    def print(self, *given: Any, **_: Any) -> None:
        self.tables += [one for one in given if isinstance(one, Table)]


def test_scores_of_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(evaluate, "console", screen)
    one = {"fve": WIDE, "centred_cosine": WIDE, "retrieval": {"top1": 0.5}}
    evaluate.show(
        {
            "rows": {"attempted": 3},
            "scores": dict.fromkeys(NAMES, one),
            "texts": {"unique": {"full": 1.0}, "empty_share": 0.0, "loop_share": 0.0},
            "gains": {"centred_cosine": {**WIDE, "best_floor": "empty"}},
            "verdict": {"word": "weak", "reasons": []},
        },
        "a run",
    )
    lines = check(screen.tables[0])
    row = ["-0.066", "-.199+.166", "-0.066", "-.199+.166", "0.50"]
    assert sum(line.split()[-5:] == row for line in lines) == len(NAMES)


def test_an_audit() -> None:
    names = ("fve_mean_direction", "centred_cosine", "document_top1")
    conditions = ("real", "random_direction", "a variant that somebody has called so")
    records = [
        {"measure": name, "condition": condition, **WIDE, **GAIN, "rows": 100000,
         "floor": "random_direction"}
        for name in names for condition in conditions
    ]  # fmt: skip
    lines = check(audit._table(records, records))
    assert lines[1].split() == [
        "fve_mean_direction", "-0.066", "-.199+.166", "-0.066", "random_dir…", "+0.446",
        "-.046+.054", "100000",
    ]  # fmt: skip


@pytest.mark.parametrize("sides", [2, 3])
def test_a_comparison(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sides: int) -> None:
    screen = Screen()
    monkeypatch.setattr(cli_compare, "console", screen)
    records = [
        {"part": "roundtrip", "measure": "centred_cosine", "condition": "real", "p": 0.5,
         "other": "a run of a long name", "first_mean": -0.066, "other_mean": -0.0661,
         "difference": -0.066, "low": -0.265, "high": 0.1, "p_holm": 0.5, "detectable": 0.1,
         "rows": 100000, "documents": 1000, "method": "paired"}
    ]  # fmt: skip
    monkeypatch.setattr("nlakit.publish.compare.comparison.write_comparison", lambda *_: records)
    cli_compare.compare([Path(f"{i}") for i in range(sides)], tmp_path)
    check(screen.tables[0])


def test_layers() -> None:
    share = {"mean": 0.5, "floors": {"guess": 0.25}}
    score = {"fve": {"mean": -0.066}}
    ar = {"gain": {"centred_cosine": WIDE, "fve": {"best_floor": "mean"}},
          "scores": {"real": score, "mean": score}}  # fmt: skip
    record = {"mean_share": share, "effective_rank": {"value": 1234.0}, "ar": ar}
    record |= dict.fromkeys(layers.SCORES, share)
    found = [{**record, "layer": layer} for layer in (12, 127)]
    advice = {"reason": "because", "layer": 12}
    check(layers.table_of(
        {"model": "m", "recommendation": advice, "warnings": [], "layers": found}
    ))  # fmt: skip


def test_a_plan() -> None:
    one = plan.StagePlan("activations", 10**7, 1e12, 1e22, 1e14, 10**12, 360000.0, 1e13)
    made = plan.Plan("p", [one, replace(one, rows=1, tokens=99999.0, flops=9e15)], 1e13, "notes")
    check(plan.table_of(made))


def test_a_trial_of_labels() -> None:
    score = {"fve": WIDE, "centred_cosine": WIDE, "retrieval": {"top1": 0.5, "candidates": 12000}}
    labels = {"labelled": 1234, "mean_words": 100.0, "mean_copied_run": 12.3}
    names = ("services:somebody/a-model-of-a-long-name", "offline")
    report: Any = SimpleNamespace(
        rows={"training": 1, "held_out": 1, "used": 1, "attempted": 1},
        documents={"training": 1, "held_out": 1}, steps=1, batch_rows=1, verdict="v",
        labelers=names, labels=dict.fromkeys(names, labels),
        scores={name: {key: score for key, _ in trial.CONDITIONS} for name in names},
        difference={"fve": WIDE, "centred_cosine": WIDE},
    )  # fmt: skip
    check(trial.table_of(report))


def test_a_probe() -> None:
    records = [
        {"condition": condition, "measure": measure, **WIDE, "floor": None}
        for condition in ("activation", "explanations_and_reconstructions_of_another")
        for measure in probe.SHOWN
    ]
    check(probe.table_of(records))


def test_presets_and_their_remarks(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("rich.console.Console", lambda **_: screen)
    presets.presets()
    monkeypatch.undo()
    assert not any("…" in line for line in check(screen.tables[0]))


def test_status_and_what_is_dropped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen, said = Screen(), []
    monkeypatch.setattr(main, "console", screen)
    monkeypatch.setattr(
        screen, "print", lambda one, **_: (screen.tables if isinstance(one, Table) else said)
        .append(one)
    )  # fmt: skip
    rows = SimpleNamespace(kept=10**7, dropped={"too short to be read": 7, "others": 0, "b": 1})
    manifest = SimpleNamespace(rows=rows, seconds=123456.0, finished="2026-11-24T10:11:12+00:00")
    item = SimpleNamespace(stage="activations", state="half done", manifest=manifest, changes=[])
    monkeypatch.setattr(main.pipeline, "status", lambda *_: [item, item])
    monkeypatch.setattr(main, "resolve", lambda *_: (None, tmp_path))
    main.status("a run")
    assert "8" in check(screen.tables[0])[1].split()
    assert "dropped in activations: 7 too short to be read, 1 b" in said


def test_what_would_be_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(hub, "console", screen)
    row = SimpleNamespace(name="av/adapter_model.safetensors", size=10**12, sha256="a" * 64,
                          state="differs")  # fmt: skip
    made = SimpleNamespace(what="pair", where="w", rows=[row], left_out=[], rewritten=[], moving=[])
    monkeypatch.setattr("nlakit.publish.hub.hub.push", lambda *_, **__: made)
    hub.push("s", "d")
    check(screen.tables[0])
