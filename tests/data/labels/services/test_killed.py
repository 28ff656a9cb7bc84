"""The labels stage against a server that fails in every known way, killed again and again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
import pytest
import yaml

from nlakit.config.load import parse_config
from nlakit.data.labels.labeler import SCHEMA
from nlakit.files.parquet import read_table
from nlakit.run import pipeline
from tests.conftest import toy_corpus, toy_settings

ROWS = int(os.environ.get("NLAKIT_LABEL_ROWS", "240"))
KILLS = int(os.environ.get("NLAKIT_LABEL_KILLS", "3"))
QUOTA_SECONDS = float(os.environ.get("NLAKIT_QUOTA_SECONDS", "20"))
CONCURRENCY = 32
# What faults and restarts may change: when, for how much, in how many attempts.
SAME = [n for n in SCHEMA.names if n not in ("labelled_at", "cost", "attempts")]


@contextmanager
def server(*options: str) -> Iterator[str]:
    """A label server in a process of its own; its base URL."""
    command = [sys.executable, str(Path(__file__).parents[3] / "labelserver.py"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()[-1]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stats(url: str) -> dict[str, Any]:
    with urlopen(url.removesuffix("/v1") + "/stats") as answer:
        return json.load(answer)


def start(run: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "nlakit", "labels", str(run)]
    return subprocess.Popen(command, stdout=log.open("ab"), stderr=subprocess.STDOUT)


def service(url: str, model: str) -> dict[str, Any]:
    return {"kind": "compatible", "model": model, "base_url": url}


@pytest.fixture
def prepared(tmp_path: Path, toy_folder: Callable[[str], Path]) -> Callable[..., Path]:
    """A run of ROWS rows up to its labels, which a server at `url` will give."""
    corpus = toy_corpus(tmp_path / "corpus.jsonl", ROWS // 4)

    def prepare(name: str, url: str, **requests: Any) -> Path:
        settings = toy_settings(toy_folder("gemma3"), corpus)
        settings["activations"] |= {"positions_per_document": 4, "documents_per_chunk": 500}
        settings["labels"] = {
            "labeler": "services",
            "services": [service(url, "chen")],
            "auditor": service(url, "otsuka"),
            "rows_per_chunk": max(ROWS // 4, 50),
            "max_duplicate_share": 0.2,
        }
        settings["requests"] = {
            "store": str(tmp_path / f"{name}.sqlite"),
            "concurrency": CONCURRENCY,
            "timeout": 2.0,
            "attempts": 30,
            **requests,
        }
        config = parse_config(settings)
        pipeline.run(config, tmp_path / name, stages=("corpus", "activations"))
        file = tmp_path / name / "config.yaml"
        assert yaml.safe_load(file.read_text())["requests"]["concurrency"] == CONCURRENCY
        return tmp_path / name

    return prepare


def labels(run: Path) -> pa.Table:
    return read_table(run / "04_labels").sort_by("row_id")


@pytest.mark.slow
def test_killed_and_faulted_labels_are_those_of_a_quiet_run(
    tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """NLAKIT_LABEL_ROWS and NLAKIT_LABEL_KILLS set the size."""
    log = tmp_path / "log.txt"
    faults = ("--faults", "0.2", "--seed", "7", "--retry-after", "0.2")
    with server("--delay", "0.01", *faults) as url:
        faulted = prepared("faulted", url)
        chance, killed = random.Random(0), 0
        while (process := start(faulted, log)) and killed < KILLS:
            # From the middle of starting up to the middle of the work.
            time.sleep(chance.uniform(1.0, 6.0))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        assert process.wait() == 0, log.read_text()[-3000:]
        assert killed == KILLS, "the run was too short for the kills"
        seen = stats(url)
    bound = seen["prompts"] + sum(seen["faults"].values()) + killed * CONCURRENCY
    assert seen["requests"] <= bound, seen
    found = labels(faulted)
    assert found.num_rows == ROWS
    # The same server without faults, and at the same address: it is part of the key.
    port = url.removesuffix("/v1").rsplit(":", 1)[1]
    with server("--port", port) as again:
        assert again == url
        quiet = prepared("quiet", url)
        assert start(quiet, log).wait() == 0, log.read_text()[-3000:]
        assert stats(again)["requests"] == seen["prompts"]
    expected = labels(quiet)
    assert found.select(SAME).equals(expected.select(SAME))
    reasons = Counter(expected["reason"].to_pylist())
    assert reasons.pop(None) > 0.8 * ROWS
    summary = {"rows": ROWS, "kills": killed, **seen, "bound": bound, "reasons": dict(reasons)}
    (Path(os.environ.get("NLAKIT_RECORD", str(tmp_path))) / "killed.json").write_text(
        json.dumps(summary, indent=1)
    )


@pytest.mark.slow
def test_a_run_asleep_for_its_quota_survives_a_kill(
    tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    """NLAKIT_QUOTA_SECONDS sets how long the quota stays used up."""
    quota = ("--quota", str(ROWS), "--quota-seconds", str(QUOTA_SECONDS))
    log = tmp_path / "log.txt"
    with server("--delay", "0.01", *quota) as url:
        run = prepared("asleep", url)
        process = start(run, log)
        while "asleep until" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        ran_out = time.monotonic()
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = stats(url)
        process = start(run, log)
        while log.read_text().count("asleep until") < 2:
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        assert stats(url)["requests"] == before["requests"]  # it knows without asking
        # Two requests a row: the quota of the next day ends with the last row.
        assert process.wait() == 0, log.read_text()[-2000:]
        slept = time.monotonic() - ran_out
        after = stats(url)
    assert slept > QUOTA_SECONDS - 2
    table = labels(run)
    assert table.num_rows == ROWS
    assert after["answered"] - after["answered_prompts"] <= CONCURRENCY  # those in flight
    assert "not_labelled" not in table["reason"].to_pylist()
    summary = {"rows": ROWS, "slept": slept, "before": before, **after, "log": log.read_text()}
    (Path(os.environ.get("NLAKIT_RECORD", str(tmp_path))) / "quota.json").write_text(
        json.dumps(summary, indent=1)
    )


def test_a_prompt_edited_between_two_sittings_is_refused(
    tmp_path: Path, prepared: Callable[..., Path]
) -> None:
    prompt = tmp_path / "labeler.md"
    prompt.write_text("Label it: {text}")
    log = tmp_path / "log.txt"
    with server() as url:
        run = prepared("edited", url, max_rows=ROWS // 2)
        file = run / "config.yaml"
        settings = yaml.safe_load(file.read_text())
        settings["labels"]["prompts"]["labeler"] = str(prompt)
        file.write_text(yaml.safe_dump(settings))
        assert start(run, log).wait() == 4  # a limit; one chunk is finished
        assert list((run / "04_labels").glob("part-*.parquet"))
        prompt.write_text("Label it otherwise: {text}")
        assert start(run, log).wait() == 2
    assert f"{prompt} was changed after it was read" in " ".join(log.read_text().split())
