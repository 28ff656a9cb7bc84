"""Two personas over language-model services: one writes a label, the other audits it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nlakit.config.labels import LabelsConfig, RequestsConfig, ServiceConfig
from nlakit.core.text.lint import first_hard, lint
from nlakit.data.labels.labeler import Advance, Label, LabelRequest, ignore
from nlakit.data.labels.services.answers import LabelAnswer, Verdict, explanation
from nlakit.data.labels.services.asker import Answered, Asker
from nlakit.data.labels.services.faults import RowFailed
from nlakit.data.labels.services.ledger import Ledger
from nlakit.data.labels.services.limits import Budget
from nlakit.data.labels.services.prices import Prices, load_prices
from nlakit.data.labels.services.prompts import fenced, load_prompts, row_values
from nlakit.data.labels.services.service import ModelService, Service
from nlakit.data.labels.services.tool import ToolService
from nlakit.errors import ConfigError, LimitReached, ServiceError
from nlakit.run.progress import say

Build = Callable[[ServiceConfig, RequestsConfig], Service]


def build_service(config: ServiceConfig, settings: RequestsConfig) -> Service:
    """The service of a configuration. Raises ConfigError if it lacks a key, a package, a tool."""
    if config.kind == "tool":
        return ToolService(config, settings.timeout)
    return ModelService(config, settings.timeout, settings.concurrency)


def check_prices(settings: LabelsConfig, requests: RequestsConfig) -> Prices:
    """The price table. Raises ConfigError if a cost is limited that nobody can know."""
    prices = load_prices(requests.prices)
    unknown = sorted({one.name for one in settings.personas if prices.of(one.name) is None})
    if unknown and requests.max_cost is not None:
        raise ConfigError(
            "requests.max_cost needs a price for every service",
            found=f"no price of {', '.join(unknown)} in {prices.source}",
            do="add it to a table named by requests.prices, or use requests.max_requests",
        )
    return prices


@dataclass
class _Trail:
    """What a row took, over all services that were asked for it."""

    tokens_in: int | None = 0
    tokens_out: int | None = 0
    cost: float | None = 0.0
    attempts: int = 0
    repaired: int = 0
    labelled_at: str | None = None

    def add(self, answered: Answered[Any]) -> None:
        record = answered.record
        self.tokens_in = _sum(self.tokens_in, record.tokens_in)
        self.tokens_out = _sum(self.tokens_out, record.tokens_out)
        self.cost = _sum(self.cost, record.cost)
        self.attempts += answered.sent
        self.repaired += answered.repaired
        self.labelled_at = record.answered_at


Number = TypeVar("Number", int, float)


def _sum(total: Number | None, more: Number | None) -> Number | None:
    """The sum; unknown if a part is."""
    return None if total is None or more is None else total + more


class ServiceLabeler:
    """Labels by the services of the configuration, in their order; `rows` is how many rows the
    whole stage has. Its answers live in the store at `path`.

    Raises ConfigError, RunError and DataError for services, a store or prompts that cannot be
    used.
    """

    def __init__(
        self,
        settings: LabelsConfig,
        requests: RequestsConfig,
        path: Path,
        run: str,
        rows: int,
        build: Build = build_service,
    ) -> None:
        self.settings, self.rows, self.finished = settings, rows, 0
        self.concurrency = requests.concurrency
        self.prompts, prices = load_prompts(settings.prompts), check_prices(settings, requests)
        # A service named twice, as labeler and auditor, is one: its window counts for both.
        keys = [one.model_dump_json() for one in settings.personas]
        wanted = dict(zip(keys, settings.personas, strict=True))
        services = {key: build(one, requests) for key, one in wanted.items()}
        self.stop = asyncio.Event()
        self.ledger = Ledger(path, run)
        spent = self.ledger.at_start
        if requests.max_cost is not None and spent.unpriced:
            self.ledger.close()
            raise ConfigError(
                "requests.max_cost cannot hold: this run has sent requests of unknown price",
                found=f"{spent.unpriced} of {spent.requests} requests",
                do="use requests.max_requests, or another run folder",
            )
        self.budget = Budget(
            spent, requests.max_cost, requests.max_requests, requests.max_rows, self.stop
        )
        self.cost_before = spent.cost
        askers = {
            key: Asker(
                services[key], one.max_tokens, prices.of(one.name),
                self.ledger, self.budget, requests, self.stop,
            )
            for key, one in wanted.items()
        }  # fmt: skip
        self.askers = list(askers.values())
        self.labelers = [askers[key] for key in keys[: len(settings.services)]]
        self.auditor = askers[keys[-1]] if settings.auditor else None
        self.replaced: set[str] = set()
        self.runner = asyncio.Runner()

    def label(self, requests: Sequence[LabelRequest], advance: Advance = ignore) -> list[Label]:
        """Raises ServiceError if the services cannot go on, LimitReached at a limit; the answers
        that came until then are in the store."""
        return self.runner.run(self._label(requests, advance))

    async def _label(self, requests: Sequence[LabelRequest], advance: Advance) -> list[Label]:
        made: dict[int, Label] = {}
        limits: list[LimitReached] = []
        rows = iter(enumerate(requests))

        async def work() -> None:
            for place, request in rows:
                if self.stop.is_set():
                    return
                try:
                    made[place] = await self._row(request, advance)
                except LimitReached as reached:
                    # Others may be served from the store, or are in flight.
                    limits.append(reached)

        # Enough to keep every service busy: a row waits for one of them at a time.
        count = len(self.askers) * self.concurrency
        workers = [asyncio.create_task(work()) for _ in range(count)]
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            # What is in flight is paid for: let it come in, begin nothing new.
            self.stop.set()
            await asyncio.gather(*workers, return_exceptions=True)
            self.stop.clear()
        for worker in done:
            worker.result()
        if limits:
            raise limits[0]
        return [made[place] for place in range(len(requests))]

    async def _row(self, request: LabelRequest, advance: Advance) -> Label:
        begun = False

        def first() -> None:
            nonlocal begun
            if not begun:
                self.budget.begin_row()
            begun = True

        trail = _Trail()
        label = Label(request.row_id, None, "not_labelled")
        for place, asker in enumerate(self.labelers):
            try:
                label = await self._by(asker, request, trail, first)
                break
            except RowFailed as failed:
                trail.attempts += failed.sent
                label = self._made(request, trail, None, failed.reason, asker)
            except ServiceError:
                # A service that is away leaves its rows to the next; a wrong key or model does not.
                if asker.dead is None or place + 1 == len(self.labelers):
                    raise
                self._say_replaced(asker, self.labelers[place + 1])
        self.finished += 1
        advance(1, self.note())
        return label

    async def _by(
        self, asker: Asker, request: LabelRequest, trail: _Trail, first: Callable[[], None]
    ) -> Label:
        """A label by one labeler and the auditor. Raises RowFailed with the reason if none."""
        values = row_values(request, self.settings.max_characters)
        answered = await asker.ask(self.prompts.labeler.fill(values), LabelAnswer, first)
        trail.add(answered)
        text = explanation(answered.value.features)
        self._check(text, request, "")
        if self.auditor is None:
            return self._made(request, trail, text, None, asker)
        prompt = self.prompts.auditor.fill(values | {"label": fenced(text, "label")})
        try:
            audited = await self.auditor.ask(prompt, Verdict, first)
        except RowFailed as failed:
            raise RowFailed(f"audit_{failed.reason}", failed.sent) from failed
        trail.add(audited)
        verdict = audited.value
        if verdict.verdict == "REJECT":
            raise RowFailed("rejected")
        if verdict.verdict == "REVISE":
            text = explanation(verdict.features)
            self._check(text, request, "revised_")
        return self._made(request, trail, text, None, asker, verdict)

    def _check(self, text: str, request: LabelRequest, prefix: str) -> None:
        fault = first_hard(lint(text, request.text, self.settings.limits))
        if fault is not None:
            raise RowFailed(f"{prefix}{fault}")

    def _made(
        self,
        request: LabelRequest,
        trail: _Trail,
        text: str | None,
        reason: str | None,
        asker: Asker,
        verdict: Verdict | None = None,
    ) -> Label:
        return Label(
            request.row_id,
            text,
            reason,
            labeler_model=asker.service.name,
            auditor_model=self.auditor.service.name if self.auditor else None,
            verdict=verdict.verdict if verdict else "REJECT" if reason == "rejected" else None,
            audit_score=verdict.scores.mean if verdict else None,
            labeler_prompt=self.prompts.labeler.version,
            auditor_prompt=self.prompts.auditor.version if self.auditor else None,
            labelled_at=trail.labelled_at,
            tokens_in=trail.tokens_in,
            tokens_out=trail.tokens_out,
            cost=trail.cost,
            attempts=trail.attempts,
            repaired=trail.repaired,
        )

    def note(self) -> str:
        """Cost so far and cost to finish, in US dollars."""
        if self.budget.unpriced:
            return f"{self.budget.requests} requests, cost unknown"
        spent = self.budget.cost - self.cost_before
        left = spent / max(self.budget.rows, 1) * max(self.rows - self.finished, 0)
        return f"${self.budget.cost:.4f} so far, about ${left:.4f} to finish"

    def _say_replaced(self, asker: Asker, other: Asker) -> None:
        if asker.service.name not in self.replaced:
            self.replaced.add(asker.service.name)
            say(f"{asker.dead}; {other.service.name} takes over")

    def close(self) -> None:
        """Give back connections, the store and the event loop."""

        async def end() -> None:
            for asker in self.askers:
                await asker.service.close()

        try:
            self.runner.run(end())
            self.runner.close()
        finally:
            self.ledger.close()
