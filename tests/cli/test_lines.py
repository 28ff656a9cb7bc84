"""What commands say besides their results."""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nlakit.cli import main
from nlakit.cli.use import explain
from nlakit.errors import DataError, ExitCode
from nlakit.publish.card import model_card
from nlakit.publish.hub.hub import how_to_use
from tests.commands import call


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
    assert explain._positions(given) == expected


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["run"], "missing argument 'CONFIG|RUN'; do: see nlakit run --help"),
        (["none"], "no such command 'none'; do: see nlakit --help"),
        (["doctor", "x"], "got unexpected extra argument(s) (x); do: see nlakit doctor --help"),
        (["layers", "--rows", "3"], "invalid value for '--rows'"),
        (["explain", "demo", "--vectors", "x" * 300], f"{'x' * 300} cannot be used; found: File"),
    ],
)  # fmt: skip
def test_what_is_typed_wrong_is_a_line(words: list[str], line: str) -> None:
    said = call(*words)
    assert (said.code, said.out, said.crash) == (ExitCode.MISTAKE, "", "")
    assert said.err.startswith(f"error: {line}")
    assert len(said.err.splitlines()) == 1


def test_without_words_the_help_is_shown() -> None:
    assert "Usage: nlakit" in call().out


def test_a_message_is_one_line_whatever_was_found() -> None:
    error = DataError("a file cannot be read", found="one\ntwo\u2028three\r\nfour", do="mend it")
    assert str(error) == "a file cannot be read; found: one two three four; do: mend it"


def test_exit_codes_have_names() -> None:
    """No command ends with a bare number."""
    for module in Path(main.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Exit", "sys.exit"):
                assert not any(isinstance(x, ast.Constant) for x in node.args), ast.unparse(node)
