"""The explanations of one request, as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from nlakit.models.decode import Decoding
from nlakit.serve.engine import Busy
from nlakit.serve.metrics import Metrics
from nlakit.serve.pairs import Scored, Served

AGAIN = 0.2  # seconds until a row of a long request asks for a place again


@dataclass(frozen=True)
class Part:
    """The text of row `at` so far."""

    at: int
    text: str


@dataclass(frozen=True)
class Written:
    """The explanation of row `at`, scored if there is a reconstructor."""

    at: int
    text: str
    scored: Scored | None


class Writing:
    """Explanations of raw vectors `(n, d)`: begun when it is made, ended by `close`.

    rows: the key of each one's draws. The first is submitted at once, so that a full queue is an
    answer and not the middle of one: raises Busy. The others come as the queue has places.
    """

    def __init__(
        self,
        served: Served,
        metrics: Metrics,
        vectors: NDArray[np.float32],
        rows: Sequence[int],
        decoding: Decoding,
    ) -> None:
        self.served, self.metrics, self.vectors, self.rows = served, metrics, vectors, rows
        self.decoding, self.began = decoding, time.monotonic()
        self._loop, self._news = asyncio.get_running_loop(), asyncio.Event()
        # The newest text of each row alone: who reads slowly costs no memory.
        self._parts: dict[int, str] = {}
        self._written: list[Written] = []
        self._places = asyncio.Semaphore(served.engine.batch)
        first = self._submit(0)
        self._tasks = [
            asyncio.ensure_future(self._write(at, None if at else first))
            for at in range(len(vectors))
        ]

    def _submit(self, at: int) -> Future[str]:
        begun = False

        def on_text(text: str) -> None:  # in the engine's thread
            nonlocal begun
            if not begun:
                begun = True
                self.metrics.first_token.observe(time.monotonic() - self.began)
            self.metrics.token()
            self._loop.call_soon_threadsafe(self._tell, at, text)

        return self.served.engine.submit(
            self.vectors[at], decoding=self.decoding, row=self.rows[at], client=id(self),
            on_text=on_text,
        )  # fmt: skip

    def _tell(self, at: int, text: str) -> None:
        self._parts[at] = text
        self._news.set()

    async def _write(self, at: int, future: Future[str] | None) -> None:
        async with self._places:
            while future is None:
                try:
                    future = self._submit(at)
                except Busy:
                    await asyncio.sleep(AGAIN)
            text = await asyncio.wrap_future(future)
        scored = None
        if self.served.nla.ar is not None:
            scored = await self.served.score(text, self.vectors[at])
        self.metrics.explanations.inc()
        self._parts.pop(at, None)
        self._written.append(Written(at, text, scored))
        self._news.set()

    async def events(self) -> AsyncIterator[Part | Written]:
        """Parts of texts, each newer than the last of its row, and the whole ones. Raises what went
        wrong with any of them."""
        whole: set[int] = set()
        try:
            for task in self._tasks:
                task.add_done_callback(lambda task: self._news.set())
            while len(whole) < len(self._tasks):
                await self._news.wait()
                self._news.clear()
                parts, self._parts = self._parts, {}
                written, self._written = self._written, []
                whole |= {one.at for one in written}
                for at in parts.keys() - whole:
                    yield Part(at, parts[at])
                for one in written:
                    yield one
                self._raise()
        finally:
            self.close()

    def _raise(self) -> None:
        for task in self._tasks:
            if task.cancelled():
                raise HTTPException(503, "an explanation was cut off")
            if task.done() and (error := task.exception()):
                raise error

    async def all(self) -> list[Written]:
        """The whole texts, in the order of their rows."""
        found = [one async for one in self.events() if isinstance(one, Written)]
        return sorted(found, key=lambda one: one.at)

    def close(self) -> None:
        """Nobody waits any longer: what is not written yet never is."""
        for task in self._tasks:
            task.cancel()
