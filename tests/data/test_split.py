"""The split: shares met, groups whole, parts disjoint, and edited splits refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.config.load import parse_config
from nlakit.config.sections import SplitConfig
from nlakit.data import corpus, split
from nlakit.data.split import assign_parts, check_disjoint, normalised_shares, read_split
from nlakit.errors import DataError, RunError
from nlakit.run.folder import RunDir

SHARES = normalised_shares(SplitConfig())


def assign(families: list[str], groups: list[int] | None = None, seed: int = 0) -> list[str]:
    ids = [f"d{i}" for i in range(len(families))]
    return assign_parts(ids, families, groups or list(range(len(ids))), SHARES, seed)


def text(seed: int, length: int = 30) -> str:
    return " ".join(f"word{seed}n{i}" for i in range(length))


def run_of(tmp_path: Path, texts: list[str], **shares: float) -> RunDir:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": value}) + "\n" for value in texts))
    section = {"sources": [{"path": str(path)}], "min_characters": 20}
    config = parse_config({"name": "t", "corpus": section, "split": shares})
    rundir = RunDir.create(tmp_path / "run", config)
    corpus.run(config, rundir)
    split.run(config, rundir)
    return rundir


def test_shares_are_normalised() -> None:
    assert pytest.approx({"av": 0.4, "ar": 0.4, "rl": 0.08, "test": 0.12}) == SHARES
    assert normalised_shares(SplitConfig(av=1, ar=0.5, rl=0, test=0.5)) == {
        "av": 0.5,
        "ar": 0.25,
        "test": 0.25,
    }


def test_each_family_is_split_by_hand() -> None:
    families = ["x"] * 100 + ["y"] * 25
    parts = assign(families)
    assert Counter(parts[:100]) == {"av": 40, "ar": 40, "rl": 8, "test": 12}
    assert Counter(parts[100:]) == {"av": 10, "ar": 10, "rl": 2, "test": 3}


def test_families_of_one_document_meet_the_shares_together() -> None:
    parts = assign([f"family{i}" for i in range(100)])
    assert Counter(parts) == {"av": 40, "ar": 40, "rl": 8, "test": 12}


def test_a_large_group_stays_whole() -> None:
    groups = [0] * 30 + list(range(1, 71))
    parts = assign(["x"] * 100, groups)
    assert len(set(parts[:30])) == 1
    assert Counter(parts) == {"av": 40, "ar": 40, "rl": 8, "test": 12}


def test_seed_changes_the_parts() -> None:
    assert assign(["x"] * 50, seed=0) != assign(["x"] * 50, seed=1)


documents = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 40)), min_size=60, max_size=120
)


@given(documents, st.integers(0, 3), st.randoms())
def test_parts_do_not_depend_on_order(rows: list[tuple[str, int]], seed: int, random) -> None:
    named = [(f"d{i}", family, group) for i, (family, group) in enumerate(rows)]
    shuffled = random.sample(named, len(named))
    found = []
    for order in (named, shuffled):
        ids, families, groups = (list(column) for column in zip(*order, strict=True))
        try:
            parts = assign_parts(ids, families, groups, SHARES, seed)
        except DataError as error:
            found.append(str(error))
            continue
        found.append(dict(zip(ids, parts, strict=True)))
        check_disjoint(pa.table({"doc_id": ids, "part": parts, "group": groups}))
    assert found[0] == found[1]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_families_and_the_whole_are_near_the_shares(sizes: list[int]) -> None:
    families = [f"f{k}" for k, size in enumerate(sizes) for _ in range(size)]
    try:
        parts = assign(families)
    except DataError:
        assert len(families) < 40
        return
    counts = Counter(zip(families, parts, strict=True))
    for k, size in enumerate(sizes):
        for part, share in SHARES.items():
            assert abs(counts[f"f{k}", part] - size * share) < 1 + 1e-6


def test_too_few_documents() -> None:
    with pytest.raises(DataError, match="leaves rl without.*3 documents in 3 groups"):
        assign(["x"] * 3)
    with pytest.raises(DataError, match="100 documents in 1 groups"):
        assign(["x"] * 100, [0] * 100)


def test_stage_keeps_overlapping_documents_together(tmp_path: Path) -> None:
    # Each pair shares 8 of 23 shingles: too little to be dropped, too much to be parted.
    texts = [text(i) for i in range(40)]
    texts += [" ".join(text(i).split()[15:]) + " " + text(100 + i, 15) for i in range(40)]
    rundir = run_of(tmp_path, texts)
    table = read_split(rundir.folder("split"))
    rows = {row["doc_id"]: row for row in table.to_pylist()}
    assert len(rows) == 80 and len({row["group"] for row in rows.values()}) == 40
    for i in range(40):
        left, right = rows[f"a-{i:07d}"], rows[f"a-{i + 40:07d}"]
        assert (left["part"], left["group"]) == (right["part"], right["group"])
    assert Counter(table["part"].to_pylist()) == {"av": 32, "ar": 32, "rl": 6, "test": 10}


def test_a_part_without_a_share_stays_empty(tmp_path: Path) -> None:
    rundir = run_of(tmp_path, [text(i) for i in range(20)], rl=0, test=0.2, av=0.4, ar=0.4)
    parts = Counter(read_split(rundir.folder("split"))["part"].to_pylist())
    assert parts == {"av": 8, "ar": 8, "test": 4}


def test_split_needs_the_corpus(tmp_path: Path) -> None:
    config = parse_config({"name": "t"})
    with pytest.raises(RunError, match="stage corpus is not finished"):
        split.run(config, RunDir.create(tmp_path / "run", config))


def edited(**changes: list) -> pa.Table:
    columns = {"doc_id": ["a", "b", "c"], "part": ["av", "ar", "test"], "group": [0, 1, 2]}
    return pa.table({**columns, **changes})


def test_failure_mode_8_contamination_is_refused(tmp_path: Path) -> None:
    check_disjoint(edited())
    with pytest.raises(DataError, match="doc_id 'a' is in two; found: av and test"):
        check_disjoint(edited(doc_id=["a", "b", "a"]))
    with pytest.raises(DataError, match="group 1 is in two; found: ar and test"):
        check_disjoint(edited(group=[0, 1, 1]))
    with pytest.raises(DataError, match="unknown part; found: train"):
        check_disjoint(edited(part=["av", "ar", "train"]))
    with pytest.raises(DataError, match="no column group"):
        check_disjoint(edited().drop_columns(["group"]))
    pq.write_table(edited(group=[0, 0, 2]), tmp_path / "split.parquet")
    with pytest.raises(DataError, match="overlap"):
        read_split(tmp_path)
    (tmp_path / "split.parquet").write_text("PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        read_split(tmp_path)
