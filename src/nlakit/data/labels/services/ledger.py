"""Every request to a service and what came of it, on disk before it counts.

One SQLite file, one writer. A request is written down with its worst cost before it is sent, and
with its answer before anyone uses it; so a kill loses no paid answer, and a request that a kill
cut off still counts in full against the limits. Commits are grouped in a thread of their own: the
event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from filelock import FileLock, Timeout

from nlakit.data.labels.services.faults import USELESS, Tokens
from nlakit.errors import DataError, RunError

TABLES = """
create table if not exists requests (
  id integer primary key,
  key text not null,          -- of what was asked: see request_key
  run text not null,          -- the run that asked, and so paid
  service text not null,
  sent_at text not null,
  answered_at text,
  outcome text not null,      -- 'sent', 'ok', or the kind of fault
  answer text,                -- JSON as the service wrote it
  model text,                 -- as the service names itself
  tokens_in integer,
  tokens_out integer,
  cost real                   -- US dollars; the worst case until known; null: unknown price
);
create index if not exists asked on requests (key);
create index if not exists paid on requests (run);
create table if not exists pauses (service text primary key, until real not null);
"""
FORMAT = 1
MOST_JOBS = 256


@dataclass(frozen=True)
class Job:
    """Work for the writer, and the future of whoever waits for it."""

    work: Callable[[sqlite3.Connection], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    def settle(self, how: Callable[[asyncio.Future[Any]], object]) -> None:
        def tell() -> None:
            if not self.future.done():
                how(self.future)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(tell)


@dataclass(frozen=True)
class Record:
    """A usable answer, as stored. cost: US dollars, None if the price is unknown."""

    answer: str
    answered_at: str
    tokens_in: int | None
    tokens_out: int | None
    cost: float | None


@dataclass(frozen=True)
class Spent:
    """What a run has spent so far. unpriced: requests whose price is unknown."""

    requests: int = 0
    cost: float = 0.0
    unpriced: int = 0


def request_key(service: dict[str, Any], instructions: str, message: str, schema: str) -> str:
    """SHA-256 of everything that decides an answer: the service's model and parameters, both
    parts of the prompt with the row's text in it, and the form of the answer."""
    asked = json.dumps([service, instructions, message, schema], sort_keys=True)
    return hashlib.sha256(asked.encode("utf-8", errors="surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Ledger:
    """Open the store at `path` for `run`. Its methods are for the event loop, but for `spent`,
    `pauses` and `close`.

    at_start, asleep: what the run had spent, and which services slept, when it was opened.

    Raises RunError if another process writes to it, DataError if it is no store of nlakit.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"no store of answers can be made at {path}",
                found=error,
                do="name another file in requests.store",
            ) from error
        self.lock = FileLock(path.with_name(path.name + ".lock"), timeout=0)
        try:
            self.lock.acquire()
        except (Timeout, OSError) as error:
            raise RunError(
                f"the store of answers {path} is in use by another process",
                do="wait for it, or name another file in requests.store",
            ) from error
        try:
            self.base = self._open()
            self.at_start, self.asleep = self.spent(), self.pauses()
        except (sqlite3.Error, OSError) as error:
            if hasattr(self, "base"):
                self.base.close()
            self.lock.release()
            raise DataError(
                f"{path} is no store of answers, or is damaged",
                found=error,
                do="move it away, or name another file in requests.store",
            ) from error
        self.jobs: SimpleQueue[Any] = SimpleQueue()
        self.writer = threading.Thread(target=self._work, name="ledger", daemon=True)
        self.writer.start()

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
        base.execute("pragma journal_mode = wal")
        # In WAL mode FULL syncs at each commit; NORMAL would lose the last ones with the power.
        base.execute("pragma synchronous = full")
        found = base.execute("pragma user_version").fetchone()[0]
        if found not in (0, FORMAT):
            raise sqlite3.DatabaseError(f"format {found}, this nlakit reads {FORMAT}")
        base.executescript(TABLES)
        base.execute(f"pragma user_version = {FORMAT}")
        return base

    def close(self) -> None:
        self.jobs.put(None)
        self.writer.join()
        self.base.close()
        self.lock.release()

    def _work(self) -> None:
        """Do all jobs that wait in one transaction, then tell those who wait for them."""
        job = self.jobs.get()
        while job is not None:
            batch = [job]
            while not self.jobs.empty() and len(batch) < MOST_JOBS:
                job = self.jobs.get()
                if job is None:
                    break
                batch.append(job)
            self._do(batch)
            job = self.jobs.get() if job is not None else None

    def _do(self, batch: list[Job]) -> None:
        try:
            self.base.execute("begin")
            results = [job.work(self.base) for job in batch]
            self.base.execute("commit")
        except Exception as error:  # whatever it is, those who wait must hear of it
            with contextlib.suppress(sqlite3.Error):
                self.base.execute("rollback")
            trouble = RunError(
                f"cannot write to the store of answers {self.path}",
                found=error,
                do="free disk space, then run again; every answer stored so far is kept",
            )
            for job in batch:
                job.settle(lambda future: future.set_exception(trouble))
            return
        for job, result in zip(batch, results, strict=True):
            job.settle(lambda future, result=result: future.set_result(result))

    async def _run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        loop = asyncio.get_running_loop()
        job = Job(work, loop.create_future(), loop)
        self.jobs.put(job)
        return await job.future

    async def look(self, key: str) -> tuple[Record | None, int, list[str]]:
        """The stored answer of a key, if any; requests sent for it; kinds of useless answers."""

        def work(base: sqlite3.Connection) -> tuple[Record | None, int, list[str]]:
            rows = base.execute(
                "select outcome, answer, answered_at, tokens_in, tokens_out, cost"
                " from requests where key = ? order by id",
                (key,),
            ).fetchall()
            answered = [Record(*row[1:]) for row in rows if row[0] == "ok"]
            useless = [row[0] for row in rows if row[0] in USELESS]
            return (answered[0] if answered else None), len(rows), useless

        return await self._run(work)

    async def sent(self, key: str, service: str, worst: float | None) -> int:
        """Write down a request that is about to be sent, at its worst cost; returns its number."""

        def work(base: sqlite3.Connection) -> int | None:
            return base.execute(
                "insert into requests (key, run, service, sent_at, outcome, cost)"
                " values (?, ?, ?, ?, 'sent', ?)",
                (key, self.run, service, _now(), worst),
            ).lastrowid

        return await self._run(work)

    async def came(
        self,
        number: int,
        outcome: str,
        answer: str | None,
        model: str | None,
        tokens: Tokens,
        cost: float | None,
    ) -> Record:
        """Write down what came of a request: 'ok' or the kind of fault."""
        answered_at = _now()
        values = (outcome, answer, model, *tokens, cost, answered_at, number)

        def work(base: sqlite3.Connection) -> None:
            base.execute(
                "update requests set outcome = ?, answer = ?, model = ?, tokens_in = ?,"
                " tokens_out = ?, cost = ?, answered_at = ? where id = ?",
                values,
            )

        await self._run(work)
        return Record(answer or "", answered_at, *tokens, cost)

    async def pause(self, service: str, until: float) -> None:
        """Remember, across restarts, that a service answers nothing before `until` (Unix time)."""

        def work(base: sqlite3.Connection) -> None:
            base.execute("replace into pauses values (?, ?)", (service, until))

        await self._run(work)

    def pauses(self) -> dict[str, float]:
        """Unix time until which each service is out of quota."""
        return dict(self.base.execute("select service, until from pauses"))

    def spent(self) -> Spent:
        """What the run has spent, requests that a kill cut off at their worst cost."""
        row = self.base.execute(
            "select count(*), coalesce(sum(cost), 0), count(*) - count(cost) from requests"
            " where run = ?",
            (self.run,),
        ).fetchone()
        return Spent(*row)
