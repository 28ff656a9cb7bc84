"""What every part of the evaluation is given, and what it gives back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from nlakit.config.sections import EvalConfig
from nlakit.core.metrics import baseline
from nlakit.evaluate.scoring import row_scores
from nlakit.files.rows import TableRows
from nlakit.files.text import as_json

if TYPE_CHECKING:  # an audit of a table needs no torch
    from nlakit.models.reconstructor import Reconstructor
    from nlakit.models.verbalizer import Verbalizer

Values = NDArray[np.float64]
Answer = TypeVar("Answer", bound=BaseModel)


class Judge(Protocol):
    """A language model that answers in a given form. A row it fails on is None: counted, never
    scored."""

    def ask(self, prompts: Sequence[str], form: type[Answer]) -> list[Answer | None]:
        """One answer a prompt, in their order."""
        ...


@dataclass(frozen=True)
class Measured:
    """One measure under one condition: a value a row `(n,)`, NaN where the row has none.

    floor: the condition of the same part and measure that has not read what this one has; the
    gain over it is taken row by row. p: of a permutation test, where one was made.
    """

    measure: str
    condition: str
    values: Values
    floor: str | None = None
    p: float | None = None


@dataclass
class Part:
    """What one part of the evaluation found. Texts are whole, a text a row; notes say what could
    not be said and why, and count failures; detail is JSON for the report."""

    name: str
    measured: list[Measured] = field(default_factory=list)
    texts: dict[str, list[str | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)

    def of(self, measure: str, condition: str) -> Values:
        """Values of one measure under one condition; KeyError if it was not measured."""
        for one in self.measured:
            if (one.measure, one.condition) == (measure, condition):
                return one.values
        raise KeyError((self.name, measure, condition))

    def add(self, condition: str, scores: dict[str, Values], floor: str | None = None) -> None:
        """Every measure of `scores` under one condition."""
        self.measured += [
            Measured(name, condition, values, floor) for name, values in scores.items()
        ]

    def dump(self) -> str:
        """As JSON; NaN as null."""
        data = dict(vars(self))
        data["measured"] = [
            {**vars(one), "values": [None if np.isnan(v) else float(v) for v in one.values]}
            for one in self.measured
        ]
        return as_json(data, indent=1) + "\n"

    @classmethod
    def parse(cls, text: str) -> Part:
        """What `dump` wrote."""
        data = json.loads(text)
        data["measured"] = [
            Measured(**{**one, "values": np.array(one["values"], dtype=np.float64)})
            for one in data["measured"]
        ]
        return cls(**data)


@dataclass(frozen=True)
class AtLayers:
    """Rows of a bench at other layers of the subject.

    kept: indices of the m rows that could be read there. vectors: layer → raw `(m, d)`. means:
    layer → its own ū `(d,)`. notes: where these come from, and what could not be read.
    """

    kept: list[int]
    vectors: dict[int, NDArray[np.float32]]
    means: dict[int, NDArray[Any]]
    notes: list[str]


@dataclass(frozen=True)
class Bench:
    """A pair on n held-out rows. Either half may be absent; `texts` are the explanations that are
    judged, a text a row, empty ones included.

    mean: ū `(d,)`. train: rows the halves may have learnt from, for baselines; None if they are
    not at hand. folder: where a part may keep work that a restart should not lose. at_layers: reads
    the rows at the layers of the settings.
    """

    rows: TableRows
    texts: list[str]
    mean: NDArray[Any]
    settings: EvalConfig
    seed: int
    folder: Path
    av: Verbalizer | None = None
    ar: Reconstructor | None = None
    train: TableRows | None = None
    judge: Judge | None = None
    at_layers: Callable[[], AtLayers] | None = None
    _made: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def documents(self) -> list[str]:
        return self.rows.doc_ids

    @property
    def base(self) -> float:
        """E‖u − ū‖² over the rows: the denominator of every FVE here."""
        return baseline(self.rows.vectors, self.mean)

    @cached_property
    def uninjected(self) -> str:
        """What the AV writes when the marker's own embedding stays in its place."""
        assert self.av is not None, "the part checks that there is an AV"
        return self.av.write(None, 1, 1, self.av.decoding())[0]

    def forget(self) -> None:
        """Drop the reconstructions that are remembered."""
        self._made.clear()

    def reconstruct(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Reconstructions `(n, d)` by the AR; a text is read once however often it is asked for."""
        assert self.ar is not None, "the part checks that there is an AR"
        new = [text for text in dict.fromkeys(texts) if text not in self._made]
        if new:
            self._made.update(zip(new, self.ar.reconstruct(new), strict=True))
        return np.stack([self._made[text] for text in texts])

    def score(self, texts: Sequence[str | None]) -> dict[str, Values]:
        """`fve`, `centred_cosine`, `cosine`, `mse` of texts against the rows' own vectors, each
        `(n,)`; NaN where the text is None. `texts` may be shorter than the rows: the first ones."""
        known = [i for i, text in enumerate(texts) if text is not None]
        found = {
            name: np.full(len(self), np.nan) for name in ("fve", "centred_cosine", "cosine", "mse")
        }
        if not known:
            return found
        made = self.reconstruct([text for text in texts if text is not None])
        for name, values in row_scores(
            self.rows.vectors[known], made, self.mean, self.base
        ).items():
            found[name][known] = values
        return found
