"""Explain the vectors of a large table: Parquet in, Parquet out, a chunk at a time.

The folder that is written holds `part-NNNNNN.parquet`, one a chunk of input rows, `begin.json` (of
which pair and under which settings), `.inputs.json` (of which files) and, once every row is there,
`manifest.json`. A part appears whole or not at all, so that a process killed at any moment loses
the chunk that it was at, and whoever goes on makes no row twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from nlakit.core.contract import read_contract
from nlakit.errors import ConfigError, ContractError, DataError, RunError, first_line
from nlakit.files.parquet import VECTOR, matrix, parquet_files, vector_width, write_table
from nlakit.files.places import check_folder
from nlakit.files.shards import Chunk, chunks_of, read_chunks, rows_of, schema_of
from nlakit.models.foreign.folders import find_halves
from nlakit.run.folder import (
    Manifest,
    Rows,
    RunDir,
    atomic_write,
    device_used,
    git_commit,
    library_versions,
    sha256_once,
)
from nlakit.run.inputs import FILE as INPUTS
from nlakit.run.inputs import MODEL_ENDINGS, changed_inputs, write_inputs
from nlakit.run.peak import peak_memory
from nlakit.run.progress import ticker
from nlakit.run.stage import changes, file_records

if TYPE_CHECKING:
    from nlakit.models.nla import NLA

STAGE = "explain"
ROWS = 1000  # of a chunk: what a kill costs at most
PLACE: dict[str, pa.DataType] = {"source_file": pa.string(), "source_row": pa.int64()}
TEXT: dict[str, pa.DataType] = {
    "explanation": pa.string(), "problem": pa.string(), "l2_norm": pa.float64()
}  # fmt: skip
SCORES = dict.fromkeys(("cosine", "centred_cosine", "fve", "mse", "floor"), pa.float64())


def explain_table(
    pair: str | Path | Sequence[str | Path],
    source: Path,
    out: Path,
    *,
    score: bool = True,
    batch: int = 32,
    rows: int = ROWS,
    **loading: Any,
) -> Manifest:
    """Explain the column `activation_vector` of a Parquet file, or of a folder of them.

    pair, loading: as `NLA.load` takes them. Parts keep the other columns and add where each row
    comes from, its explanation and, with `score`, its scores and their floor. A vector that is
    null, not finite or zero has no explanation, a word in `problem`, and is counted.
    Memory is that of the models and of `rows` rows. Called again, it goes on where it stopped.

    Raises DataError for a file that holds no vectors or already has a column of these names,
    ContractError for another width or a pair without an AV, RunError if the folder was begun with
    another pair, other settings or other input, or another process writes it.
    """
    halves = find_halves(pair)
    if "av" not in halves:
        raise ContractError(f"{pair} holds no AV", do="load a pair, or the AV's folder")
    files = [file.absolute() for file in parquet_files(source)]
    _check_columns(files, halves["av"], score)
    _check_place(out, source)
    chunks = chunks_of(files, rows)
    if not chunks:
        raise DataError(f"{source} has no vectors", found="0 rows", do="give a table with rows")
    asked = {"score": score, "batch": batch, "rows": rows}
    asked |= {name: value for name, value in loading.items() if value is not None}
    asked.pop("device", None)
    with RunDir(out).lock():
        begin = _begin_record({"pair": pair_sha256(halves), **asked})
        _refuse_changes(out, begin, files)
        todo = [one for one in chunks if rows_of(out / part_name(one)) != one.rows]
        if not todo and (out / "manifest.json").exists():
            return _manifest(out)
        for leftover in out.glob(".*.tmp-*"):  # of a process that was killed while it wrote
            leftover.unlink()
        started = time.monotonic()
        with peak_memory() as peak:
            nla = _loaded(halves, score, loading)
            _begin(out, begin | {"precision": nla.subject.config.precision}, files)
            _explain_chunks(nla, chunks, todo, out, batch, score)
        return _finish(out, begin, chunks, started, peak, nla)


def part_name(chunk: Chunk) -> str:
    return f"part-{chunk.index:06d}.parquet"


def pair_sha256(halves: Mapping[str, Path]) -> str:
    """Hash of the files of a pair's halves, by role: weights, settings, tokenizer, contract."""
    endings = (*MODEL_ENDINGS, ".yaml", ".pt")
    found = {
        f"{role}/{file.name}": sha256_once(file)
        for role, folder in halves.items()
        for file in folder.iterdir()
        if file.is_file() and file.suffix in endings
    }
    return _sha256(found)


def _sha256(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


def _check_columns(files: Sequence[Path], av: Path, score: bool) -> None:
    """Every file has vectors of the pair's width, and no column that the parts are given."""
    contract = read_contract(av)
    made = {*PLACE, *TEXT, *(SCORES if score else ())}
    for file in files:
        schema = schema_of(file)
        if VECTOR not in schema.names:
            raise DataError(
                f"{file} has no column {VECTOR}",
                found=", ".join(schema.names),
                do="name the column of the vectors so",
            )
        if (width := vector_width(schema.field(VECTOR).type)) is not None:
            contract.check_width(width, str(file))
        if taken := [name for name in schema.names if name in made]:
            raise DataError(
                f"{file} has a column {taken[0]!r}, which the explanations would write",
                do="rename it, or leave it out",
            )


def _check_place(out: Path, source: Path) -> None:
    """The folder is new, or was begun by this function."""
    if out.absolute() == source.absolute():
        raise ConfigError(
            "the explanations would lie among the vectors", found=out, do="give another folder"
        )
    check_folder(out)
    if not (out / "begin.json").exists() and any(out.glob("[!.]*")):
        raise RunError(
            f"{out} holds something else than explanations of vectors",
            found="files but no begin.json",
            do="give a new folder",
        )


def _begin_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stage": STAGE, "config_hash": _sha256(settings), "config": settings, "parents": {}
    }  # fmt: skip


def _refuse_changes(out: Path, begin: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Raise RunError unless the folder is new or was begun under the same settings and input."""
    if (then := _begun(out)) is None:
        return
    if lines := changes(begin, then) + changed_inputs(out, {STAGE: files}):
        raise RunError(
            f"{out} was begun with another pair, other settings or other vectors",
            found=" | ".join(lines),
            do="go on with what it was begun with, or give a new folder",
        )


def _begun(out: Path) -> dict[str, Any] | None:
    path = out / "begin.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read", found=first_line(error), do="give a new folder"
        ) from error


def _begin(out: Path, begin: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Record what is explained by what. Raises RunError if an earlier sitting ran in another
    number format, in which the same pair may write other texts."""
    if (then := _begun(out)) is None:
        write_inputs(out, {STAGE: files})
        atomic_write(out / "begin.json", json.dumps(begin, indent=1) + "\n")
    elif then["precision"] != begin["precision"]:
        raise RunError(
            f"{out} was begun in another number format",
            found=f"{then['precision']}, now {begin['precision']}",
            do=f"add --precision {then['precision']}, or give a new folder",
        )


def _loaded(halves: Mapping[str, Path], score: bool, loading: Mapping[str, Any]) -> NLA:
    """The pair; the AV alone where nothing is scored."""
    from nlakit.models.nla import NLA

    return NLA.load(list(halves.values()) if score else halves["av"], **loading)


def _explain_chunks(
    nla: NLA,
    chunks: Sequence[Chunk],
    todo: Sequence[Chunk],
    out: Path,
    batch: int,
    score: bool,
) -> None:
    total, left = (sum(one.rows for one in some) for some in (chunks, todo))
    with ticker(STAGE, total, "rows") as progress:
        progress.skip(total - left)
        for _, of_file in groupby(todo, key=lambda one: one.file):
            for chunk, table in read_chunks(list(of_file)):
                made = _explained(nla, chunk, table, batch, score, progress)
                write_table(out / part_name(chunk), made)


def _explained(
    nla: NLA, chunk: Chunk, table: pa.Table, batch: int, score: bool, progress: Any
) -> pa.Table:
    """The rows of a chunk without their vectors, with what was made of these."""
    problems, vectors = _usable(table)
    known = np.flatnonzero([problem is None for problem in problems])
    found: list[dict[str, Any]] = []
    for start in range(0, len(known), batch):
        explained = nla.explain(vectors[known[start : start + batch]], batch=batch)
        found += [asdict(one) for one in explained]
        progress.advance(len(explained))
    progress.advance(table.num_rows - len(known))
    names = {**TEXT, **(SCORES if score else {})}
    columns: dict[str, Any] = {
        "source_file": [chunk.file.name] * table.num_rows,
        "source_row": range(chunk.start, chunk.start + table.num_rows),
    }
    for name in names:
        values = np.full(table.num_rows, None, dtype=object)
        values[known] = [one.get(name) for one in found]
        columns[name] = problems if name == "problem" else values
    kept = {name: table[name] for name in table.column_names if name != VECTOR}
    kinds = {**PLACE, **names}
    return pa.table({**kept, **{n: pa.array(list(columns[n]), kinds[n]) for n in kinds}})


def _usable(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """What is wrong with each row's vector, None where nothing is, and the vectors `(n, d)`, with
    zeros in the place of those that are null."""
    there = table[VECTOR].is_valid().to_numpy()
    problems = np.full(table.num_rows, None, dtype=object)
    problems[~there] = "null"
    if not there.any():
        return problems, np.zeros((table.num_rows, 0), dtype=np.float32)
    given = matrix(table.filter(there))
    vectors = np.zeros((table.num_rows, given.shape[1]), dtype=np.float32)
    vectors[there] = given
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    problems[there & ~np.isfinite(norms)] = "not finite"
    problems[there & (norms == 0)] = "zero"
    return problems, vectors


def _finish(
    out: Path,
    begin: Mapping[str, Any],
    chunks: Sequence[Chunk],
    started: float,
    peak: Mapping[str, int],
    nla: NLA,
) -> Manifest:
    inputs = json.loads((out / INPUTS).read_text(encoding="utf-8"))
    parents = {
        "pair": begin["config"]["pair"],
        "input": _sha256([[Path(one["path"]).name, one["sha256"]] for one in inputs]),
    }
    entered, dropped = sum(one.rows for one in chunks), dict(_problems(out, chunks))
    manifest = Manifest(
        stage=STAGE,
        config_hash=begin["config_hash"],
        parents=parents,
        files=file_records(out),
        rows=Rows(entered=entered, kept=entered - sum(dropped.values()), dropped=dropped),
        seconds=round(time.monotonic() - started, 2),
        peak_bytes=dict(peak),
        device=device_used(str(nla.subject.device)),
        versions=library_versions(),
        git_commit=git_commit(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    atomic_write(out / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest


def _problems(out: Path, chunks: Sequence[Chunk]) -> Iterator[tuple[str, int]]:
    """How many rows have each problem."""
    import pyarrow.parquet as pq

    counts: dict[str, int] = {}
    for chunk in chunks:
        words = pq.read_table(out / part_name(chunk), columns=["problem"])["problem"]
        for word in words.drop_null().to_pylist():
            counts[word] = counts.get(word, 0) + 1
    yield from sorted(counts.items())


def _manifest(out: Path) -> Manifest:
    """The manifest of a finished folder. Raises RunError if it cannot be read."""
    path = out / "manifest.json"
    try:
        return Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{path} cannot be read",
            found=first_line(error),
            do="delete it: finished parts stay, and the same command writes it again",
        ) from error
