"""What can go wrong with one request that another request may cure."""

from __future__ import annotations

# The service is busy or away: wait, then ask again. Nothing is charged for the first three.
BUSY = frozenset({"rate_limit", "quota", "overloaded"})
AWAY = frozenset({"server", "connection", "timeout", "protocol"})
# The service answered with something useless: ask again, a limited number of times.
USELESS = frozenset({"empty", "invalid", "unreadable", "refusal", "cut_off", "too_large"})
HOPELESS_ROWS, LEAST_ATTEMPTS = 3, 6

Tokens = tuple[int | None, int | None]  # in and out, None where the service did not say
UNKNOWN: Tokens = (None, None)


class Fault(Exception):
    """A request that brought no usable answer.

    retry_after: seconds that the service asked to wait. sent: whether the request may have reached
    the model, so that it may be charged. said: what came instead of an answer, shortened.
    """

    def __init__(
        self,
        kind: str,
        detail: str = "",
        *,
        retry_after: float | None = None,
        sent: bool = True,
        tokens: Tokens = UNKNOWN,
        said: str = "",
    ) -> None:
        assert kind in BUSY | AWAY | USELESS, kind
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail, self.retry_after = kind, detail, retry_after
        self.sent, self.tokens, self.said = sent and kind not in BUSY, tokens, said


class Streak:
    """The last answers of one service, for as long as they fail in the same way.

    attempts: how many useless answers one row may get.
    """

    def __init__(self, attempts: int) -> None:
        # Few attempts a row would make a run of bad luck look like a rule.
        self.attempts, self.proven = max(attempts, LEAST_ATTEMPTS), False
        self.kind, self.count, self.rows = "", 0, set[str]()

    def end(self) -> None:
        """A usable answer came."""
        self.proven = True
        self.kind, self.count, self.rows = "", 0, set()

    def is_hopeless(self, fault: Fault, row: str) -> bool:
        """Count a fault of a row; returns whether asking on is of no use.

        That is so after three rows or more and the attempts of three rows; of one row, if no answer
        was ever usable. A refusal is the text's doing, where other texts were answered.
        """
        if fault.kind not in USELESS | {"protocol"}:
            return False
        if fault.kind != self.kind:
            self.kind, self.count, self.rows = fault.kind, 0, set()
        self.count += 1
        self.rows.add(row)
        early = not self.proven and fault.kind in USELESS - {"refusal"}
        enough = self.attempts if early else HOPELESS_ROWS * self.attempts
        excused = self.proven and fault.kind == "refusal"
        return len(self.rows) >= HOPELESS_ROWS and self.count >= enough and not excused


class RowFailed(Exception):
    """A row for which a labeler has no label; `reason` goes into the table. sent: requests."""

    def __init__(self, reason: str, sent: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.sent = reason, sent
