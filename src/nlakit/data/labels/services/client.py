"""The HTTP client under the SDKs: what is read has a limit, and an error sent as a success gets the
status that it stands for."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

MOST_BYTES = 4 << 20  # of one response; an answer of 600 tokens takes a thousandth
TOO_LARGE = f"the response is longer than {MOST_BYTES} bytes"
SERVER_ERROR = 500
# What an error says where it names no status; the first that matches counts.
WORDS = tuple(
    (re.compile(pattern, re.IGNORECASE), status)
    for pattern, status in (
        (r"insufficient|credit|billing|payment", 402),
        (r"rate.?limit|too many requests|quota|throttl|resource.?exhausted", 429),
        (r"overload|unavailable|capacity|\bbusy\b|still loading", 503),
        (r"api.?key|unauthori[sz]ed|authenticat|credential|\bauth\b", 401),
        (r"not.?found|does not exist|no such model|unknown model", 404),
        (r"context.?length|maximum context|invalid|unsupported|bad request", 400),
    )
)
# The bodies of the request in hand: a list, since an SDK may read them in a task of its own.
bodies: ContextVar[list[bytes]] = ContextVar("bodies")


def client(timeout: float, connections: int) -> Any:
    """An `httpx2.AsyncClient`; the body of a response with status 200 goes to `bodies`, if set."""
    import httpx2

    class Capped(httpx2.AsyncByteStream):
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for piece in self.inner:
                size += len(piece)
                if size > MOST_BYTES:
                    raise httpx2.ReadError(TOO_LARGE)
                yield piece

        async def aclose(self) -> None:
            await self.inner.aclose()

    async def look(response: Any) -> None:
        response.stream = Capped(response.stream)
        if response.status_code != 200:
            return
        body = await response.aread()
        if (heard := bodies.get(None)) is not None:
            heard.append(body)
        # The SDK then raises what it raises for a server that says so in the usual way.
        response.status_code = true_status(body) or 200

    # A hook and not a transport: with one of our own the client would ignore HTTPS_PROXY.
    return httpx2.AsyncClient(
        event_hooks={"response": [look]},
        limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        timeout=timeout,
    )


def mapping(body: bytes) -> dict[str, Any] | None:
    """The JSON mapping in a body; None if it is something else."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def true_status(body: bytes) -> int | None:
    """The status of the error that a body holds, at its top or in its first choice: the one that it
    names, else what its words say, else that of a server's fault. None if it holds no error."""
    data = mapping(body) or {}
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    error = data.get("error") or (data if data.get("object") == "error" else None)
    if not error and isinstance(first, dict):
        error = first.get("error")
    if not error:
        return None
    for name in ("code", "status", "status_code") if isinstance(error, dict) else ():
        named = str(error.get(name))
        if re.fullmatch(r"[45]\d\d", named):
            return int(named)
    said = json.dumps(error)
    return next((status for words, status in WORDS if words.search(said)), SERVER_ERROR)
