"""Joint RL in the report: its start, the kept step, floors, and the brake's words."""

from __future__ import annotations

import html
from typing import Any

import pytest
from markupsafe import Markup

from nlakit.publish.report import figures
from nlakit.publish.report.report import render
from nlakit.publish.report.rl import RLSection, rl_section
from tests.publish.report.test_report import (
    EVIL,
    ReportConfig,
    build_results,
    build_training,
    parsed,
)

START = {
    "fve": 0.4, "frozen_fve": 0.4, "centred": 0.65, "frozen_centred": 0.65, "empty_centred": 0.01,
    "other_centred": 0.02, "shuffle_kept": 0.97, "paraphrase_kept": 0.96, "within_family": 0.6,
    "unique": 1.0, "claim_precision": 0.2, "words": 32.0,
}  # fmt: skip
KEPT = {"content": {"step": 4, "frozen_centred": 0.7}, "fve": {"step": 6, "fve": 0.9}}


def steps(count: int = 6) -> list[dict[str, Any]]:
    """A record a step, every second one measured: FVE up by 0.1 a measurement."""
    return [
        {"step": n, "loss": 0.1, "entropy": 1.4, "kl": 0.01 * n, "reward_sum": -0.2,
         "reward_spread": 0.01, "reward_live": -0.1, "reward_frozen": -0.1}
        | ({**START, "fve": 0.4 + 0.05 * n, "claim_precision": 0.3} if n % 2 == 0 else {})
        for n in range(1, count + 1)
    ]  # fmt: skip


def summary(**given: Any) -> dict[str, Any]:
    return {"start": START, "kept": KEPT, "stopped": None} | given


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The lines of each figure, which is not drawn."""
    lines: dict[str, Any] = {}

    def curves(title: str, found: Any, kept: int, points: bool) -> Markup:
        lines[title] = (found, kept)
        return Markup("<svg></svg>")

    monkeypatch.setattr(figures, "curves", curves)
    return lines


def test_curves_begin_before_the_first_step(drawn: dict[str, Any]) -> None:
    rl_section(steps(), summary(), "content")
    lines, kept = drawn["FVE"]
    assert lines["live AR"] == ([0, 2, 4, 6], pytest.approx([0.4, 0.5, 0.6, 0.7]))
    assert kept == 4
    assert {"floor: empty text", "floor: other row"} < set(drawn["Centred cosine"][0])
    assert set(drawn["Reward"][0]) == {"sum", "live", "frozen"}
    assert list(drawn["Entropy"][0]["entropy"][0]) == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("drawn")
def test_rows_have_the_start_the_kept_step_and_the_end() -> None:
    rows = {row[0]: row[1:] for row in rl_section(steps(), summary(), "content").rows}
    assert rows["FVE, live AR"] == ("0.400", "0.600", "0.700")
    assert rows["Content, in the source"] == ("0.200", "0.300", "0.300")
    assert rows["Centred cosine, floor: other row"] == ("0.020",) * 3


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(("keep", "step"), [("content", 4), ("fve", 6), ("last", 6)])
def test_the_kept_step_follows_the_rule(keep: str, step: int) -> None:
    assert rl_section(steps(), summary(), keep).kept == step


@pytest.mark.usefixtures("drawn")
def test_nothing_better_keeps_the_pair_before_rl() -> None:
    found = rl_section(steps(1), summary(kept={"content": {"step": 0}}), "content")
    assert (found.steps, found.kept) == (1, 0)
    assert {row[1] for row in found.rows} == {row[2] for row in found.rows}


def test_a_curve_is_drawn_with_the_kept_step() -> None:
    svg = figures.curves("FVE", {"live AR": ([0, 2], [0.1, 0.2])}, 2, points=True)
    assert svg and "live AR" in svg and "kept" in svg
    assert figures.curves("FVE", {}, 2, points=True) is None


def page_of(learnt: RLSection | None) -> str:
    results, scores = build_results()
    return render(results, scores, *build_training(), "name: t\n", ReportConfig(rows=2), rl=learnt)


def test_the_page_says_what_rl_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "_svg", lambda figure, salt: Markup("<svg></svg>"))
    brake = {"name": "private code", "says": f"they agree {EVIL}", "evidence": "0.300 -> 0.500"}
    page = page_of(rl_section(steps(), summary(stopped=brake), "content"))
    assert parsed(page).open == [] and "<img" not in page
    text = html.unescape(page)
    assert "Private code, after 6 steps" in text and "0.300 -> 0.500" in text
    assert "step 4" in text
    assert 'id="rl"' in page and 'id="rl"' not in page_of(None)
