"""The draft card: what it says of an evaluated pair, and what it does not say of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nlakit.core.contract import FILE
from nlakit.errors import ConfigError, DataError
from nlakit.publish.card.draft import limitations
from nlakit.publish.hub.hub import push
from tests.publish.hub.test_hub import toy_pair


def span(mean: float) -> dict[str, Any]:
    """An estimate whose interval is the mean ± 0.1."""
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "rows": 50, "documents": 25}


def scored(fve: float, centred: float, **more: Any) -> dict[str, Any]:
    return {"fve": span(fve), "centred_cosine": span(centred), "cosine": span(0.9), **more}


def evaluation(**overrides: Any) -> dict[str, Any]:
    """An evaluation of the pair of `toy_pair`, as results.json has it."""
    gain = {**span(0.08), "best_floor": "unrelated"}
    return {
        "verdict": {
            "word": "weak",
            "reasons": ["content gain 0.080 does not stay above 0.1"],
            "evidence": {
                "best_floor": "unrelated",
                "content_gain": span(0.08),
                "content_gain_p": 0.01,
                "fve": span(0.21),
                "gain_over_same_document": None,
                "unique_share": 0.96,
                "top_opening_share": 0.02,
                "empty_share": 0.06,
            },
        },
        "rows": {
            "attempted": 50,
            "documents": 25,
            "empty": 3,
            "centred_cosine_without_empty": 0.35,
        },
        "scores": {
            "real": scored(0.21, 0.33, retrieval={"top1": 0.5, "candidates": 50}),
            "label": scored(0.5, 0.7),
            "mean": scored(-0.06, 0.0),
            "empty": scored(-0.12, 0.02),
            "gibberish": scored(-0.4, 0.01),
            "unrelated": scored(-0.3, 0.25),
            "other_row": scored(-0.41, 0.03),
            "last_10_tokens": scored(-0.05, 0.31),
        },
        "gains": {"fve": gain, "centred_cosine": gain},
        "texts": {"unique": {"full": 0.96}, "loop_share": 0.1},
        "provenance": {
            "git_commit": "abc123",
            "base_model": "owner/subject",
            "layer": 1,
            "baseline": 0.2327,
            "baseline_source": "the evaluated rows",
        },
        **overrides,
    }


def card_of(pair: Path, there: Path, results: Any = None, **options: Any) -> tuple[dict, str]:
    """Front matter and text of the card that a push writes."""
    if results:
        (pair / "results.json").write_text(json.dumps(results), encoding="utf-8")
    push(str(pair), str(there), send=True, **options)
    _, front, text = (there / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), text


def test_without_an_evaluation_nothing_is_claimed(tmp_path: Path) -> None:
    _, text = card_of(toy_pair(tmp_path / "pair"), tmp_path / "there")
    assert "Not evaluated." in text
    assert not any(word in text for word in ("Verdict", "Scores", "cosine", "content-"))


def test_every_score_stands_beside_its_floors(tmp_path: Path) -> None:
    _, text = card_of(toy_pair(tmp_path / "pair"), tmp_path / "there", evaluation())
    assert "## Verdict: weak" in text
    assert "- content gain 0.080 does not stay above 0.1" in text
    rows = {line.split(" | ")[0][2:]: line for line in text.splitlines() if line.startswith("| ")}
    assert rows["AV text"] == (
        "| AV text | 0.210 [0.110, 0.310] | 0.330 [0.230, 0.430] | 0.900 | 0.50 of 50 |"
    )
    floors = ("mean vector", "empty text", "gibberish", "unrelated text", "another row's text")
    for name in floors:
        assert rows[name].count("[") == 2
    assert "unrelated text | −0.300 [−0.400, −0.200] | 0.250 [0.150, 0.350]" in text
    assert "Content gain in FVE: 0.080 [−0.020, 0.180] over unrelated text." in text


def test_denominators_and_what_they_hide(tmp_path: Path) -> None:
    _, text = card_of(toy_pair(tmp_path / "pair"), tmp_path / "there", evaluation())
    flat = " ".join(text.split())
    assert "On 50 held-out rows of 25 documents" in flat
    assert "Every attempted row counts: 3 empty or failed" in flat
    assert "Without these the centred cosine is 0.350." in flat
    assert "baseline 0.2327 (the evaluated rows)" in flat


def test_limitations_have_numbers() -> None:
    lines = limitations(evaluation())
    assert any("last 10 tokens" in line and "0.310 [0.210, 0.410]" in line for line in lines)
    assert "Empty texts: 3 of 50." in lines
    assert "Different texts: 96%; with a loop: 10%." in lines
    bare = evaluation()
    del bare["texts"], bare["scores"]["last_10_tokens"]
    assert not any("last 10" in line or "loop" in line for line in limitations(bare))


def test_front_matter(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    front, text = card_of(pair, tmp_path / "a", license="apache-2.0")
    assert front == {
        "license": "apache-2.0",
        "base_model": "owner/subject",
        "library_name": "nlakit",
        "tags": ["natural-language-autoencoder", "interpretability"],
        "pipeline_tag": "text-generation",
    }
    assert "apache-2.0. The terms of the subject" in text
    front, text = card_of(pair, tmp_path / "b")
    assert "license" not in front
    assert "Not stated by who shared this." in text
    assert card_of(pair, tmp_path / "c", what="ar")[0]["pipeline_tag"] == "feature-extraction"


def test_the_embedded_subject_is_named_as_the_hub_names_it(tmp_path: Path) -> None:
    front, _ = card_of(toy_pair(tmp_path / "p", base_model="gemma-3-270m"), tmp_path / "there")
    assert front["base_model"] == "google/gemma-3-270m"


def test_a_half_says_whose_evaluation_it_shows(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    _, text = card_of(pair, tmp_path / "there", evaluation(), what="av")
    assert "The evaluation is of the pair that this half belongs to." in text


@pytest.mark.parametrize("wrong", [{"layer": 2}, {"base_model": "owner/other"}])
def test_an_evaluation_of_something_else_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    results = evaluation()
    results["provenance"] |= wrong
    with pytest.raises(DataError, match="other activations"):
        card_of(toy_pair(tmp_path / "pair"), tmp_path / "there", results)


@pytest.mark.parametrize(
    ("foreign", "says"),
    [({"accuracy": 0.9}, "accuracy"), ([0.9], "list"), ({"provenance": {}}, "provenance")],
)
def test_a_results_file_of_another_program(tmp_path: Path, foreign: Any, says: str) -> None:
    pair, there = toy_pair(tmp_path / "pair"), tmp_path / "there"
    with pytest.raises(DataError, match=f"no evaluation of nlakit.*{says}.*take results.json away"):
        card_of(pair, there, foreign)
    assert not there.exists()


def test_a_card_of_ones_own_is_kept(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    (pair / "README.md").write_text("# mine\n", encoding="utf-8")
    push(str(pair), str(tmp_path / "there"), send=True)
    assert (tmp_path / "there" / "README.md").read_text(encoding="utf-8") == "# mine\n"
    with pytest.raises(ConfigError, match="--license is for the card"):
        push(str(pair), str(tmp_path / "there"), license="mit")


def test_the_pair_in_the_box(tmp_path: Path) -> None:
    push("demo", str(tmp_path / "box"), send=True)
    text = (tmp_path / "box" / "README.md").read_text(encoding="utf-8")
    assert "## Verdict: content-sensitive" in text
    assert "| AV text | 0.500 [0.427, 0.559] | 0.709 [0.690, 0.727] |" in text
    assert (tmp_path / "box" / "NOTICE").exists()
    assert (tmp_path / "box" / "av" / FILE).exists()
