"""Is it progress or a private code? What is measured on held-out documents while RL runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import baseline, centred_cosine, fve_rows
from nlakit.core.retrieval import WITHIN, hits, own
from nlakit.core.statistics import derangement, paired_difference, ratio_rows
from nlakit.core.text.claims import Source, check
from nlakit.core.text.lists import repeated_items
from nlakit.core.text.stats import has_loop
from nlakit.core.text.transforms import paraphrase, sentence_shuffle
from nlakit.files.rows import TableRows
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.rl.reward import reconstructed

Values = NDArray[np.float64]
Rows = dict[str, Values]
# Ratios of two measures, row sums over row sums: how much of the centred cosine stays when the
# text is changed by rule.
RETENTION = {"shuffle_kept": "shuffle_centred", "paraphrase_kept": "paraphrase_centred"}
# What must not fall while the FVE rises.
CONTENT = ("shuffle_kept", "paraphrase_kept", "within_family", "unique", "claim_precision")


@dataclass(frozen=True)
class Change:
    """A measure now less the same at the start, with its interval over documents."""

    start: float
    now: float
    mean: float
    low: float
    high: float
    documents: int


class Instruments:
    """Measures of a pair on n held-out rows, a value a row: greedy texts as the pair writes them,
    read by the live AR and by the one before RL.

    `fve`, `frozen_fve`, `centred`, `frozen_centred`: of the text under the live and the frozen AR.
    `empty_centred`, `other_centred`: floors under the live AR. `shuffle_centred`,
    `paraphrase_centred`: of the changed text under the live AR. `within_family`: whether the words
    find the row's document among those of its family. `claim_precision`: share of quotes, numbers,
    names and words that the source has; both NaN for a row without a source. `unique`, `empty`,
    `loop`, `repeated` (list items that stand twice), `words`.
    """

    def __init__(
        self,
        av: Verbalizer,
        live: Reconstructor,
        frozen: Reconstructor,
        rows: TableRows,
        mean: NDArray[Any],
        batch: int,
        seed: int,
    ) -> None:
        self.av, self.live, self.frozen = av, live, frozen
        self.rows, self.mean, self.batch, self.seed = rows, mean, batch, seed
        self.base = baseline(rows.vectors, mean)
        self.partners = derangement(rows.doc_ids, seed)
        self.sources = [Source(text) for text in rows.sources]
        self.finds = finder(rows)
        self.texts: list[str] = []

    def measure(self) -> Rows:
        """Measure → value a row `(n,)`; the texts stay in `texts`."""
        self.av.eval()
        texts = self.texts = self.av.explain(self.rows.vectors, batch=self.batch)
        found = self._read(texts)
        copies = Counter(texts)
        checked = [
            check(text, source) if source.words else []
            for text, source in zip(texts, self.sources, strict=True)
        ]
        return found | {
            "within_family": self.finds(texts),
            "claim_precision": np.array(
                [np.mean([held for _, held in one]) if one else np.nan for one in checked]
            ),
            "unique": np.array([1 / copies[text] for text in texts]),
            "empty": np.array([float(not text.strip()) for text in texts]),
            "loop": np.array([float(has_loop(text)) for text in texts]),
            "repeated": np.array([repeated_items(text) for text in texts]),
            "words": np.array([float(len(text.split())) for text in texts]),
        }

    def _read(self, texts: Sequence[str]) -> Rows:
        rng = np.random.default_rng([self.seed, 71])
        changed = {
            "centred": list(texts),
            "shuffle_centred": [sentence_shuffle(text, rng) for text in texts],
            "paraphrase_centred": [paraphrase(text, rng) for text in texts],
            "empty_centred": [""] * len(texts),
            "other_centred": [texts[i] if i >= 0 else "" for i in self.partners],
        }
        real, found = self.rows.vectors, {}
        for name, some in changed.items():
            made = reconstructed(self.live, some)
            found[name] = centred_cosine(real, made, self.mean)
            if name == "centred":
                found["fve"] = fve_rows(real, made, self.base)
        made = reconstructed(self.frozen, texts)
        found["frozen_centred"] = centred_cosine(real, made, self.mean)
        found["frozen_fve"] = fve_rows(real, made, self.base)
        return found


def finder(rows: TableRows) -> Callable[[Sequence[str]], Values]:
    """Whether a text finds the source of its row's document among those of its family, by tf-idf
    of words: `(n,)`, NaN in a family of one document and without a source."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    longest: dict[str, str] = {}
    for name, source in zip(rows.doc_ids, rows.sources, strict=True):
        if source.strip():
            longest[name] = max(longest.get(name, ""), source, key=len)
    family = dict(zip(rows.doc_ids, rows.families, strict=True))
    names = list(longest)
    known = [row for row, name in enumerate(rows.doc_ids) if name in longest]
    target = np.array([names.index(rows.doc_ids[row]) for row in known])
    counter = TfidfVectorizer(sublinear_tf=True)
    try:
        candidates = counter.fit_transform(longest.values())
    except ValueError:  # no source holds a word
        return lambda texts: np.full(len(texts), np.nan)

    def found(texts: Sequence[str]) -> Values:
        scores = (counter.transform([texts[row] for row in known]) @ candidates.T).toarray()
        tops = hits(scores, [family[name] for name in names])[f"{WITHIN}top1"]
        values = np.full(len(texts), np.nan)
        values[known] = own(tops, target)
        return values

    return found


def summary(rows: Rows) -> dict[str, float]:
    """Means over the rows that have a value, and what is kept of the centred cosine."""
    known = {name: values[~np.isnan(values)] for name, values in rows.items()}
    means = {name: float(values.mean()) for name, values in known.items() if len(values)}
    return means | {name: ratio(rows[part], rows["centred"]) for name, part in RETENTION.items()}


def ratio(part: Values, whole: Values) -> float:
    """Σ part / Σ whole, NaN where the whole is not above 0."""
    total = float(whole.sum())
    return float(part.sum()) / total if total > 0 else float("nan")


def change(
    measure: str, start: Rows, now: Rows, documents: Sequence[str], looks: int = 1
) -> Change | None:
    """How a measure of the same rows changed since the start; None where it has no value.

    Rows are paired and documents drawn. looks: how often the change is looked at; the interval then
    holds at all of them together in 95% of cases (Bonferroni). A text that claims nothing more
    counts as 0 where that of the start claimed something.

    For a ratio each row stands for its value in `ratio_rows`.
    """
    first, second = (_values(measure, rows) for rows in (start, now))
    if measure == "claim_precision":
        second = np.where(np.isnan(second) & ~np.isnan(first), 0.0, second)
    known = np.flatnonzero(~np.isnan(first) & ~np.isnan(second))
    if not len(known):
        return None
    names = [documents[i] for i in known.tolist()]
    found = paired_difference(second[known], first[known], names, 1 - 0.05 / looks)
    before, after = (float(values[known].mean()) for values in (first, second))
    return Change(before, after, found.mean, found.low, found.high, found.documents)


def _values(measure: str, rows: Rows) -> Values:
    part = RETENTION.get(measure)
    if part is None:
        return rows[measure]
    whole = rows["centred"]
    return ratio_rows(rows[part], whole) if whole.sum() > 0 else np.full(len(whole), np.nan)
