"""Stage 03: which documents train the AV, the AR and the pair, and which test them.

03_split/split.parquet has doc_id, source_family, part (av, ar, rl, test), group; sorted by doc_id.

A group is a set of near duplicates. It goes to one part as a whole, so that no part has seen
what another is measured on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nlakit.config.sections import RunConfig, SplitConfig
from nlakit.data.corpus import largest_remainder, order_key
from nlakit.data.dedup import groups_of_near_duplicates
from nlakit.errors import DataError
from nlakit.run.folder import Rows, RunDir, atomic_path
from nlakit.run.progress import say, ticker
from nlakit.run.stage import stage

PARTS = ("av", "ar", "rl", "test")
# Lower than what the corpus drops: half a shared page is no duplicate, but it is a leak.
GROUP_SHARE = 0.2
LARGE_GROUP = 0.1
SCHEMA = pa.schema(
    [
        ("doc_id", pa.string()),
        ("source_family", pa.string()),
        ("part", pa.string()),
        ("group", pa.int32()),
    ]
)


@stage("split", parents=("corpus",), sections=("split", "seed"))
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Give every document of the corpus its part.

    Raises DataError if a part would be empty.
    """
    shares = normalised_shares(config.split)
    corpus = pq.read_table(rundir.need("corpus") / "corpus.parquet").sort_by("doc_id")
    doc_ids, families = corpus["doc_id"].to_pylist(), corpus["source_family"].to_pylist()
    with ticker("groups", len(doc_ids), "documents") as tick:
        texts = corpus["text"].to_pylist()
        groups = groups_of_near_duplicates(texts, GROUP_SHARE, tick.advance)
    largest = max(Counter(groups).values())
    if largest > LARGE_GROUP * len(doc_ids):
        say(
            f"the largest group of near duplicates has {largest} of {len(doc_ids)} documents; "
            "it stays in one part, so the shares are met only as far as it allows"
        )
    parts = assign_parts(doc_ids, families, groups, shares, config.seed)
    table = pa.table([doc_ids, families, parts, groups], schema=SCHEMA)
    check_disjoint(table)
    with atomic_path(folder / "split.parquet") as path:
        pq.write_table(table, path, compression="zstd")
    return Rows(entered=len(doc_ids), kept=len(doc_ids))


def normalised_shares(config: SplitConfig) -> dict[str, float]:
    """Share of each part that has one, summing to one; the configuration makes sure that one
    has."""
    shares = {part: float(getattr(config, part)) for part in PARTS}
    total = sum(shares.values())
    return {part: share / total for part, share in shares.items() if share > 0}


def assign_parts(
    doc_ids: Sequence[str],
    families: Sequence[str],
    groups: Sequence[int],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """Part of each document, whatever the order they are given in.

    Each family is dealt out by largest remainder, groups whole and large ones first. What one
    family leaves a part short of, the next ones make good, so that many small families still
    meet the shares together. A group of several families counts with the commonest.

    Raises DataError if a part stays empty.
    """
    members: defaultdict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    strata: defaultdict[str, list[list[int]]] = defaultdict(list)
    for rows in members.values():
        counts = Counter(families[row] for row in rows)
        strata[min(counts, key=lambda family: (-counts[family], family))].append(rows)

    def rank(rows: list[int]) -> tuple[int, bytes]:
        return -len(rows), min(order_key(seed, "split", doc_ids[row]) for row in rows)

    parts = [""] * len(doc_ids)
    owed = dict.fromkeys(shares, 0.0)
    for family in sorted(strata, key=lambda name: order_key(seed, "family", name)):
        total = sum(map(len, strata[family]))
        seats = largest_remainder(total, list(shares.values()), list(owed.values()))
        room = dict(zip(shares, seats, strict=True))
        for part, share in shares.items():
            owed[part] += total * share
        for rows in sorted(strata[family], key=rank):
            part = max(room, key=room.__getitem__)
            room[part] -= len(rows)
            owed[part] -= len(rows)
            for row in rows:
                parts[row] = part
    _refuse_empty(parts, shares, len(members))
    return parts


def _refuse_empty(parts: Sequence[str], shares: Mapping[str, float], groups: int) -> None:
    empty = [part for part in shares if part not in parts]
    if empty:
        raise DataError(
            f"the split leaves {' and '.join(empty)} without a document",
            found=f"{len(parts)} documents in {groups} groups of near duplicates",
            do="give more documents, or set the part's share to another value or to 0",
        )


def read_split(folder: Path) -> pa.Table:
    """The split of a finished stage, checked. Raises DataError if parts overlap."""
    path = folder / "split.parquet"
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"{path} cannot be read", found=str(error).splitlines()[0], do="use --redo split"
        ) from error
    check_disjoint(table)
    return table


def check_disjoint(parts: pa.Table) -> None:
    """Raise DataError if a document or a group of near duplicates is in two parts.

    `parts` has the columns doc_id, part and group. A split may be made by hand or by another tool;
    a test part that training has seen makes every score worthless.
    """
    missing = [name for name in ("doc_id", "part", "group") if name not in parts.column_names]
    if missing:
        raise DataError(
            f"the split has no column {', '.join(missing)}",
            found=", ".join(parts.column_names),
            do="write doc_id, part and group for each document",
        )
    names = parts["part"].to_pylist()
    unknown = sorted({str(name) for name in names} - set(PARTS))
    if unknown:
        raise DataError(
            "the split has an unknown part", found=", ".join(unknown), do="use av, ar, rl and test"
        )
    for column in ("doc_id", "group"):
        part_of: dict[object, str] = {}
        for value, name in zip(parts[column].to_pylist(), names, strict=True):
            if part_of.setdefault(value, name) != name:
                raise DataError(
                    f"the parts of the split overlap: {column} {value!r} is in two",
                    found=f"{part_of[value]} and {name}",
                    do="put all its documents into one part, or redo it with --redo split",
                )
