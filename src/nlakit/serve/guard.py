"""What stands before every route: who may ask, how large, how often, how long; and what becomes of
a client that leaves."""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse

from nlakit.serve.answers import SOON, refusal
from nlakit.serve.metrics import Metrics
from nlakit.serve.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
# What needs no token: a container asks whether the service is alive, a person is asked for it.
ENTER = "/explore/enter"
OPEN = ("/health", ENTER, "/explore/static/explorer.css", "/explore/static/icon.svg")
FRONT = "/explore"
COOKIE = "nlakit_token"
DRAINED = 16  # bodies over the limit are read, and dropped, up to so many times the limit
CLIENTS = 10_000  # whose rates are remembered
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
LAST = 1.0  # seconds for the last words to a client that may not be reading


class Left(Exception):
    """The client is gone."""


class Guard:
    """ASGI middleware. The application behind it gets a body that is there as a whole, and is
    cancelled where its client leaves or its time is over."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.rates = Rates(settings.rate)
        self.answering = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # there are no web sockets here
            return None
        began, sent = time.monotonic(), Sent(send)
        self.answering += 1
        try:
            refused = self._refused(scope)
            body = b"" if refused else await self._body(receive)
            if body is None:
                limit = self.settings.body_bytes
                refused = refusal(413, f"the body is larger than {limit} bytes")
            if refused:
                await refused(scope, receive, sent)
            else:
                await self._answer(scope, body or b"", receive, sent)
        except TimeoutError:
            await refusal(408, "the body came too slowly")(scope, receive, sent)
        except Left:
            self.metrics.left.inc()
        finally:
            self.answering -= 1
            # The pattern of the route, never what was asked for: a label has few values.
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(sent.status or "none")).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - began)
        return None

    def _refused(self, scope: Scope) -> Any:
        """A refusal before the body is read, or None."""
        headers, token = Headers(scope=scope), self.settings.token
        if token is None:
            host = headers.get("host", "")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in self.settings.hosts:
                return refusal(403, "this service answers to the names of its own machine only")
        elif scope["path"] not in OPEN and not _shown(headers, token):
            if scope["path"] == FRONT and scope["method"] == "GET":
                return RedirectResponse(scope.get("root_path", "") + ENTER, 303)
            told = {"WWW-Authenticate": "Bearer"}
            return refusal(401, "a valid token is needed", headers=told)
        if self.answering > self.settings.requests and scope["path"] not in OPEN:
            return refusal(503, "too many requests are being answered", headers=SOON)
        wait = self.rates.wait(_client(scope)) if scope["method"] == "POST" else 0.0
        if wait:
            told = {"Retry-After": str(math.ceil(wait))}
            return refusal(429, "too many requests", headers=told)
        return None

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None for one over the limit, which is read to its end first: a client
        that is still sending would not see the answer. Raises TimeoutError, or Left."""
        limit, parts, size = self.settings.body_bytes, [], 0
        async with asyncio.timeout(self.settings.body_seconds):
            while size <= DRAINED * limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Left
                part = message.get("body", b"")
                size += len(part)
                if size <= limit:
                    parts.append(part)
                else:
                    parts.clear()
                if not message.get("more_body", False):
                    break
        return b"".join(parts) if size <= limit else None

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, sent: Sent) -> None:
        gone = asyncio.Event()
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            for message in whole:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.ensure_future(self.app(scope, replay, sent))
        watching = asyncio.ensure_future(watch())
        try:
            await asyncio.wait(
                {work, watching}, timeout=self.settings.seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )  # fmt: skip
            if work.done() or sent.complete:  # servers report an answer's end as a disconnect too
                await work
                return
            left = watching.done()
            await _cancelled(work)
            if left:
                raise Left
            await self._too_long(scope, replay, sent)
        finally:
            gone.set()
            await _cancelled(watching, work)

    async def _too_long(self, scope: Scope, receive: Receive, sent: Sent) -> None:
        said = f"the request took longer than {self.settings.seconds:g} s"
        try:
            async with asyncio.timeout(LAST):
                if not sent.status:
                    return await refusal(504, said)(scope, receive, sent)
                if sent.events:
                    line = f"data: {json.dumps({'error': said})}\n\n".encode()
                    await sent({"type": "http.response.body", "body": line})
        except TimeoutError:
            pass  # it does not read
        return None


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    """End tasks and wait for it; a failed one keeps its error."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _shown(headers: Headers, token: str) -> bool:
    """Whether a request shows the token: as a bearer, in either header of Neuronpedia's clients,
    or in the cookie of a browser."""
    cookies = (part.strip() for part in headers.get("cookie", "").split(";"))
    shown = [
        headers.get("authorization", "").removeprefix("Bearer ").strip(),
        headers.get("x-secret-key", ""),
        headers.get("x-api-key", ""),
        *(part.removeprefix(f"{COOKIE}=") for part in cookies if part.startswith(f"{COOKIE}=")),
    ]
    wanted = token.encode()
    # Each is compared, in a time that does not tell how much of it is right.
    found = [hmac.compare_digest(one.encode(), wanted) for one in shown]
    return any(found)


def _client(scope: Scope) -> str:
    return (scope.get("client") or ("",))[0]


class Rates:
    """A bucket of requests a client, refilled at `rate` a minute."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.left: dict[str, tuple[float, float]] = {}

    def wait(self, client: str) -> float:
        """Seconds until this client may ask; 0 lets it, and takes one from its bucket."""
        if not self.rate:
            return 0.0
        now, filled = time.monotonic(), self.rate / 60
        had, then = self.left.pop(client, (float(self.rate), now))
        has = min(self.rate, had + (now - then) * filled)
        allowed = has >= 1
        self.left[client] = (has - allowed, now)
        if len(self.left) > CLIENTS:  # the one that has not asked for longest
            del self.left[next(iter(self.left))]
        return 0.0 if allowed else (1 - has) / filled


class Sent:
    """What has gone to the client so far."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.status, self.events, self.complete = 0, False, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            self.events = (b"content-type", b"text/event-stream; charset=utf-8") in headers
            known = {name for name, _ in headers}
            more = [one for one in HEADERS if one[0] not in known]
            message = {**message, "headers": [*headers, *more]}
        await self.send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
