"""Stage 01: read the sources, drop what is empty, short or a duplicate, mix, write.

01_corpus/corpus.parquet has doc_id, source_family, text, and messages (JSON) if there are any;
01_corpus/families.json has the documents and characters of each family.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nlakit.config.sections import CorpusConfig, RunConfig
from nlakit.data.dedup import exact_key, near_duplicates
from nlakit.data.sources import Document, read_source, source_files
from nlakit.errors import DataError
from nlakit.files.text import as_json
from nlakit.run.folder import Rows, RunDir, atomic_path, atomic_write
from nlakit.run.inputs import Reads
from nlakit.run.progress import ticker
from nlakit.run.stage import stage

SCHEMA = pa.schema([("doc_id", pa.string()), ("source_family", pa.string()), ("text", pa.string())])
ROW_GROUP = 4096


def files_read(config: RunConfig) -> Reads:
    """The files of all sources."""
    found = {source.path: source_files(source) for source in config.corpus.sources}
    return {named: files for named, files in found.items() if files}


@stage("corpus", sections=("corpus", "seed"), outside=files_read)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write the documents all later stages draw from.

    Raises DataError for a source that cannot be read, an id that two documents have, or when no
    document is left.
    """
    dropped: Counter[str] = Counter()
    documents = _read(config.corpus, dropped)
    entered = sum(map(len, documents)) + dropped.total()
    documents = _without_near_duplicates(documents, config.corpus.near_duplicate_share, dropped)
    chosen = mix(documents, config.corpus, config.seed)
    dropped["over_max_documents"] = sum(map(len, documents)) - len(chosen)
    dropped = +dropped  # reasons that dropped nothing are left out
    if not chosen:
        raise DataError(
            "no document is left of the corpus",
            found=f"{entered} documents, dropped: "
            + ", ".join(f"{reason} {count}" for reason, count in sorted(dropped.items())),
            do="lower corpus.min_characters or give other corpus.sources",
        )
    _write(chosen, folder)
    return Rows(entered=entered, kept=len(chosen), dropped=dict(sorted(dropped.items())))


def _read(config: CorpusConfig, dropped: Counter[str]) -> list[list[Document]]:
    """Documents of each source, without empty, short and exactly repeated ones."""
    ids: dict[str, str] = {}
    texts: set[bytes] = set()
    documents: list[list[Document]] = []
    for source in config.sources:
        kept: list[Document] = []
        name = source.dataset or source.path
        for document in read_source(source):
            if document.doc_id in ids:
                raise DataError(
                    f"two documents have the id {document.doc_id!r}",
                    found=f"in {ids[document.doc_id]} and in {name}",
                    do="make the ids unique: rename a file, set id_column, or drop a source",
                )
            ids[document.doc_id] = name
            reason = _reason(document.text, config.min_characters, texts)
            if reason:
                dropped[reason] += 1
            else:
                kept.append(document)
        documents.append(kept)
    return documents


def _reason(text: str, min_characters: int, texts: set[bytes]) -> str | None:
    """Why a text is dropped, or None; a text that is not dropped is added to `texts`."""
    length = len(text.strip())
    if length == 0:
        return "empty"
    if length < min_characters:
        return "too_short"
    key = exact_key(text)
    if key in texts:
        return "exact_duplicate"
    texts.add(key)
    return None


def _without_near_duplicates(
    documents: list[list[Document]], share: float, dropped: Counter[str]
) -> list[list[Document]]:
    texts = [document.text for source in documents for document in source]
    with ticker("near duplicates", len(texts), "documents") as tick:
        originals = iter(near_duplicates(texts, share, tick.advance))
    kept = [[document for document in source if next(originals) is None] for source in documents]
    dropped["near_duplicate"] = len(texts) - sum(map(len, kept))
    return kept


def mix(documents: Sequence[Sequence[Document]], config: CorpusConfig, seed: int) -> list[Document]:
    """Documents of all sources in an order that depends only on their ids and the seed.

    With `max_documents`, each source gives seats in proportion to its weight; what a source
    cannot fill goes to the others.
    """
    available = [len(source) for source in documents]
    total = min(config.max_documents or sum(available), sum(available))
    seats = quotas(available, [source.weight for source in config.sources], total)

    def key(document: Document) -> bytes:
        return order_key(seed, "corpus", document.doc_id)

    chosen = [
        document
        for source, count in zip(documents, seats, strict=True)
        for document in sorted(source, key=key)[:count]
    ]
    return sorted(chosen, key=key)


def order_key(*parts: object) -> bytes:
    """16 bytes that order things as if at random, and the same on every machine."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).digest()


def quotas(available: Sequence[int], weights: Sequence[float], total: int) -> list[int]:
    """How many to take from each source, `total` in all, by weight and never above `available`."""
    taken = list(available)
    if total >= sum(available):
        return taken
    rest = list(range(len(available)))
    while True:
        seats = largest_remainder(total, [weights[i] for i in rest])
        full = {i for i, count in zip(rest, seats, strict=True) if count >= available[i]}
        if not full:
            break
        total -= sum(available[i] for i in full)
        rest = [i for i in rest if i not in full]
    for i, count in zip(rest, seats, strict=True):
        taken[i] = count
    return taken


def largest_remainder(
    total: int, weights: Sequence[float], owed: Sequence[float] | None = None
) -> list[int]:
    """Whole seats in proportion to `weights`, each within one of its exact quota.

    Seats left over go to the largest fractions, to which `owed` is added: what earlier
    distributions left each one short of.
    """
    if not weights:
        return []
    # Rounded, so that 0.29 * 100 is 29 and not 28 with a large fraction.
    exact = [round(total * weight / sum(weights), 9) for weight in weights]
    seats = [math.floor(quota) for quota in exact]
    claims = [
        quota - seat + extra
        for quota, seat, extra in zip(exact, seats, owed or [0.0] * len(seats), strict=True)
    ]
    order = sorted(range(len(seats)), key=lambda i: (-round(claims[i], 9), i))
    for i in order[: total - sum(seats)]:
        seats[i] += 1
    return seats


def _write(documents: Sequence[Document], folder: Path) -> None:
    schema = SCHEMA
    if any(document.messages for document in documents):
        schema = schema.append(pa.field("messages", pa.string()))
    columns = {name: [getattr(document, name) for document in documents] for name in schema.names}
    with atomic_path(folder / "corpus.parquet") as path:
        table = pa.table(columns, schema=schema)
        pq.write_table(table, path, compression="zstd", row_group_size=ROW_GROUP)
    families: dict[str, dict[str, int]] = {}
    for document in documents:
        family = families.setdefault(document.source_family, {"documents": 0, "characters": 0})
        family["documents"] += 1
        family["characters"] += len(document.text)
    text = as_json(dict(sorted(families.items())), indent=1)
    atomic_write(folder / "families.json", text + "\n")
