"""Explanations as they are written, as server-sent events."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass

from fastapi.responses import StreamingResponse
from markupsafe import escape
from starlette.types import Receive, Scope, Send

from nlakit.errors import NlakitError
from nlakit.serve.pages.pairs import Reading, Told

JOBS = 256
AHEAD = 2  # batches of explanations that one visitor has in the queue


@dataclass
class Job:
    """Tokens that a visitor has asked to explain; nothing is spent on it until the page listens."""

    reading: Reading
    places: Sequence[int]
    side: str
    client: str


class Jobs:
    """What was asked for, by ticket: the last 256."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Job] = OrderedDict()

    def add(self, job: Job) -> str:
        ticket = secrets.token_urlsafe(16)
        self._kept[ticket] = job
        while len(self._kept) > JOBS:
            self._kept.popitem(last=False)
        return ticket

    def get(self, ticket: str) -> Job | None:
        """The job of a ticket. It stays: a browser whose stream broke asks for the rest of it."""
        return self._kept.get(ticket)


def event(name: str, html: str) -> str:
    """One server-sent event."""
    lines = "".join(f"data: {line}\n" for line in html.splitlines() or [""])
    return f"event: {name}\n{lines}\n"


async def one(job: Job, done: Callable[[Told], str]) -> AsyncGenerator[str]:
    """The text so far after each token, then what `done` renders. Who leaves takes the row out."""
    reading, (at,) = job.reading, job.places
    loop, heard = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def on_text(text: str) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, text)

    engine = reading.pair.engine
    future = engine.submit(reading.vectors[at], client=job.client, on_text=on_text)
    wrapped = asyncio.wrap_future(future)
    wrapped.add_done_callback(lambda _: heard.put_nowait(None))
    try:
        while (text := await heard.get()) is not None:
            yield event("text", str(escape(text)))
        written = await wrapped
        (told,) = await reading.tell({at: written})
        yield event("done", done(told))
    finally:
        future.cancel()


async def many(job: Job, found: Callable[[list[Told], int], str]) -> AsyncGenerator[str]:
    """After each handful of finished tokens what `found` renders of them and of their number so
    far. Who leaves takes all rows out."""
    reading, engine = job.reading, job.reading.pair.engine
    waiting = [at for at in reversed(job.places) if at not in reading.told]
    running: dict[asyncio.Future[str], tuple[int, Future[str]]] = {}
    count = len(job.places) - len(waiting)
    try:
        while waiting or running:
            while waiting and len(running) < AHEAD * engine.batch:
                at = waiting.pop()
                future = engine.submit(reading.vectors[at], client=job.client)
                running[asyncio.wrap_future(future)] = at, future
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            written = {running.pop(future)[0]: future.result() for future in ended}
            told = await reading.tell(written)
            count += len(told)
            yield event("progress", found(told, count))
    finally:
        for _, future in running.values():
            future.cancel()


async def guarded(
    events: AsyncGenerator[str], failed: Callable[[NlakitError], str]
) -> AsyncGenerator[str]:
    """The events; a mistake or a full queue is told by the last one."""
    async with aclosing(events):
        try:
            async for found in events:
                yield found
        except NlakitError as error:
            yield event("done", failed(error))


class Stream(StreamingResponse):
    """Server-sent events of a generator that ends when the answer does, however that ends."""

    def __init__(self, events: AsyncGenerator[str], headers: Mapping[str, str]) -> None:
        more = {"X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers={**headers, **more})
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)
