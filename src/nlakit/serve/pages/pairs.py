"""A pair as the page shows it: what is known of it, its floors, and the texts that it has read."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import cosine, fve_rows, unit
from nlakit.core.text.characters import LONGEST, last_tokens
from nlakit.core.text.messages import Conversation
from nlakit.core.text.recurrence import TEMPERATURE
from nlakit.core.text.recurrence import Told as Heard
from nlakit.errors import DataError, NlakitError
from nlakit.evaluate.conditions import unrelated
from nlakit.evaluate.parts.recurrence import recurrence_figure
from nlakit.files.rows import TableRows, rows_of_file
from nlakit.files.text import read_record
from nlakit.models.foreign.folders import find_halves
from nlakit.models.nla import NLA
from nlakit.models.using.explaining import CONTROLS, random_directions
from nlakit.publish.report.numbers import interval, num
from nlakit.run.folder import FOLDERS
from nlakit.serve.engine import Engine
from nlakit.serve.pages.talk import conversation_of

T = TypeVar("T")
TOKENS = 2_048  # chips on a page
HELD = 20_000  # tokens whose activations are held
STRANGERS = 16
TABLE = 512 * 2**20  # bytes of a table of rows that is read
LEVELS = (0.2, 0.4, 0.6)  # centred cosine over the floor, where the next colour begins


@dataclass(frozen=True)
class Marks:
    """How near a text's reconstruction comes to a vector, beside those that have not read it: of
    the empty text, and the mean of 16 other texts. `value`, `empty` and `other` are centred
    cosines; plain ones for a pair that stores no mean unit vector."""

    value: float
    empty: float
    other: float
    beaten: int
    cosine: float
    fve: float | None

    @property
    def floor(self) -> float:
        return max(self.empty, self.other)

    @property
    def over(self) -> float:
        return self.value - self.floor

    @property
    def level(self) -> int:
        """0 at the floor or below it, 1 to 4 above."""
        return 0 if self.over <= 0 else 1 + sum(self.over >= edge for edge in LEVELS)


@dataclass(frozen=True)
class Told:
    """One explained token; `marks` is None without an AR."""

    at: int
    token: str
    token_id: int
    explanation: str
    norm: float
    marks: Marks | None


@dataclass
class Reading:
    """A text that the subject has read: t token ids, their texts, raw activations `(t, d)`.

    what: the text, or the conversation that it holds; filled: as the subject read it. spoken: the
    tokens that are explained with all. voices: whose each token is, in a conversation; where its
    template stands, `template`.
    """

    pair: Pair
    kind: str
    text: str
    what: str | Conversation
    filled: str
    ids: list[int]
    tokens: list[str]
    vectors: NDArray[np.float32]
    spoken: list[int]
    voices: list[str] | None = None
    told: dict[int, Told] = field(default_factory=dict)

    def check(self, at: int) -> int:
        """The position, if there is such a token; DataError if not."""
        if not 0 <= at < len(self.ids):
            raise DataError(
                "no such token",
                found=f"{at} in a text of {len(self.ids)} tokens",
                do="choose a token of the text",
            )
        return at

    async def tell(self, written: Mapping[int, str]) -> list[Told]:
        """Score explanations by token, and keep them."""
        places, texts = list(written), list(written.values())
        vectors = self.vectors[places]
        marks = await self.pair.do(lambda: self.pair.marks(vectors, texts))
        for at, text, mark, vector in zip(places, texts, marks, vectors, strict=True):
            norm = float(np.linalg.norm(vector))
            self.told[at] = Told(at, self.tokens[at], self.ids[at], text, norm, mark)
        return [self.told[at] for at in places]


class Pair:
    """One loaded pair with what lies beside it: its evaluation and rows, where there are any."""

    def __init__(self, name: str, engine: Engine, source: str | Path | None = None) -> None:
        self.name, self.engine = name, engine
        self.nla: NLA = engine.nla
        self.folder = _folder(source) if source is not None else None
        self._controls: list[Heard] | None = None
        self._readings: OrderedDict[tuple[str, str], Reading] = OrderedDict()

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns, done by the engine's thread: models and tokenizer are its alone."""
        return await asyncio.wrap_future(self.engine.call(work))

    @property
    def measure(self) -> str:
        return "cosine" if self.nla.mean is None else "centred cosine"

    @cached_property
    def results(self) -> Mapping[str, Any] | None:
        """The stored evaluation of this pair."""
        for place in (".", FOLDERS["eval"]):
            file = self.folder / place / "results.json" if self.folder else None
            if file and file.exists():
                return read_record(file)
        return None

    @cached_property
    def rows(self) -> TableRows | None:
        """Training rows of the pair, if a table of bearable size lies beside it."""
        for place in ("rows", FOLDERS["tables"]):
            file = self.folder / place / "av.parquet" if self.folder else None
            if file and file.exists() and file.stat().st_size <= TABLE:
                return rows_of_file(file)
        return None

    @cached_property
    def row_directions(self) -> NDArray[np.float64]:
        """Centred directions `(m, d)` of the rows."""
        assert self.rows is not None
        return self.directions(self.rows.vectors)

    def directions(self, vectors: NDArray[Any]) -> NDArray[np.float64]:
        """What centred cosines compare, of `(n, d)`: unit vectors less ū, at norm one; zero where
        nothing is left."""
        found = unit(vectors) - (0 if self.nla.mean is None else self.nla.mean)
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, norms, out=np.zeros_like(found), where=norms > 1e-12)

    @cached_property
    def floors(self) -> NDArray[np.float64]:
        """Directions `(17, d)` of what is made of the empty text, and of 16 other texts: labels of
        the pair's rows where it has some, sentences about nothing where not."""
        labels = [text for text in self.rows.texts if text] if self.rows else []
        others = (labels if len(labels) >= STRANGERS else unrelated(STRANGERS, 0))[:STRANGERS]
        return self.directions(self.nla.reconstruct(["", *others]))

    @cached_property
    def strangers(self) -> NDArray[np.float64]:
        """Directions `(16, d)` that have nothing to do with a text at hand: of the pair's rows
        where it has some, of reconstructions where not."""
        return self.floors[1:] if self.rows is None else self.row_directions[:STRANGERS]

    def marks(self, vectors: NDArray[Any], texts: Sequence[str]) -> list[Marks | None]:
        """How n texts carry raw vectors `(n, d)`; None for each without an AR."""
        if self.nla.ar is None:
            return [None] * len(texts)
        return [*self.compared(vectors, self.nla.reconstruct(texts))]

    def compared(self, vectors: NDArray[Any], made: NDArray[Any]) -> list[Marks]:
        """How near reconstructions `(n, d)` come to raw vectors `(n, d)`."""
        real = self.directions(vectors)
        values = np.sum(real * self.directions(made), axis=1)
        floors = real @ self.floors.T
        plain, base = cosine(vectors, made), self.nla.measured.baseline
        fve = fve_rows(vectors, made, base) if base and self.nla.mean is not None else None
        return [
            Marks(
                value=float(value),
                empty=float(floor[0]),
                other=float(floor[1:].mean()),
                beaten=int((value > floor[1:]).sum()),
                cosine=float(plain[row]),
                fve=None if fve is None else float(fve[row]),
            )
            for row, (value, floor) in enumerate(zip(values, floors, strict=True))
        ]

    async def read(self, text: str, kind: str) -> Reading:
        """The text as the subject reads it, from memory if it was read lately.

        Raises what `NLA.activations` raises, and DataError for more tokens than a page shows.
        """
        key = (kind, text)
        if key not in self._readings:
            self._readings[key] = await self.do(lambda: self._read(text, kind))
        self._readings.move_to_end(key)
        found = self._readings[key]
        while sum(len(one.ids) for one in self._readings.values()) > max(HELD, len(found.ids)):
            self._readings.popitem(last=False)
        return found

    def _read(self, text: str, kind: str) -> Reading:
        what = conversation_of(self.nla, text) if kind == "conversation" else text
        made = self.nla.tokens(what)
        if len(made.ids) > TOKENS:
            raise DataError(
                "the text is too long for a page",
                found=f"{len(made.ids)} tokens, {TOKENS} at most",
                do="give a part of it; nlakit explain reads longer ones",
            )
        every = list(range(len(made.ids)))
        vectors = self.nla.activations(what, every)[2]
        voices = None if made.spans is None else [str(one.voice) for one in made.spans]
        tokens, spoken = self._spelled(made.ids), made.places("all")
        return Reading(
            self, kind, text, what, made.text, made.ids, tokens, vectors, spoken, voices
        )  # fmt: skip

    def _spelled(self, ids: Sequence[int]) -> list[str]:
        """Each token's text."""
        tokenizer = self.nla.subject.tokenizer
        return [
            last_tokens(tokenizer, ids[max(0, at - LONGEST) : at + 1]) for at in range(len(ids))
        ]

    async def controls(self, client: str) -> list[Heard]:
        """What the AV says of random directions: words that it says of anything."""
        if self._controls is None:
            norm = float(np.linalg.norm(self.nla.mean)) if self.nla.mean is not None else 1.0
            norm = self.nla.contract.nlakit.activation_norm or norm
            drawn = random_directions(CONTROLS, self.nla.contract.d_model, norm, 0)
            texts = await self.draw(drawn, range(-1, -1 - CONTROLS, -1), client)
            self._controls = [Heard.of(text) for text in texts]
        return self._controls

    async def draw(self, vectors: NDArray[Any], rows: Sequence[int], client: str) -> list[str]:
        """Texts of raw vectors `(n, d)` drawn at temperature 1, keyed by `rows`. Who leaves takes
        all of them out; raises Busy if the queue is full."""
        assert self.nla.av is not None, "a pair without an AV is not shown"
        decoding = replace(self.nla.av.decoding(), temperature=TEMPERATURE, seed=0)
        waiting: list[Future[str]] = []
        try:
            for vector, row in zip(vectors, rows, strict=True):
                waiting.append(
                    self.engine.submit(vector, decoding=decoding, row=row, client=client)
                )
            return list(await asyncio.gather(*map(asyncio.wrap_future, waiting)))
        finally:
            for one in waiting:
                one.cancel()

    @cached_property
    def worth(self) -> Mapping[str, Any] | None:
        """What the recurrence of words is worth for this pair, as its evaluation measured it."""
        return recurrence_figure(self.results) if self.results else None

    @cached_property
    def opening(self) -> Opening:
        return opening_of(self.results)


@dataclass(frozen=True)
class Opening:
    """What the page says of a pair before anything else. `doubt` is true for one that must not be
    believed without a second look."""

    word: str
    sentence: str
    doubt: bool
    warnings: tuple[str, ...] = ()


MEANING = {
    "collapsed": "it writes nearly the same text for every token, so a text says nothing of its "
    "token",
    "content-blind": "a reconstructor does as well without reading its texts, so they say nothing "
    "of the token that can be relied on",
    "weak": "its texts say something of the token, but little: take each for a hint",
    "content-sensitive": "its texts carry what is particular about a token; that does not make "
    "every word of them true",
}


def opening_of(results: Mapping[str, Any] | None) -> Opening:
    """What a stored evaluation says of its pair, in one sentence with its figures."""
    try:
        return _opening(results) if results else UNKNOWN
    except (KeyError, TypeError, AttributeError):  # of another version, or of one half alone
        return UNKNOWN


UNKNOWN = Opening(
    "not evaluated",
    "no evaluation lies beside this pair: nobody knows whether it reads; nlakit eval measures it.",
    True,
)


def _opening(results: Mapping[str, Any]) -> Opening:
    word = results["verdict"]["word"]
    scores, gain = results["scores"], results["gains"]["centred_cosine"]
    real, floor = scores["real"]["centred_cosine"], scores[gain["best_floor"]]["centred_cosine"]
    sentence = (
        f"{MEANING[word]}. Centred cosine {num(real['mean'])} {interval(real)} on"
        f" {real['rows']} held-out rows of {real['documents']} documents; the best that a"
        f" reconstructor does which has not read the text is {num(floor['mean'])}"
        f" {interval(floor)}."
    )
    warnings = tuple(one["message"] for one in results.get("warnings") or ())
    return Opening(word, sentence, word != "content-sensitive", warnings)


def _folder(source: str | Path) -> Path | None:
    """Where a pair lies: above its halves, and above the stage that made them."""
    try:
        half = next(iter(find_halves(source).values()))
    except NlakitError:
        return None
    above = half.parent
    return above.parent if above.name == FOLDERS["pair"] else above
