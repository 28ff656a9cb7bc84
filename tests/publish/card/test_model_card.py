"""The model card: each number from the results, beside its floor, corrected where it stands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from nlakit.errors import ConfigError, DataError
from nlakit.files.markdown import fenced
from nlakit.publish.card.model_card import correct, write_model_card
from nlakit.publish.card.rules import uses
from nlakit.publish.card.verify import verify
from nlakit.publish.evaluation import read_evaluation
from tests.publish.evaluated import toy_rows, write_toy
from tests.publish.hub.test_hub import toy_pair


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def made(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "card"
    write_model_card(evaluation, folder, name="toy", license="mit", data=["a/rows"])
    return folder


@pytest.fixture
def card(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "card"))


def text_of(card: Path) -> str:
    return (card / "README.md").read_text(encoding="utf-8")


def test_the_front_matter(card: Path) -> None:
    front = yaml.safe_load(text_of(card).split("---\n")[1])
    assert front["license"] == "mit"
    assert front["base_model"] == "owner/subject"
    assert front["datasets"] == ["a/rows"]
    assert front["library_name"] == "nlakit"
    metrics = {m["type"]: m["value"] for m in front["model-index"][0]["results"][0]["metrics"]}
    found = read_evaluation(card / "results").finding("roundtrip", "fve", "real")
    assert found is not None
    assert metrics["fve"] == round(found["mean"], 4)


def test_a_headline_stands_beside_its_floor_and_gain(card: Path, evaluation: Path) -> None:
    found = read_evaluation(evaluation).finding("roundtrip", "centred_cosine", "real")
    assert found is not None
    below = read_evaluation(evaluation).finding("roundtrip", "centred_cosine", found["floor"])
    assert below is not None
    line = next(line for line in text_of(card).splitlines() if line.startswith("| Centred cosine"))
    for one in (f"{found['mean']:.3f} [{found['low']:.3f}", f"{found['gain']:.3f}"):
        assert one in line
    assert f"{below['mean']:.3f}".replace("-", "−") in line


def test_failures_count_over_all_attempted_rows(card: Path) -> None:
    text = text_of(card)
    assert "1 of 30 texts are empty." in text
    assert "| empty | 3% | – |" in text
    assert "| stopped by the token limit | – | – |" in text


def test_the_same_evaluation_gives_the_same_bytes(card: Path, evaluation: Path) -> None:
    write_model_card(
        evaluation, card.with_name("again"), name="toy", license="mit", data=["a/rows"]
    )
    for file in sorted(card.rglob("*")):
        if file.is_file():
            again = card.with_name("again") / file.relative_to(card)
            assert file.read_bytes() == again.read_bytes(), file.name


def test_texts_cannot_break_out_of_their_fence(card: Path) -> None:
    assert fenced("a ```` b").startswith("`````text\n")
    assert text_of(card).count("````text\n") == 4  # the sources; they hold three backticks


def test_a_filled_folder_is_kept(card: Path, evaluation: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        write_model_card(evaluation, card)


def test_an_evaluation_without_values_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(DataError, match="without findings.parquet, values.parquet"):
        write_model_card(tmp_path, tmp_path / "card")


def test_one_half_alone_has_no_card(evaluation: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(evaluation, tmp_path / "half"))
    found = json.loads((half / "results.json").read_text(encoding="utf-8"))
    (half / "results.json").write_text(json.dumps(found | {"scores": {}}), encoding="utf-8")
    with pytest.raises(DataError, match="both halves; found: no scores"):
        write_model_card(half, tmp_path / "card")
    assert not (tmp_path / "card").exists()


def test_paths_of_this_machine_stay_here(tmp_path: Path) -> None:
    evaluation = write_toy(tmp_path / "e", base_model="/home/me/models/subject", matched=False)
    text = write_model_card(evaluation, tmp_path / "card")
    assert "**That these halves were trained together is not so.**" in text
    assert "those of subject," in text
    assert not any(
        b"/home/me" in file.read_bytes()
        for file in (tmp_path / "card").rglob("*")
        if file.is_file()
    )


def test_the_contracts_of_a_pair_are_shown_and_must_match(tmp_path: Path, evaluation: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    text = write_model_card(evaluation, tmp_path / "card", pair=str(pair))
    assert "| width | 4 |" in text
    assert verify(tmp_path / "card").problem is None
    other = toy_pair(tmp_path / "other", layer_index=2)
    with pytest.raises(DataError, match="other activations"):
        write_model_card(evaluation, tmp_path / "second", pair=str(other))


def results(word: str, **more: Any) -> dict[str, Any]:
    scores = {"real": {"centred_cosine": {"mean": 0.4}}}
    evidence = {"gain_over_same_document": {"low": 0.1}}
    return {"verdict": {"word": word, "evidence": evidence}, "scores": scores, **more}


def test_uses_follow_from_verdict_and_warnings() -> None:
    good = results("content-sensitive")
    assert any("Reading" in line for line in uses(good, good=True))
    assert len(uses(good, good=False)) == 2  # what is true of every pair
    blind = results("content-blind")
    assert not any("Reading" in line for line in uses(blind, good=True))
    assert any("fits" in line for line in uses(blind, good=False))
    good["warnings"] = [{"code": "contaminated-split"}]
    assert any("new documents" in line for line in uses(good, good=False))
    good["scores"]["last_10_tokens"] = {"centred_cosine": {"mean": 0.4}}
    assert any("last words" in line for line in uses(good, good=False))


def test_a_correction_is_appended_and_the_old_number_stays(card: Path, tmp_path: Path) -> None:
    before = text_of(card)
    worse = write_toy(tmp_path / "worse", noise=2.0, day="2026-12-01")
    found = correct(worse, card)
    assert {"FVE", "Centred cosine"} <= {one["title"] for one in found}
    head, tail = text_of(card).split("## Corrections")
    assert head == before.split("## Corrections")[0]
    assert "### 2026-12-01: `results/corrections/2026-12-01-1`" in tail
    assert "None so far" in before
    assert "None so far" not in tail
    assert (card / "results/corrections/2026-12-01-1/values.parquet").exists()
    checked = verify(card)
    assert checked.problem is None
    correct(worse, card)
    assert "2026-12-01-2" in text_of(card)


def test_an_evaluation_that_agrees_changes_nothing(card: Path, evaluation: Path) -> None:
    before = text_of(card)
    assert correct(evaluation, card) == []
    assert text_of(card) == before
    assert not (card / "results/corrections").exists()


def test_a_note_by_hand_is_not_lost(card: Path, evaluation: Path) -> None:
    (card / "README.md").write_text(text_of(card) + "\nmine\n", encoding="utf-8")
    with pytest.raises(DataError, match="is not what its results give"):
        correct(evaluation, card)


def test_a_correction_is_of_the_same_pair(card: Path, tmp_path: Path) -> None:
    other = write_toy(tmp_path / "other", rows=toy_rows(seed=3), pair="ef" * 32)
    with pytest.raises(DataError, match="another pair"):
        correct(other, card)
    assert json.loads((card / "results/archive.json").read_text())["files"]
