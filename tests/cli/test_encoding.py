"""Output into a pipe that is no UTF-8: data is UTF-8 all the same, tables show what they can."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TEXT = "日本語 → ㊗"
# The command line over a pair that needs no model.
SCRIPT = f"""
import sys
from nlakit.cli import main
from nlakit.cli.use import explain

class Pair:
    def explain(self, what, *given, **options):
        return self

    def as_dicts(self):
        return [dict(position=0, token="→", fve=float("nan"), explanation={TEXT!r})]

explain.load_pair = lambda *given: Pair()
if "doctor" in sys.argv:
    from nlakit.studies import doctor
    doctor.MEASURE_SECONDS = 0.001
main.main()
"""


def run(encoding: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    where = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        capture_output=True,
        check=False,
        env={**os.environ, **where},
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_json_lines_are_utf8(encoding: str) -> None:
    found = run(encoding, "explain", "demo", TEXT, "--format", "jsonl")
    assert found.returncode == 0, found.stderr
    record = json.loads(found.stdout.decode("utf-8"))
    assert (record["explanation"], record["token"], record["fve"]) == (TEXT, "→", None)


def test_tables_replace_what_cannot_be_shown() -> None:
    found = run("cp1252", "explain", "demo", TEXT)
    assert found.returncode == 0, found.stderr
    assert "??? ? ?" in found.stdout.decode("cp1252")


@pytest.mark.parametrize("words", ["presets", "config", "doctor", "explain --help"])
def test_every_table_goes_into_ascii(words: str) -> None:
    found = run("ascii", *words.split())
    assert b"Traceback" not in found.stderr
    assert found.returncode in ((0, 1) if words == "doctor" else (0,))  # 1: it found a problem
    assert found.stdout.decode("ascii")


def test_errors_go_into_ascii() -> None:
    found = run("ascii", "status", "läufe")
    assert found.returncode == 2
    assert found.stderr.startswith(b"error: there is no l?ufe")


def test_configurations_are_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("name: x\ntables: {marker: ㊗}\n", encoding="utf-8")
    found = run("cp1252", "config", str(file))
    assert found.returncode == 0, found.stderr
    assert yaml.safe_load(found.stdout.decode("utf-8"))["tables"]["marker"] == "㊗"
