"""One question to one service: from the store if it was ever answered, else asked until it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic
from weakref import WeakValueDictionary

from nlakit.config.labels import RequestsConfig
from nlakit.data.labels.services.answers import Kind, Parsed, parse, schema
from nlakit.data.labels.services.faults import (
    AWAY,
    UNKNOWN,
    USELESS,
    Fault,
    RowFailed,
    Streak,
    Tokens,
)
from nlakit.data.labels.services.ledger import Ledger, Record, request_key
from nlakit.data.labels.services.limits import Budget, Gate
from nlakit.data.labels.services.prices import Price
from nlakit.data.labels.services.prompts import Prompt
from nlakit.data.labels.services.service import Reply, Service, plain
from nlakit.data.labels.services.waits import backoff, nap, quota_back
from nlakit.errors import ServiceError
from nlakit.run.progress import say

OVERHEAD_TOKENS = 200  # of roles, separators and a provider's own words around a prompt
CHARACTERS_PER_TOKEN = 4  # of English prose
SAID_SECONDS = 20.0
LATE_SECONDS = 60.0
LATE_FOR_SECONDS = 900.0
AWAY_FACTOR = 3  # a row may fail this many times as often by the service as by its answers
HOPELESS = 4  # failures in a row


@dataclass(frozen=True)
class Answered(Generic[Kind]):
    """A typed answer with its record in the store; sent: requests that the question took;
    repaired: as it came, it did not have the form."""

    value: Kind
    record: Record
    sent: int
    repaired: bool


class Asker:
    """Asks one service within the limits. The store, the budget and `stop` are shared by all."""

    def __init__(
        self,
        service: Service,
        max_tokens: int,
        price: Price | None,
        ledger: Ledger,
        budget: Budget,
        settings: RequestsConfig,
        stop: asyncio.Event,
    ) -> None:
        self.service, self.max_tokens, self.price = service, max_tokens, price
        self.ledger, self.budget, self.settings, self.stop = ledger, budget, settings, stop
        self.gate = Gate(settings.concurrency, stop)
        # When the quota was said to be back, by this sitting or an earlier one; Unix times.
        self.reset = ledger.asleep.get(service.name, 0.0)
        if settings.wait_for_quota:
            self.gate.close_until(self.reset)
        self.dead: ServiceError | None = None  # it does not answer: another may take over
        self.wrong: ServiceError | None = None  # it answers that the request is wrong
        self.failures, self.first_failure, self.last_answer = 0, 0.0, 0.0
        self.streak = Streak(settings.attempts)
        self.overhead, self.longest = OVERHEAD_TOKENS, max_tokens  # tokens; see _learn
        self.turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        if self.gate.until > time.time():
            self._say_asleep()

    async def ask(
        self, prompt: Prompt, kind: type[Kind], first: Callable[[], None]
    ) -> Answered[Kind]:
        """The answer to a prompt. `first` is called before anything is sent.

        Raises RowFailed if the service gives none that can be used, ServiceError if it gives none
        at all, LimitReached at a limit.
        """
        form = json.dumps(schema(kind), sort_keys=True)
        key = request_key(self.service.identity, prompt.instructions, prompt.message, form)
        # Equal questions in flight at the same time are asked once.
        turn = self.turns.setdefault(key, asyncio.Lock())
        async with turn:
            record, sent, useless = await self.ledger.look(key)
            if record is not None:
                with contextlib.suppress(Fault):  # an older nlakit may have let it pass
                    parsed = parse(record.answer, kind)
                    self.streak.end()
                    return Answered(parsed.value, record, sent, parsed.repaired)
            if len(useless) >= self.settings.attempts:
                raise RowFailed(useless[-1], sent)  # given up before, and paid for
            first()
            return await self._until_answered(key, prompt, kind, form, sent, len(useless))

    async def _until_answered(
        self, key: str, prompt: Prompt, kind: type[Kind], form: str, sent: int, useless: int
    ) -> Answered[Kind]:
        # A token is at least a byte.
        size = len((prompt.instructions + prompt.message + form).encode(errors="replace"))
        away, began = 0, time.time()
        while True:
            try:
                async with self.gate.entered():
                    if error := self.dead or self.wrong:
                        raise error
                    sent += 1
                    parsed, record = await self._once(key, prompt, kind, size)
                return Answered(parsed.value, record, sent, parsed.repaired)
            except Fault as fault:
                self._check_useful(fault, key)
                if fault.kind == "quota":
                    await self._sleep(fault)
                elif fault.kind in ("rate_limit", "overloaded"):
                    self._slow_down(fault)
                elif fault.kind in AWAY:
                    away += 1
                    self._check_alive(fault)
                    if away >= AWAY_FACTOR * self.settings.attempts and self.last_answer > began:
                        raise RowFailed(fault.kind, sent) from fault  # others are answered
                    await nap(fault.retry_after or backoff(away), self.stop)
                else:
                    useless += 1
                    if useless >= self.settings.attempts:
                        raise RowFailed(fault.kind, sent) from fault

    async def _once(
        self, key: str, prompt: Prompt, kind: type[Kind], size: int
    ) -> tuple[Parsed[Kind], Record]:
        """Send one request of `size` bytes; whatever becomes of it is written down."""
        cost = worst = await self.budget.reserve(lambda: self._worst(size))
        reply = None
        try:
            number = await self.ledger.sent(key, self.service.name, worst)
            try:
                reply = await self.service.ask(prompt, kind)
                parsed = parse(reply.text, kind)
            except Fault as fault:
                if reply:
                    fault.tokens, fault.said = reply.tokens, plain(reply.text) or reply.whole
                tokens = fault.tokens
                cost = self._cost(tokens, fault.sent, worst, size, reply)
                self._learn(tokens, size, reply)
                said = reply.text[:2000].encode(errors="replace").decode() if reply else None
                await self.ledger.came(number, fault.kind, said, None, tokens, cost)
                if fault.kind in USELESS:
                    self._alive()
                raise
            except ServiceError as error:
                self.wrong = error
                cost = 0.0 if self.price else None
                await self.ledger.came(number, "rejected", None, None, UNKNOWN, cost)
                raise
            cost = self._cost(reply.tokens, True, worst, size, reply)
            self._learn(reply.tokens, size, reply)
            record = await self.ledger.came(
                number, "ok", reply.text, reply.model, reply.tokens, cost
            )
        finally:
            await self.budget.settle(worst, cost)
        self._alive()
        self.streak.end()
        self.gate.answered()
        return parsed, record

    def _worst(self, size: int) -> float | None:
        """The most that a request of `size` bytes is known to cost; None: unknown price."""
        if self.price is None:
            return None
        return self.price.cost(size + self.overhead, self.longest)

    def _learn(self, tokens: Tokens, size: int, reply: Reply | None) -> None:
        """Reserve more from now on, if a service counts more than was reserved: it has a prompt of
        its own, or ignores the limit that it was given."""
        written = _written(tokens, reply)
        self.overhead = max(self.overhead, (tokens[0] or 0) - size)
        if written <= self.longest:
            return
        if self.longest == self.max_tokens:
            say(
                f"{self.service.name} wrote {written} tokens where {self.max_tokens} were allowed: "
                "it may not read the limit (token_limit_field). What it writes is paid for; from "
                "now on that much is reserved"
            )
        self.longest = written

    def _cost(
        self, tokens: Tokens, sent: bool, worst: float | None, size: int, reply: Reply | None
    ) -> float | None:
        """What one request cost; its worst cost where it may have been charged and nobody said."""
        if self.price is None or worst is None:
            return None
        if not sent:
            return 0.0
        if tokens[0] is None or tokens[1] is None:
            return max(worst, self.price.cost(size, _written(tokens, reply)))
        return self.price.cost(tokens[0], tokens[1])

    def _alive(self) -> None:
        self.failures, self.last_answer = 0, time.time()

    def _slow_down(self, fault: Fault) -> None:
        if (fault.retry_after or 0) >= SAID_SECONDS and time.time() >= self.gate.until:
            say(f"{self.service.name} asks to wait {fault.retry_after:.0f} s")
        self.gate.refused(fault.retry_after)
        if fault.kind == "rate_limit":
            self.failures = 0  # a service that says no is there
        else:
            self._check_alive(fault)

    def _check_useful(self, fault: Fault, row: str) -> None:
        """Give up a service that answers row after row in the same useless way."""
        if not self.streak.is_hopeless(fault, row):
            return
        times, rows = self.streak.count, len(self.streak.rows)
        self.dead = ServiceError(
            f"{self.service.name} gives no answer that can be used: {fault.kind}, {times} times in "
            f"a row, over {rows} rows",
            found=fault.said or plain(fault.detail),
            do="check its model, address, options and prompt; then run again, every answer is kept",
        )
        raise self.dead from fault

    def _check_alive(self, fault: Fault) -> None:
        """Give up a service that nobody reaches, or that is silent for `patience` seconds."""
        self.failures += 1
        if self.failures == 1:
            self.first_failure = time.time()
        absent = self.last_answer == 0.0 and fault.kind == "connection"
        silent = time.time() - self.first_failure > self.settings.patience
        if self.failures >= HOPELESS and (absent or silent):
            self.dead = ServiceError(
                f"{self.service.name} does not answer",
                found=fault,
                do="check that it runs and its address; then run again, every answer is kept",
            )
            raise self.dead

    async def _sleep(self, fault: Fault) -> None:
        """Out of quota: nobody asks before the reset, in this sitting or the next."""
        if not self.settings.wait_for_quota:
            self.dead = ServiceError(
                f"the quota of {self.service.name} is used up",
                found=fault.detail,
                do="run again when it is back, or set requests.wait_for_quota: true",
            )
            raise self.dead
        now = time.time()
        if self.gate.until > now:
            return  # those in flight hear of it one after the other
        until = max(quota_back(fault.retry_after, self.settings.quota_reset_hour), now + 1.0)
        if self.last_answer < self.reset <= now < self.reset + LATE_FOR_SECONDS:
            until = min(until, now + LATE_SECONDS)  # the reset is late: ask again soon
        else:
            self.reset = until
        self.gate.close_until(until)
        await self.ledger.pause(self.service.name, until)
        self._say_asleep()

    def _say_asleep(self) -> None:
        until = datetime.fromtimestamp(self.gate.until, UTC)
        seconds = self.gate.until - time.time()
        say(
            f"{self.service.name}: the quota is used up; asleep until {until:%Y-%m-%d %H:%M:%S} UTC"
            f" ({seconds:.0f} s). Every answer is kept; stopping now loses nothing"
        )


def _written(tokens: Tokens, reply: Reply | None) -> int:
    """Tokens of an answer; by its length where the service counts nothing, since it may have
    ignored the limit too."""
    if tokens[1] is not None:
        return tokens[1]
    return len(reply.text) // CHARACTERS_PER_TOKEN if reply else 0
