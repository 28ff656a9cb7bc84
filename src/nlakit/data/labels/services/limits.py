"""How fast, how long and for how much a service may be asked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from nlakit.data.labels.services.ledger import Spent
from nlakit.data.labels.services.waits import Stopped, backoff, nap
from nlakit.errors import LimitReached


class Gate:
    """How many requests to one service may be in flight: additive increase, multiplicative
    decrease (as TCP's congestion control), after a start that doubles.

    most: the concurrency that the user allows.
    """

    def __init__(self, most: int, stop: asyncio.Event) -> None:
        self.most, self.window, self.stop = most, 1.0, stop
        self.starting = True
        self.in_flight = 0
        self.until = 0.0  # Unix time; nobody enters before
        self.refusals = 0  # rate limits in a row
        self.changed = asyncio.Condition()

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Wait for a place, and for the end of a pause. Raises Stopped."""
        while True:
            async with self.changed:
                await self.changed.wait_for(lambda: self.in_flight < int(self.window))
                wait = self.until - time.time()
                if self.stop.is_set():
                    raise Stopped
                if wait <= 0:
                    self.in_flight += 1
                    break
            await nap(min(wait, 30.0), self.stop)  # a clock may be set, a machine may sleep
        try:
            yield
        finally:
            async with self.changed:
                self.in_flight -= 1
                self.changed.notify_all()

    def answered(self) -> None:
        """An answer came: allow a little more."""
        self.refusals = 0
        step = 1.0 if self.starting else 1.0 / self.window
        self.window = min(self.window + step, float(self.most))

    def refused(self, retry_after: float | None) -> None:
        """The service asked for less. Refusals of requests sent before the last one count once."""
        now = time.time()
        if now >= self.until:
            self.starting = False
            self.window = max(self.window / 2, 1.0)
            self.refusals += 1
        # A wait of zero would ask again at once and for ever.
        wait = max(retry_after or 0.0, backoff(max(self.refusals, 1)))
        # Not all at the same instant: a limiter that counts by the second would refuse them again.
        self.until = max(self.until, now + wait * random.uniform(1.0, 1.1))

    def close_until(self, until: float) -> None:
        self.until = max(self.until, until)


class Budget:
    """What may still be spent. The worst case of all in flight is reserved, so that no limit is
    ever exceeded, and what a kill cut off stays spent."""

    def __init__(
        self,
        spent: Spent,
        max_cost: float | None,
        max_requests: int | None,
        max_rows: int | None,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.stop = stop or asyncio.Event()
        self.cost, self.requests, self.rows = spent.cost, spent.requests, 0
        self.unpriced = spent.unpriced
        self.max_cost, self.max_requests, self.max_rows = max_cost, max_requests, max_rows
        self.reserved, self.in_flight = 0.0, 0
        self.changed = asyncio.Condition()

    def begin_row(self) -> None:
        """Count a row for which something is asked. Raises LimitReached."""
        if self.max_rows is not None and self.rows >= self.max_rows:
            raise self._reached("max_rows", f"{self.rows} rows in this sitting")
        self.rows += 1

    async def reserve(self, worst_now: Callable[[], float | None]) -> float | None:
        """Take the worst cost of one request out of what is left, as it is known once there is
        room, and return it. Raises LimitReached once even the end of those in flight cannot make
        room, and Stopped."""
        async with self.changed:
            while True:
                worst = worst_now()
                if self.stop.is_set():
                    raise Stopped
                if self.max_requests is not None and self.requests >= self.max_requests:
                    raise self._reached("max_requests", f"{self.requests} requests")
                if worst is None or self.max_cost is None:
                    break
                if self.cost + self.reserved + worst <= self.max_cost:
                    break
                if not self.in_flight:
                    raise self._reached(
                        "max_cost", f"${self.cost:.4f}, and one more may cost ${worst:.4f}"
                    )
                await self.changed.wait()
            self.requests += 1
            self.in_flight += 1
            self.reserved += worst or 0.0
        return worst

    async def settle(self, worst: float | None, cost: float | None) -> None:
        """Put the true cost in place of the reserved one."""
        async with self.changed:
            self.in_flight -= 1
            self.reserved -= worst or 0.0
            self.cost += cost or 0.0
            self.unpriced += cost is None
            self.changed.notify_all()

    def _reached(self, name: str, found: str) -> LimitReached:
        return LimitReached(
            f"stopped at requests.{name}",
            found=found,
            do="every answer is kept; raise the limit and run again to go on",
        )
