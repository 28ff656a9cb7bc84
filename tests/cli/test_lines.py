"""What commands say besides their results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nlakit.cli import main
from nlakit.publish.card import model_card
from nlakit.publish.hub.hub import how_to_use


def test_commands_that_are_advised_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_card, "write_model_card", lambda *args, **options: "")
    folder = tmp_path / "my card"
    said = CliRunner().invoke(main.app, ["card", "run", "--out", str(folder)]).stdout
    advice = said.splitlines()[-1].removeprefix("check it with: ")
    assert shlex.split(advice) == ["nlakit", "verify", str(folder)]
    monkeypatch.setattr("nlakit.run.stop.stop", lambda rundir: 2)
    said = CliRunner().invoke(main.app, ["stop", str(folder)]).stdout
    assert shlex.split(said)[-3:] == ["nlakit", "run", str(folder)]
    monkeypatch.setattr("nlakit.models.foreign.folders.find_halves", lambda target: {"av": target})
    words = shlex.split(how_to_use(folder, ["av/nla_meta.yaml"]))
    assert words == ["nlakit", "explain", str(folder), "some text"]


def test_libraries_are_quiet_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(main, "_quiet", lambda: calls.append("quiet"))
    CliRunner().invoke(main.app, ["-v", "--version"])
    assert calls == []
    CliRunner().invoke(main.app, ["--version"])
    assert calls == ["quiet"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], "last"), (["all"], "all"), (["last"], [-1]), (["-2", "last", "0"], [-2, -1, 0])],
)
def test_positions_are_those_of_python(given: list[str], expected: Any) -> None:
    assert main._positions(given) == expected
