"""Content: does an explanation find the text of its own document among all held-out documents?

Asked of words (tf-idf) and of sentence embeddings, across all documents and inside the family of
each, so that naming the kind of text is not taken for naming what it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.retrieval import WITHIN, Ints, chance, deal, exchange_p, hits, of_others, own
from nlakit.evaluate.bench import Bench, Measured, Part, Values
from nlakit.evaluate.embedding import NOT_INSTALLED, embedder

SEEDS, ORDERS = 4, 250
MOST_DOCUMENTS, MOST_ROWS = 1000, 2000

Similar = Callable[[Sequence[str]], NDArray[Any]]
Texts = Sequence[str | None]


@dataclass(frozen=True)
class Pool:
    """c candidate documents with their texts and families, and the query rows `(m,)` with the
    candidate `(m,)` that is theirs."""

    sources: list[str]
    families: list[str]
    rows: Ints
    target: Ints


def measure(bench: Bench) -> Part:
    """The part `retrieval`: conditions `METHOD:explanation`, `METHOD:label` (positive control),
    `METHOD:shuffled` (floor: texts of other documents) and `chance`; measures of
    `nlakit.core.retrieval.hits`. With an AV `METHOD:no_injection`: what it writes without a vector.

    Raises ModelError if the embedding that the settings name cannot be loaded.
    """
    texts: dict[str, Texts] = {"explanation": bench.texts}
    if any(bench.rows.texts):
        texts["label"] = bench.rows.known_texts
    if bench.av is not None:
        texts["no_injection"] = [bench.uninjected] * len(bench)
    part = Part("retrieval", texts={name: list(found) for name, found in texts.items()})
    pool = _pool(bench, part)
    if pool is None:
        return part
    n, families = len(bench), pool.families
    by_chance = chance(families)
    for name, values in by_chance.items():
        part.measured.append(Measured(name, "chance", _spread(values[pool.target], pool.rows, n)))
    each = max(ORDERS, bench.settings.permutations // SEEDS)
    seeds = [[bench.seed, 31, seed] for seed in range(SEEDS)]
    orders = {
        inside: [deal(families if inside else None, len(families), each, seed) for seed in seeds]
        for inside in (False, True)
    }
    for method, similar in _methods(bench, pool, part).items():
        for name, found in texts.items():
            _add(part, f"{method}:{name}", found, similar, pool, orders)
    part.detail |= {"documents": len(families), "permutations": {"seeds": SEEDS, "each": each}}
    return part


def _pool(bench: Bench, part: Part) -> Pool | None:
    """The documents that can be found; None, with a note, if there are fewer than two."""
    rows = bench.rows
    sources: dict[str, list[str]] = {}
    family: dict[str, str] = {}
    for name, kind, source in zip(rows.doc_ids, rows.families, rows.sources, strict=True):
        family.setdefault(name, kind)
        if source.strip():
            sources.setdefault(name, []).append(source)
    if len(family) > len(sources):
        part.notes.append(f"{len(family) - len(sources)} documents have no source text to be found")
    names = list(sources)
    if len(names) > MOST_DOCUMENTS:
        drawn = np.random.default_rng([bench.seed, 30]).permutation(len(names))[:MOST_DOCUMENTS]
        names = [names[i] for i in np.sort(drawn)]
    place = {name: i for i, name in enumerate(names)}
    picked = [row for row, name in enumerate(rows.doc_ids) if name in place][:MOST_ROWS]
    if len(names) < 2:
        part.notes.append("retrieval needs the source texts of at least two documents")
        return None
    if len(names) < len(sources) or len(picked) == MOST_ROWS < len(rows):
        part.notes.append(
            f"a sample: {len(picked)} of {len(rows)} rows among {len(names)} of {len(sources)} "
            "documents"
        )
    kinds = [family[name] for name in names]
    sizes = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    part.detail["families"] = sizes
    alone = sum(size == 1 for size in sizes.values())
    if len(sizes) == 1:
        part.notes.append("all documents are of one family: routing cannot be told from content")
    elif alone:
        part.notes.append(f"{alone} families of one document have no value within their family")
    texts = [_document(sources[name]) for name in names]
    target = np.array([place[rows.doc_ids[row]] for row in picked])
    return Pool(texts, kinds, np.array(picked), target)


def _document(sources: Sequence[str]) -> str:
    """One text of a document: the sources of its rows, less those that lie in a longer one."""
    kept: list[str] = []
    for source in sorted(set(sources), key=lambda text: (-len(text), text)):
        if not any(source in longer for longer in kept):
            kept.append(source)
    return "\n".join(kept)


def _methods(bench: Bench, pool: Pool, part: Part) -> dict[str, Similar]:
    """Method → similarity `(m, c)` of m texts to the candidates."""
    made: dict[str, Similar] = {}
    if words := _tfidf(pool.sources):
        made["tfidf"] = words
    else:
        part.notes.append("the source texts hold no words: no tf-idf")
    if bench.settings.profile == "quick" and bench.settings.embedding is None:
        part.notes.append("retrieval by sentence embedding belongs to eval.profile: full")
        return made
    embed = embedder(bench.settings.embedding)
    if embed is None:
        part.notes.append(NOT_INSTALLED)
        return made
    candidates = embed(pool.sources)
    made["embedding"] = lambda texts: embed(texts) @ candidates.T
    part.detail["embedding"] = bench.settings.embedding or "all-MiniLM-L6-v2"
    return made


def _tfidf(sources: Sequence[str]) -> Similar | None:
    """Cosine of tf-idf weights of words and pairs of words, counted over the sources."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    try:
        candidates = counter.fit_transform(sources)
    except ValueError:  # an empty vocabulary
        return None
    return lambda texts: (counter.transform(texts) @ candidates.T).toarray()


def _add(
    part: Part,
    condition: str,
    texts: Texts,
    similar: Similar,
    pool: Pool,
    orders: Mapping[bool, Sequence[Ints]],
) -> None:
    """Every measure of texts, a text a row, and for explanations the floor beside it."""
    known = np.array([i for i, row in enumerate(pool.rows) if texts[row] is not None], dtype=int)
    if not known.size:
        part.notes.append(f"{condition}: no row has a text")
        return
    rows, target, n = pool.rows[known], pool.target[known], len(texts)
    found = hits(similar([texts[row] or "" for row in rows]), pool.families)
    method, _, name = condition.partition(":")
    floor = f"{method}:shuffled" if name == "explanation" else "chance"
    for measured, values in found.items():
        inside = measured.startswith(WITHIN)
        mine = own(values, target)
        p = None if np.isnan(mine).all() else exchange_p(values, target, orders[inside])
        part.measured.append(Measured(measured, condition, _spread(mine, rows, n), floor, p))
        if name == "explanation":
            others = of_others(values, target, pool.families if inside else None)
            part.measured.append(Measured(measured, floor, _spread(others, rows, n), "chance"))


def _spread(values: Values, rows: Ints, n: int) -> Values:
    spread = np.full(n, np.nan)
    spread[rows] = values
    return spread
