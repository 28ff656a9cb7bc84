"""Every command that writes tries its place before it works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.errors import ConfigError
from tests.conftest import toy_corpus


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command would work with fails the test."""

    def worked(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the place was not tried first")

    for name in (
        "nlakit.models.nla.NLA.load",
        "nlakit.run.pipeline.run",
        "nlakit.evaluate.audit.audit.audit",
        "nlakit.publish.card.model_card.write_model_card",
        "nlakit.publish.card.model_card.correct",
        "nlakit.publish.compare.comparison.write_comparison",
        "nlakit.publish.compare.comparison.write_trajectory",
        "nlakit.publish.hub.archive.archive",
        "nlakit.publish.hub.hub.pull",
        "nlakit.studies.evaluation.evaluate_pair",
        "nlakit.studies.layers.depth_and_width",
        "nlakit.models.foreign.convert.import_pair",
        "nlakit.data.labels.export._joined",
    ):
        monkeypatch.setattr(name, worked)


FILES = [
    ("explain", "demo", "x", "--save", "{}.jsonl"),
    ("reconstruct", "demo", "x", "--save", "{}.jsonl"),
    ("score", "demo", "x", "--vectors", "none.npy", "--save", "{}.parquet"),
    ("audit", "{rows}", "--save", "{}.json"),
    ("probe", "{rows}", "--save", "{}.json"),
    ("export-labels", "{run}", "{}.jsonl"),
]
FOLDERS = [
    ("run", "{config}", "--out", "{}"),
    ("corpus", "{config}", "--out", "{}"),
    ("labels", "{config}", "--out", "{}", "--try", "5"),
    ("eval", "{config}", "--out", "{}"),
    ("eval", "demo", "--out", "{}"),
    ("audit", "{rows}", "--save", "{}"),
    ("layers", "--out", "{}"),
    ("compare", "{run}", "{run}", "--out", "{}"),
    ("compare", "{run}", "--trajectory", "--out", "{}"),
    ("card", "{run}", "--out", "{}"),
    ("card", "{run}", "--correct", "{}"),
    ("archive", "{run}", "{}"),
    ("import", "{run}", "{}"),
    ("export", "demo", "{}"),
    ("pull", "owner/name", "{}"),
]


@pytest.fixture
def places(tmp_path: Path) -> Callable[..., list[str]]:
    config = tmp_path / "config.yaml"
    config.write_text("name: x\n", encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "file").write_text("x", encoding="utf-8")
    names = {"config": config, "run": tmp_path / "run", "rows": toy_corpus(tmp_path / "r.jsonl", 4)}

    def fill(command: tuple[str, ...], place: str) -> list[str]:
        return [part.format(tmp_path / place, **names) for part in command]

    return fill


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", [*FILES, *FOLDERS], ids=" ".join)
def test_a_place_that_cannot_be_written_to(command: Any, places: Any, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    found = CliRunner().invoke(app, places(command, "file/out")).exception
    assert isinstance(found, ConfigError), found
    assert "nothing can be written at" in str(found)
    assert "file is no folder" in str(found)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", [*FILES, *FOLDERS], ids=" ".join)
def test_an_ending_that_says_another_format(command: Any, places: Any) -> None:
    found = CliRunner().invoke(app, places(command, "out.csv")).exception
    if command in FILES:
        command = tuple(part.partition("}.")[0] + "}" if "{}" in part else part for part in command)
        found = CliRunner().invoke(app, places(command, "out.csv")).exception
    assert isinstance(found, ConfigError), found
    assert ".csv" in str(found)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", FILES[:3], ids=" ".join)
def test_a_format_that_is_not_written(command: Any, places: Any) -> None:
    words = [*places(command, "out"), "--format", "xml"]
    found = CliRunner().invoke(app, words).exception
    assert isinstance(found, ConfigError)
    assert "unknown --format; found: xml" in str(found)
