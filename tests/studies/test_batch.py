"""A table explained in parts: every row once, whatever ends the process, and nothing mixed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nlakit import NLA
from nlakit.errors import ConfigError, ContractError, DataError, RunError
from nlakit.files.parquet import VECTOR, read_table, vector_array
from nlakit.run.folder import RunDir
from nlakit.studies import batch
from nlakit.studies.batch import explain_table
from tests.commands import call
from tests.conftest import D
from tests.pairs import save_pair

ROWS = 26


@pytest.fixture(scope="module")
def pair(toy_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(toy_folder("gemma3"), tmp_path_factory.mktemp("pair"))


def vectors_of(rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, D)) + 1.5).astype(np.float32) * 20


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two files with ids: one of fixed lists, one of variable ones with three unfit rows."""
    folder = tmp_path / "in"
    folder.mkdir()
    first, second = vectors_of(16), vectors_of(10, 1)
    table = pa.table({"id": [f"a{i}" for i in range(16)], VECTOR: vector_array(first)})
    pq.write_table(table, folder / "a.parquet", row_group_size=5)
    second[2, 3], second[5] = np.nan, 0
    rows = [None if i == 7 else row.tolist() for i, row in enumerate(second)]
    table = pa.table({"id": [f"b{i}" for i in range(10)], VECTOR: rows})
    pq.write_table(table, folder / "b.parquet", row_group_size=3)
    return folder


def read(out: Path) -> list[dict[str, Any]]:
    return read_table(out).to_pylist()


def test_every_row_once_with_what_it_came_with(pair: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = explain_table(pair, source, out, rows=6, batch=4, device="cpu")
    found = read(out)
    assert [row["id"] for row in found] == [f"a{i}" for i in range(16)] + [
        f"b{i}" for i in range(10)
    ]
    assert [(row["source_file"], row["source_row"]) for row in found][15:18] == [
        ("a.parquet", 15), ("b.parquet", 0), ("b.parquet", 1)
    ]  # fmt: skip
    assert VECTOR not in found[0]
    nla = NLA.load(pair, device="cpu")
    alone = nla.explain(vectors_of(16))
    assert [row["explanation"] for row in found[:16]] == [one.explanation for one in alone]
    for name in ("cosine", "centred_cosine", "fve", "floor"):
        np.testing.assert_allclose(
            [row[name] for row in found[:16]], [getattr(one, name) for one in alone], atol=1e-5
        )
    unfit = {row["id"]: row["problem"] for row in found if row["problem"]}
    assert unfit == {"b2": "not finite", "b5": "zero", "b7": "null"}
    assert all(row["explanation"] is None and row["cosine"] is None
               for row in found if row["problem"])  # fmt: skip
    assert made.rows.model_dump() == {
        "entered": 26, "kept": 23, "dropped": {"not finite": 1, "null": 1, "zero": 1}
    }  # fmt: skip
    assert len(list(out.glob("*.parquet"))) == 3 + 2


def test_a_finished_folder_is_left_as_it_is(
    pair: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    made = explain_table(pair, source, out, rows=6, score=False, device="cpu")
    assert "cosine" not in read(out)[0]
    monkeypatch.setattr(batch, "_loaded", None)  # it would be called
    assert explain_table(pair, source, out, rows=6, score=False, device="cpu") == made


def test_a_lost_or_cut_part_is_made_again(pair: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = explain_table(pair, source, out, rows=6, device="cpu")
    (out / "part-000001.parquet").unlink()
    part = out / "part-000003.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    after = explain_table(pair, source, out, rows=6, device="cpu")
    assert (after.files, after.rows) == (before.files, before.rows)


def test_vectors_alone_are_enough(pair: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({VECTOR: vector_array(vectors_of(3))}), tmp_path / "v.parquet")
    explain_table(pair, tmp_path / "v.parquet", tmp_path / "out", score=False, device="cpu")
    assert list(read(tmp_path / "out")[2]) == [
        "source_file", "source_row", "explanation", "problem", "l2_norm"
    ]  # fmt: skip


class Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [0, 1, 4])
def test_what_stops_it_costs_one_part(
    pair: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole = explain_table(pair, source, tmp_path / "whole", rows=6, device="cpu")
    write, written = batch.write_table, []

    def dying(path: Path, table: pa.Table) -> None:
        if len(written) == at:
            path.with_name(f".{path.name}.tmp-1").write_bytes(b"half of a file")
            raise Killed
        written.append(path)
        write(path, table)

    out = tmp_path / "out"
    monkeypatch.setattr(batch, "write_table", dying)
    with pytest.raises(Killed):
        explain_table(pair, source, out, rows=6, device="cpu")
    monkeypatch.setattr(batch, "write_table", write)
    assert len(list(out.glob("*.parquet"))) == at
    again = explain_table(pair, source, out, rows=6, device="cpu")
    parts = {name: one for name, one in again.files.items() if name.endswith(".parquet")}
    assert parts == {name: one for name, one in whole.files.items() if name in parts}
    assert not list(out.glob(".*.tmp-*"))


@pytest.fixture
def begun(pair: Path, source: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    explain_table(pair, source, out, rows=6, device="cpu")
    (out / "manifest.json").unlink()
    return out


def test_another_pair_is_refused(
    pair: Path, source: Path, begun: Path, tmp_path: Path, toy_folder: Callable[[str], Path]
) -> None:
    other = save_pair(toy_folder("gemma3"), tmp_path / "other", seed=5)
    with pytest.raises(RunError, match="with another pair, .* found: pair: "):
        explain_table(other, source, begun, rows=6, device="cpu")
    shutil.copytree(pair, tmp_path / "moved")
    assert explain_table(tmp_path / "moved", source, begun, rows=6, device="cpu").rows.kept == 23


def test_other_settings_and_vectors_are_refused(
    pair: Path, source: Path, begun: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match="found: score: True -> False"):
        explain_table(pair, source, begun, rows=6, score=False, device="cpu")
    with pytest.raises(RunError, match="found: rows: 6 -> 7"):
        explain_table(pair, source, begun, rows=7, device="cpu")
    (begun / "part-000000.parquet").unlink()
    record = json.loads((begun / "begin.json").read_text())
    record["config"]["precision"] = "bfloat16"  # as on a machine that had no other
    record["config_hash"] = batch._sha256(record["config"])
    (begun / "begin.json").write_text(json.dumps(record))
    with pytest.raises(RunError, match="begun in another number format; found: float32, now bf"):
        explain_table(pair, source, begun, rows=6, device="cpu", precision="bfloat16")


def test_changed_input_is_refused(pair: Path, source: Path, begun: Path) -> None:
    shutil.copyfile(source / "a.parquet", source / "c.parquet")
    with pytest.raises(RunError, match=r"c\.parquet is new"):
        explain_table(pair, source, begun, rows=6, device="cpu")
    (source / "c.parquet").unlink()
    pq.write_table(pa.table({"id": ["x"], VECTOR: vector_array(vectors_of(1))}),
                   source / "a.parquet")  # fmt: skip
    with pytest.raises(RunError, match=r"a\.parquet was changed after it was read"):
        explain_table(pair, source, begun, rows=6, device="cpu")


def test_what_cannot_be_explained_is_refused_before_a_model_is_loaded(
    pair: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_loaded", None)
    out, file = tmp_path / "out", tmp_path / "x.parquet"

    def asked(where: Path = out, **columns: Any) -> None:
        pq.write_table(pa.table(columns), file)
        explain_table(pair, file, where)

    with pytest.raises(DataError, match=r"x\.parquet has no column activation_vector; found: id"):
        asked(id=["a"])
    with pytest.raises(DataError, match="has a column 'explanation'"):
        asked(explanation=["a"], activation_vector=vector_array(vectors_of(1)))
    with pytest.raises(ContractError, match="found: 7 instead of 32"):
        asked(activation_vector=vector_array(np.ones((1, 7))))
    with pytest.raises(DataError, match="has no vectors; found: 0 rows"):
        asked(activation_vector=vector_array(np.ones((0, D))))
    with pytest.raises(RunError, match="holds something else"):
        asked(source, activation_vector=vector_array(vectors_of(1)))
    with pytest.raises(ConfigError, match="among the vectors"):
        explain_table(pair, source, source)
    with pytest.raises(ContractError, match="holds no AV"):
        explain_table(pair / "ar", source, out)
    assert not out.exists()


def test_a_second_process_is_refused(pair: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with RunDir(out).lock(), pytest.raises(RunError, match="in use by another process"):
        explain_table(pair, source, out, device="cpu")


def test_the_command_says_what_it_made(pair: Path, source: Path, tmp_path: Path) -> None:
    words = ("explain", str(pair), "--vectors", str(source), "--out", str(tmp_path / "out"))
    said = call(*words, "--device", "cpu", "--no-score")
    assert (said.code, said.crash) == (0, "")
    assert "23 of 26 rows explained" in said.out
    assert "without an explanation: 1 not finite, 1 null, 1 zero" in said.out
    assert call("explain", str(pair), "text", "--out", str(tmp_path / "o")).code == 2


def finished(out: Path, process: subprocess.Popen[bytes]) -> Iterator[int]:
    """How many parts there are, for as long as a process lives."""
    while process.poll() is None:
        yield len(list(out.glob("part-*.parquet")))
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_twice_and_resumed_every_row_is_there_once(
    pair: Path, source: Path, tmp_path: Path
) -> None:
    whole = explain_table(pair, source, tmp_path / "whole", rows=2, batch=2, device="cpu")
    out = tmp_path / "out"
    code = "import sys; from pathlib import Path; from nlakit.studies.batch import explain_table; "
    code += "a, b, c = sys.argv[1:]; "
    code += "explain_table(a, Path(b), Path(c), rows=2, batch=2, device='cpu')"
    command = [sys.executable, "-c", code, str(pair), str(source), str(out)]
    for parts in (2, 6):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for there in finished(out, process):
            if there >= parts:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    assert len(list(out.glob("part-*.parquet"))) < 13
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert batch._manifest(out).files["part-000012.parquet"] == whole.files["part-000012.parquet"]
    assert read(out) == read(tmp_path / "whole")
