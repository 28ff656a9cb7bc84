"""What can go wrong with one request that another request may cure."""

from __future__ import annotations

# The service is busy or away: wait, then ask again. Nothing is charged for the first three.
BUSY = frozenset({"rate_limit", "quota", "overloaded"})
AWAY = frozenset({"server", "connection", "timeout", "protocol"})
# The service answered with something useless: ask again, a limited number of times.
USELESS = frozenset({"empty", "invalid", "unreadable", "refusal", "cut_off", "too_large"})


Tokens = tuple[int | None, int | None]  # in and out, None where the service did not say
UNKNOWN: Tokens = (None, None)


class Fault(Exception):
    """A request that brought no usable answer.

    retry_after: seconds that the service asked to wait. sent: whether the request may have reached
    the model, so that it may be charged.
    """

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        retry_after: float | None = None,
        sent: bool = True,
        tokens: Tokens = UNKNOWN,
    ) -> None:
        assert kind in BUSY | AWAY | USELESS, kind
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail, self.retry_after = kind, detail, retry_after
        self.sent, self.tokens = sent and kind not in BUSY, tokens


class RowFailed(Exception):
    """A row for which a labeler has no label; `reason` goes into the table. sent: requests."""

    def __init__(self, reason: str, sent: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.sent = reason, sent
