"""Killed at random moments and resumed, a run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nlakit.run.folder import FOLDERS, RunDir
from tests.conftest import toy_corpus, toy_settings
from tests.train.rl.toys import RL

KILLS = int(os.environ.get("NLAKIT_KILLS", "3"))


def run_command(config: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nlakit", "run", str(config), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def hashes(out: Path) -> dict[str, str]:
    """SHA-256 of every file of every stage."""
    found = {}
    for stage in FOLDERS:
        manifest = RunDir(out).manifest(stage)
        assert manifest is not None, stage
        found |= {f"{stage}/{name}": file.sha256 for name, file in manifest.files.items()}
    return found


@pytest.mark.slow
def test_killed_runs_end_like_an_uninterrupted_one(
    tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    """NLAKIT_KILLS sets how often the run is killed."""
    corpus = toy_corpus(tmp_path / "corpus.jsonl")
    config = tmp_path / "toy.yaml"
    settings = toy_settings(toy_folder("gemma3"), corpus, rl=RL)
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    started = time.monotonic()
    assert run_command(config, tmp_path / "whole").wait() == 0
    whole = time.monotonic() - started

    chance = random.Random(0)
    killed = 0
    while killed < KILLS:
        process = run_command(config, tmp_path / "cut")
        # Starting takes most of a toy run: a moment anywhere in it, work or not.
        try:
            process.wait(timeout=chance.uniform(0.3, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
            continue
        # It finished: set the newest half aside and let the kills go on from there.
        done = [stage for stage in FOLDERS if RunDir(tmp_path / "cut").manifest(stage)]
        for stage in done[len(done) // 2 :]:
            RunDir(tmp_path / "cut").set_aside(stage)
    assert run_command(config, tmp_path / "cut").wait() == 0
    assert hashes(tmp_path / "cut") == hashes(tmp_path / "whole")
    metrics = [
        [json.loads(line) for line in (tmp_path / name / "06_ar/metrics.jsonl").open()]
        for name in ("whole", "cut")
    ]
    assert metrics[0] == metrics[1]
