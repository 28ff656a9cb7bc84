"""What a service counts, for Prometheus."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
WINDOW = 30  # seconds over which tokens a second are counted


class Metrics:
    """Counters of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "nlakit_requests", "Requests answered.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "nlakit_request_seconds", "Time to the end of an answer.", ("route",),
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.first_token = Histogram(
            "nlakit_first_token_seconds", "Time from asking for an explanation to its first token.",
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.explanations = Counter(
            "nlakit_explanations", "Explanations written.", registry=self.registry
        )
        self.left = Counter(
            "nlakit_clients_left", "Requests whose client left.", registry=self.registry
        )
        self.tokens = Counter(
            "nlakit_tokens", "Tokens of explanations decoded.", registry=self.registry
        )
        self._recent: deque[tuple[float, int]] = deque()
        self._lock = Lock()
        self._gauges: dict[str, Gauge] = {}
        self.gauge("nlakit_tokens_per_second", f"Over the last {WINDOW} s.", self.speed)

    def gauge(self, name: str, about: str, value: Callable[[], float], pair: str = "") -> None:
        """A number that is asked for when it is read; one a pair, or one in all."""
        if name not in self._gauges:
            labels = ("pair",) if pair else ()
            self._gauges[name] = Gauge(name, about, labels, registry=self.registry)
        made = self._gauges[name]
        (made.labels(pair) if pair else made).set_function(value)

    def token(self) -> None:
        """One token more, from whichever thread."""
        self.tokens.inc()
        now = int(time.monotonic())
        with self._lock:
            if self._recent and self._recent[-1][0] == now:
                self._recent[-1] = (now, self._recent[-1][1] + 1)
            else:
                self._recent.append((now, 1))
                self._forget(now)

    def speed(self) -> float:
        with self._lock:
            self._forget(int(time.monotonic()))
            return sum(count for _, count in self._recent) / WINDOW

    def _forget(self, now: int) -> None:
        while self._recent and self._recent[0][0] <= now - WINDOW:
            self._recent.popleft()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
