"""A pair as it is served: its engine, with what requests ask of it, awaitable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from nlakit.errors import NlakitError
from nlakit.models.decode import Decoding
from nlakit.models.nla import NLA
from nlakit.models.records import Score
from nlakit.models.using.reading import Read, SpecialTokens, Token, Tokens, tokens_of
from nlakit.serve.engine import Engine

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """What the subject has read: t tokens, and raw activations `(t, d)`."""

    tokens: list[Token]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class Scored:
    """The score of a text on a vector, and that of no text on the same vector."""

    score: Score
    floor: Score


class Served:
    """One pair under its name. All work on models and tokenizers is the engine thread's: neither
    may be used by two threads at once."""

    def __init__(self, name: str, engine: Engine, longest: int) -> None:
        self.name, self.engine, self.longest = name, engine, longest
        self.since = datetime.now(UTC)
        self._waiting: list[tuple[str, NDArray[Any], Future[Scored]]] = []
        self._lock = Lock()

    @property
    def nla(self) -> NLA:
        return self.engine.nla

    @property
    def model_id(self) -> str:
        """The last part of the subject's name: the first may be a folder of this machine."""
        name = self.nla.contract.extraction.base_model.replace("\\", "/")
        return name.rstrip("/").rpartition("/")[2]

    def need_av(self) -> None:
        if self.nla.av is None:
            raise HTTPException(503, "this pair has no verbalizer")

    def need_ar(self) -> None:
        if self.nla.ar is None:
            raise HTTPException(503, "this pair has no reconstructor")

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns, done by the engine's thread."""
        return await asyncio.wrap_future(self.engine.call(work))

    async def tokens(self, what: Read, special_tokens: SpecialTokens) -> Tokens:
        """Tokens of a text or conversation. HTTPException 400 for messages that cannot be read, 422
        for more tokens than are allowed."""
        subject, template = self.nla.subject, self.nla.contract.nlakit.chat_template
        try:
            # By the name that may be told: errors bear it.
            found = await self.do(
                lambda: tokens_of(subject.tokenizer, what, special_tokens, template, self.model_id)
            )
        except NlakitError as error:
            raise HTTPException(422 if isinstance(what, str) else 400, error.what) from error
        limit = min(self.longest, subject.positions or self.longest)
        if len(found.ids) > limit:
            raise HTTPException(
                422, f"the text has {len(found.ids)} tokens; this pair reads at most {limit}"
            )
        return found

    async def described(self, tokens: Tokens) -> list[Token]:
        tokenizer = self.nla.subject.tokenizer
        return await self.do(lambda: tokens.described(tokenizer))

    async def read(self, what: Read, special_tokens: SpecialTokens) -> Reading:
        """Tokens and activations. Raises what `tokens` raises."""
        tokens = await self.tokens(what, special_tokens)  # its length, before the subject reads it
        if isinstance(what, str):
            _, vectors = await asyncio.wrap_future(self.engine.activations(what, special_tokens))
        else:
            every = range(len(tokens.ids))
            _, _, vectors = await self.do(lambda: self.nla.activations(what, every, special_tokens))
        return Reading(await self.described(tokens), vectors)

    def decoding(self, temperature: float, max_new_tokens: int, seed: int) -> Decoding:
        """The pair's own way of writing, at a temperature; never longer than its own limit."""
        assert self.nla.av is not None, "asked for behind `need_av`"
        own = self.nla.av.decoding()
        limit = min(max_new_tokens, own.max_new_tokens)
        return replace(own, max_new_tokens=limit, temperature=temperature, seed=seed)

    def vectors(self, rows: Sequence[Sequence[float]], field: str) -> NDArray[np.float32]:
        """Raw vectors `(n, d)`; HTTPException 422 for another width, or without a direction."""
        width = self.nla.contract.d_model
        for at, row in enumerate(rows):
            if len(row) != width:
                raise HTTPException(422, f"{field}[{at}] has {len(row)} numbers, not {width}")
        with np.errstate(over="ignore"):
            made = np.asarray(rows, dtype=np.float32)
            norms = np.linalg.norm(made.astype(np.float64), axis=1)
        if bad := np.flatnonzero(~np.isfinite(norms) | (norms == 0)).tolist():
            raise HTTPException(422, f"{field}[{bad[0]}] has no direction: zero, or not finite")
        return made

    def score(self, text: str, vector: NDArray[Any]) -> Awaitable[Scored]:
        """How well a text carries a vector. Texts that wait for it are read together."""
        future: Future[Scored] = Future()
        with self._lock:
            self._waiting.append((text, vector, future))
        self.engine.call(self._score_waiting)
        return asyncio.wrap_future(future)

    def _score_waiting(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
        taken = [one for one in taken if one[2].set_running_or_notify_cancel()]
        if not taken:
            return
        try:
            made = self.nla.reconstruct([*(text for text, _, _ in taken), ""])
            real = np.stack([vector for _, vector, _ in taken])
            scores = self.nla.measure(real, made[:-1])
            floors = self.nla.measure(real, np.repeat(made[-1:], len(taken), axis=0))
        except Exception as error:
            for _, _, future in taken:
                future.set_exception(error)
            return
        for (_, _, future), score, floor in zip(taken, scores, floors, strict=True):
            future.set_result(Scored(score, floor))
