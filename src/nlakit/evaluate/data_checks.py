"""Warnings about the data that no score shows: rows of evaluation that training has seen, and a
stored baseline that is not that of the vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nlakit.core.metrics import baseline
from nlakit.core.text.shingles import shingle_hashes
from nlakit.evaluate.bench import Bench

SEEN_SHARE = 0.5  # share of a source's shingles that occur in training sources
FEW = 0.02  # share of rows above which seen sources are a warning
BASELINE_OFF = 0.05  # relative


def check_data(bench: Bench) -> list[dict[str, Any]]:
    """Warnings `contaminated-split` and `wrong-baseline`, each with its evidence."""
    if bench.train is None or not len(bench.train):
        return []
    found = []
    documents = set(bench.documents) & set(bench.train.doc_ids)
    seen = seen_shares(bench.rows.sources, bench.train.sources)
    share = float(np.mean(seen > SEEN_SHARE))
    if documents or share > FEW:
        found.append(
            {
                "code": "contaminated-split",
                "message": f"{len(documents)} evaluated documents lie in the training rows at "
                f"hand, and {share:.0%} of the evaluated sources stand mostly in their sources",
                "evidence": {"documents": len(documents), "seen_share": share},
            }
        )
    stored = bench.ar.contract.nlakit.baseline if bench.ar is not None else None
    recomputed = baseline(bench.train.vectors, bench.mean)
    if stored is not None and abs(stored / recomputed - 1) > BASELINE_OFF:
        found.append(
            {
                "code": "wrong-baseline",
                "message": f"the stored FVE baseline {stored:.4f} is not that of the training "
                f"vectors at hand, {recomputed:.4f}: the pair was trained on others, or FVE "
                "against it does not compare",
                "evidence": {"stored": stored, "recomputed": recomputed},
            }
        )
    return found


def seen_shares(sources: Iterable[str], training: Iterable[str]) -> np.ndarray:
    """Share of each source's runs of eight words that stand in some training source: `(n,)`."""
    known = np.concatenate([np.empty(0, np.uint64), *map(shingle_hashes, training)])
    own = [np.isin(shingle_hashes(text), known) for text in sources]
    return np.array([float(one.mean()) if len(one) else 0.0 for one in own])
