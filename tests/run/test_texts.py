"""Whole runs over texts that tokenizers, labelers and templates trip over: each ends with a report,
and rows that were lost stand in the manifests with their reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nlakit.config.load import parse_config
from nlakit.core.contract import read_contract, table_sidecar
from nlakit.files.parquet import read_table
from nlakit.run import pipeline
from nlakit.run.folder import FOLDERS, RunDir
from tests.conftest import toy_settings

JAPANESE = (
    "春の川は静かに流れ 古い橋で子供が歌う ㊗ 祝いの日に人は酒を飲み 夏の山は青く 船は港へ帰る"
).split()
SIGNS = "👩‍🚀 🇯🇵 🥨 🧑🏽‍🌾 שלום עולם הספר السلام عليكم البحر 🌊 ספינה".split()
TURNS = ["What is a whale?", "It is a mammal of the sea.", "And a violin?", "It has four strings."]


def japanese(rng: np.random.Generator) -> str:
    return "。".join("、".join(rng.choice(JAPANESE, 4)) for _ in range(22)) + "。㊗"


def signs(rng: np.random.Generator) -> str:
    return ". ".join(" ".join(rng.choice(SIGNS, 5)) for _ in range(20))


def chat(rng: np.random.Generator) -> str:
    turns = [f"<eos>user\n{rng.choice(TURNS)} {rng.integers(1000)}<pad>\n" for _ in range(14)]
    return "<bos>" + "".join(turns) + "<eos>"


KINDS: dict[str, Callable[[np.random.Generator], str]] = {
    "japanese": japanese,
    "signs": signs,
    "chats": chat,
    "parsed chats": chat,
}


def corpus(path: Path, kind: str, documents: int = 60) -> Path:
    texts = [KINDS[kind](np.random.default_rng(index)) for index in range(documents)]
    lines = [json.dumps({"text": text, "kind": "x"}, ensure_ascii=False) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_ends_with_a_report_and_says_what_it_lost(
    kind: str, tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    settings = toy_settings(toy_folder("gemma3"), corpus(tmp_path / "c.jsonl", kind))
    settings["corpus"] |= {"near_duplicate_share": 1.0, "min_characters": 100}
    settings["corpus"] |= {"special_tokens": "parse" if kind == "parsed chats" else "text"}
    settings["activations"] |= {"max_tokens": 300}
    settings["eval"] |= {"rows": 8}
    settings["labels"]["max_duplicate_share"] = 0.2  # a random toy expects too little to tell apart
    config = parse_config(settings)
    rundir = pipeline.run(config, tmp_path / "run")
    assert list(rundir.folder("report").glob("*.html"))
    rows = check_manifests(rundir)
    check_rows(rundir, kind, rows)


def check_manifests(rundir: RunDir) -> dict[str, Any]:
    """Every stage is done, and counts what it dropped."""
    found: dict[str, Any] = {}
    for name in FOLDERS:
        manifest = rundir.manifest(name)
        assert manifest is not None
        found[name] = manifest.rows
        assert manifest.rows.kept > 0
    for name in ("corpus", "activations", "labels", "tables"):
        rows = found[name]
        assert rows.entered - rows.kept == sum(rows.dropped.values()), (name, rows)
    assert "unreadable" not in found["labels"].dropped
    return found


def check_rows(rundir: RunDir, kind: str, rows: dict[str, Any]) -> None:
    """Texts and tokens are whole. The toy has one marker: labels that hold it are counted."""
    table = read_table(rundir.need("activations"))
    texts, tokens = table["detokenized_text_truncated"].to_pylist(), table["token"].to_pylist()
    assert rows["activations"].kept == 180
    assert not any("\ufffd" in text for text in (*texts, *tokens))
    lost = rows["tables"].dropped["marker_in_label"]
    assert (kind == "japanese") == (lost > 0)
    contract = read_contract(table_sidecar(rundir.need("tables") / "av.parquet"))
    documents = read_table(rundir.need("corpus") / "corpus.parquet")["text"].to_pylist()
    whole = [text.removeprefix("<bos>") if kind == "parsed chats" else text for text in documents]
    assert all(any(one.startswith(text) for one in whole) for text in texts)
    assert contract.nlakit.special_tokens == ("parse" if kind == "parsed chats" else "text")
