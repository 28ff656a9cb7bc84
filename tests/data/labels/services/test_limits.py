"""Gates and budgets: how many, how fast, how much."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.data.labels.services import limits
from nlakit.data.labels.services.ledger import Spent
from nlakit.data.labels.services.limits import Budget, Gate
from nlakit.data.labels.services.waits import (
    Stopped,
    asked_to_wait,
    backoff,
    nap,
    next_hour,
    quota_back,
)
from nlakit.errors import LimitReached


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_next_hour_by_hand() -> None:
    now = at("2026-03-01T09:30:00")
    assert next_hour(10, now) == at("2026-03-01T10:00:00")
    assert next_hour(9.5, now) == at("2026-03-02T09:30:00")
    assert next_hour(0, now) == at("2026-03-02T00:00:00")


def test_what_services_ask_to_wait() -> None:
    assert asked_to_wait(None) is None
    assert asked_to_wait({"retry-after": "0.75"}) == 0.75
    assert asked_to_wait({"retry-after": "soon"}) is None
    assert asked_to_wait({"x-ratelimit-reset-requests": "1h6m0.5s"}) == 3960.5
    assert asked_to_wait({"x-ratelimit-reset-requests": "120ms"}) == pytest.approx(0.12)
    assert asked_to_wait({"retry-after": "inf"}) == 2 * 86400
    assert asked_to_wait({"retry-after": "nan"}) is None
    assert asked_to_wait({"retry-after": "-3"}) == 0
    assert asked_to_wait({"x-ratelimit-reset-requests": "1.2.3s"}) is None
    assert asked_to_wait({"anthropic-ratelimit-requests-reset": "2026-01-01T00:00:00"}) is None
    later = datetime.fromtimestamp(time.time() + 90, UTC).isoformat()
    assert asked_to_wait({"anthropic-ratelimit-requests-reset": later}) == pytest.approx(90, abs=5)


def test_a_quota_is_back_when_the_answer_says_else_at_the_hour() -> None:
    now = time.time()
    assert quota_back(30, 5) == pytest.approx(now + 30, abs=5)
    assert quota_back(None, 5) == pytest.approx(next_hour(5, now), abs=5)
    assert quota_back(None, None) == pytest.approx(now + 3600, abs=5)


@given(st.integers(1, 40))
def test_backoff_doubles_within_bounds(attempt: int) -> None:
    most = min(0.5 * 2 ** (attempt - 1), 60.0)
    assert 0.1 * most <= backoff(attempt) <= most


def test_window_doubles_then_halves_then_creeps() -> None:
    gate = Gate(8, asyncio.Event())
    for _ in range(7):
        gate.answered()
    assert gate.window == 8
    gate.answered()
    assert gate.window == 8  # never above what the user allows
    gate.refused(0.0)
    assert gate.window == 4
    gate.answered()
    assert gate.window == 4.25


def test_refusals_of_one_burst_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(8, asyncio.Event())
    gate.window = 8
    monkeypatch.setattr(limits.time, "time", lambda: 1000.0)
    for _ in range(8):
        gate.refused(5.0)
    assert gate.window == 4
    assert 1005.0 <= gate.until <= 1005.5


def test_a_wait_of_zero_still_backs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(8, asyncio.Event())
    monkeypatch.setattr(limits.time, "time", lambda: 1000.0)
    gate.refused(0.0)
    assert gate.until >= 1000.05


def test_gate_never_lets_in_more_than_its_window() -> None:
    async def work() -> int:
        gate, most, inside = Gate(4, asyncio.Event()), 0, 0
        gate.window = 3.9

        async def one() -> None:
            nonlocal most, inside
            async with gate.entered():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

        await asyncio.gather(*(one() for _ in range(30)))
        return most

    assert asyncio.run(work()) == 3


def test_a_pause_holds_and_a_stop_ends_it() -> None:
    async def work() -> float:
        stop = asyncio.Event()
        gate = Gate(2, stop)
        gate.close_until(time.time() + 60)

        async def enter() -> None:
            async with gate.entered():
                raise AssertionError("nobody enters in a pause")

        task = asyncio.create_task(enter())
        await asyncio.sleep(0.05)
        started = time.monotonic()
        stop.set()
        with pytest.raises(Stopped):
            await task
        with pytest.raises(Stopped):
            await nap(60, stop)
        return time.monotonic() - started

    assert asyncio.run(work()) < 5


def test_the_worst_case_of_all_in_flight_is_reserved() -> None:
    async def work() -> None:
        budget = Budget(Spent(cost=0.4), max_cost=1.0, max_requests=None, max_rows=None)
        await budget.reserve(lambda: 0.3)
        await budget.reserve(lambda: 0.3)
        third = asyncio.create_task(budget.reserve(lambda: 0.3))
        await asyncio.sleep(0.01)
        assert not third.done()  # 0.4 + 0.6 leaves nothing
        await budget.settle(0.3, 0.05)
        await asyncio.sleep(0.01)
        assert not third.done()  # 0.45 + 0.3 + 0.3 > 1
        await budget.settle(0.3, 0.05)
        await third  # 0.5 + 0.3
        await budget.settle(0.3, 0.3)
        with pytest.raises(LimitReached, match="max_cost.*0.8000, and one more may cost"):
            await budget.reserve(lambda: 0.3)

    asyncio.run(work())


def test_requests_and_rows_are_counted_before_they_begin() -> None:
    async def work() -> None:
        budget = Budget(Spent(requests=2), max_cost=None, max_requests=3, max_rows=1)
        await budget.reserve(lambda: None)
        with pytest.raises(LimitReached, match="max_requests; found: 3 requests"):
            await budget.reserve(lambda: None)
        budget.begin_row()
        with pytest.raises(LimitReached, match="max_rows"):
            budget.begin_row()

    asyncio.run(work())


def test_who_waited_for_money_is_still_counted() -> None:
    """Two wait for room within max_cost; max_requests lets only one of them go."""

    async def work() -> list[object]:
        budget = Budget(Spent(), max_cost=1.0, max_requests=2, max_rows=None)
        await budget.reserve(lambda: 0.9)
        waiting = [asyncio.create_task(budget.reserve(lambda: 0.4)) for _ in range(2)]
        await asyncio.sleep(0.01)
        await budget.settle(0.9, 0.1)
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert budget.requests == 2
        return found

    found = asyncio.run(work())
    assert sorted(type(one).__name__ for one in found) == ["LimitReached", "float"]


def test_who_waited_for_money_reserves_what_is_known_by_then() -> None:
    """0.4 would fit behind the first request, which shows that one costs 1.2."""

    async def work() -> None:
        budget, known = Budget(Spent(), max_cost=2.0, max_requests=None, max_rows=None), [1.8]
        await budget.reserve(lambda: known[0])
        known[0] = 0.4
        waiting = asyncio.create_task(budget.reserve(lambda: known[0]))
        await asyncio.sleep(0.01)
        known[0] = 1.2
        await budget.settle(1.8, 1.2)
        with pytest.raises(LimitReached, match="one more may cost .1.2000"):
            await waiting

    asyncio.run(work())


def test_an_unknown_cost_is_not_zero() -> None:
    async def work() -> Budget:
        budget = Budget(Spent(), None, None, None)
        await budget.reserve(lambda: None)
        await budget.settle(None, None)
        return budget

    assert asyncio.run(work()).unpriced == 1
