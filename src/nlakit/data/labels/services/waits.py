"""How long to wait: what a service asks for, a daily reset, and backing off."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

LONGEST_WAIT = 2 * 86400.0  # seconds; a service that asks for more has miscounted
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 60.0  # seconds
DEFAULT_QUOTA_SECONDS = 3600.0
PART = re.compile(r"([\d.]+)(ms|h|m|s)")
UNIT = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Stopped(Exception):
    """Nothing new is begun any more."""


async def nap(seconds: float, stop: asyncio.Event) -> None:
    """Sleep, at most until the work is stopped. Raises Stopped."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    if stop.is_set():
        raise Stopped


def backoff(attempt: int) -> float:
    """Seconds to wait before attempt 1, 2, ...: doubling, with full jitter, so that requests that
    failed together do not come back together."""
    return random.uniform(0.1, 1.0) * min(FIRST_BACKOFF * 2 ** (attempt - 1), LONGEST_BACKOFF)


def asked_to_wait(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that the lower-case headers of a refusal ask to wait, None if they do not say.

    Retry-After with a fraction, which HTTP does not know but servers send; Anthropic's time of
    reset (RFC 3339); OpenAI's duration (`1h6m0.5s`).
    """
    headers, told = headers or {}, None
    wrong = (KeyError, ValueError, TypeError, OverflowError)
    with contextlib.suppress(*wrong):
        parts = PART.findall(headers["x-ratelimit-reset-requests"])
        told = sum(float(number) * UNIT[unit] for number, unit in parts) if parts else None
    with contextlib.suppress(*wrong):
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
        told = (reset - datetime.now(UTC)).total_seconds()
    with contextlib.suppress(*wrong):
        told = float(headers["retry-after"])
    return min(max(told, 0.0), LONGEST_WAIT) if told is not None and told == told else None


def next_hour(hour: float, now: float) -> float:
    """Unix time at which it is next `hour` o'clock UTC."""
    moment = datetime.fromtimestamp(now, UTC)
    at = moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(hours=hour)
    return (at if at > moment else at + timedelta(days=1)).timestamp()


def quota_back(retry_after: float | None, reset_hour: float | None) -> float:
    """Unix time until which a daily quota is used up: from the answer, else at the configured hour,
    else in an hour."""
    now = time.time()
    if retry_after is not None:
        return now + retry_after
    return next_hour(reset_hour, now) if reset_hour is not None else now + DEFAULT_QUOTA_SECONDS
