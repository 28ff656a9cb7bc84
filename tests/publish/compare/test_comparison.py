"""What `nlakit compare` writes, of evaluations and of one training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from nlakit.cli import compare as cli_compare
from nlakit.errors import DataError
from nlakit.files.parquet import read_table
from nlakit.publish.compare import comparison
from nlakit.publish.compare.comparison import write_trajectory
from tests.publish.evaluated import write_toy


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.callback()(lambda: None)  # with one command alone, its name would be an argument
    cli_compare.register(app)
    found = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pairs")
    return write_toy(folder / "good", noise=0.5), write_toy(folder / "poor", noise=2.0)


def test_two_evaluations_with_a_known_difference(pairs: tuple[Path, Path], tmp_path: Path) -> None:
    good, poor = pairs
    run("compare", str(good), str(poor), "--out", str(tmp_path / "c"))
    report = json.loads((tmp_path / "c" / "comparison.json").read_text(encoding="utf-8"))
    assert [side["name"] for side in report["sides"]] == ["good", "poor"]
    assert report["sides"][0]["git_commit"] == "abc123"
    found = {one["measure"]: one for one in report["comparisons"]}
    assert found["centred_cosine"]["high"] < 0
    assert found["centred_cosine"]["p_holm"] < 0.05
    table = read_table(tmp_path / "c" / "comparison.parquet").to_pylist()
    assert len(table) == len(report["comparisons"])
    for measure in ("fve", "centred_cosine", "top1"):
        assert (tmp_path / "c" / f"roundtrip-{measure}.png").exists()
    page = (tmp_path / "c" / "comparison.md").read_text(encoding="utf-8")
    assert page.startswith("# good against poor\n")
    (line,) = (one for one in page.splitlines() if "centred_cosine, real" in one)
    assert line.startswith("| roundtrip: centred_cosine, real | poor | 0.")
    assert line.endswith("| 30 of 15 docs | paired |")


def test_an_audit_is_compared_without_pairing(
    pairs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "draw_dots", lambda *arguments: None)
    found = read_table(pairs[1] / "findings.parquet").to_pylist()
    audit = tmp_path / "audit.json"
    audit.write_text(json.dumps({"findings": found}), encoding="utf-8")
    run("compare", str(pairs[0]), str(audit), "--out", str(tmp_path / "c"))
    table = read_table(tmp_path / "c" / "comparison.parquet").to_pylist()
    assert {one["method"] for one in table} == {"intervals"}
    audit.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="holds no findings"):
        run("compare", str(pairs[0]), str(audit), "--out", str(tmp_path / "c"))


def test_the_trajectory_of_a_training(tmp_path: Path) -> None:
    metrics = {
        "06_ar": [
            {"step": step, "loss": 1.0, "fve_real": step / 10, "fve_empty": 0.0,
             "centred_real": real, "centred_empty": 0.0}
            for step, real in ((1, 0.1), (2, 0.5), (3, 0.4))
        ],
        "07_av": [{"step": 1, "gap_nats": 0.1}, {"step": 2, "gap_nats": 0.2}],
    }  # fmt: skip
    for name, records in metrics.items():
        (tmp_path / "run" / name).mkdir(parents=True)
        lines = "".join(json.dumps(one) + "\n" for one in records)
        (tmp_path / "run" / name / "metrics.jsonl").write_text(lines, encoding="utf-8")
    said = run("compare", str(tmp_path / "run"), "--trajectory", "--out", str(tmp_path / "t"))
    assert "ar: best step 2, centred_real +0.500" in said
    assert "av: best step 2, gap_nats +0.200" in said
    assert (tmp_path / "t" / "trajectory.png").exists()
    with pytest.raises(DataError, match="no held-out measures"):
        write_trajectory(tmp_path, tmp_path / "t")
