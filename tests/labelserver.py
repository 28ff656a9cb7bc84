"""A stand-in for a label provider: an OpenAI-compatible server that can fail in every known way.

Its answers are a pure function of the messages, so that runs can be compared, or come from a real
server behind it (`upstream`). Faults are drawn by request number and not by content, so that a
retry can succeed. In process: `LabelServer` or `running`; as a process:

    python tests/labelserver.py --port 0 --faults 0.2 --seed 7 --log requests.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlsplit

KINDS = tuple(
    """429 429_retry_after 500 503 hang cut truncated_json invalid_json bad_content empty refusal
    unicode wrong_type huge length""".split()
)
HUGE_BYTES = 50 * 1024 * 1024
FILLER = b"x" * 65536
POLL_SECONDS = 0.1
CREATED = 1_700_000_000  # a clock would make equal answers differ
REFUSAL = "I'm sorry, but I can't assist with that."
ERRORS = {
    400: (
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 4096 tokens. However, your messages resulted in "
        "5000 tokens. Please reduce the length of the messages.",
    ),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: (
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1.",
    ),
    500: ("server_error", "internal_error", "The server had an error. Please retry."),
    503: ("server_error", "overloaded", "The engine is currently overloaded."),
}
DAILY_LIMIT = "Rate limit reached: the daily limit on requests per day (RPD) is reached."

FORMS = """article letter story report speech poem recipe scene contract review diary lecture
    """.split()
ADJECTIVES = """narrow patient broken early distant formal bitter golden hidden local heavy modern
    quiet rough silver tired wealthy wooden young empty crowded careful gentle sudden""".split()
NOUNS = """harbour engine ledger violin garden psalm river market soldier widow comet statute
    kitchen orchard senator bridge lantern ship debt fever glacier printer tailor wolf theorem
    village cathedral merchant nurse furnace canal treaty orchestra dairy carriage desert island
    prophet queen railway saddle temple umbrella voyage winter castle pepper enzyme""".split()
VERBS = "compares joins replaces measures blames praises repairs contrasts sells weighs".split()


@dataclass(frozen=True)
class Settings:
    """What the server does; a field of the same name is an option of the command line."""

    port: int = 0
    delay: float = 0.0  # seconds before every answer
    settle: float = 0.0  # answer once no request has come for so long: all who may ask are here
    faults: float = 0.0  # chance of a fault
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    retry_after: float = 1.0  # of the fault 429_retry_after
    quota: int = 0  # answers until the daily limit; 0: none
    quota_seconds: float = 1.0  # from the limit to the next day
    quota_silent: bool = False  # do not tell when the next day begins
    status: int = 0  # answer everything with this status
    body: str = ""  # and this body; empty: OpenAI's error body
    upstream: str = ""  # http://host:port of the server that answers
    log: str = ""  # a JSON line a request

    def __post_init__(self) -> None:
        if unknown := set(self.kinds) - set(KINDS):
            raise ValueError(f"unknown kinds of fault: {sorted(unknown)}")


@dataclass(frozen=True)
class Request:
    """An HTTP request; header names are lower-case."""

    method: str
    path: str
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def keeps_alive(self) -> bool:
        return self.version != "HTTP/1.0" and self.headers.get("connection", "") != "close"


@dataclass(frozen=True)
class Chat:
    """A chat request and the deterministic answer to it."""

    prompt: str  # hash of messages and schema
    model: str
    content: str
    tokens_in: int

    @property
    def tokens_out(self) -> int:
        return -(-len(self.content.encode()) // 4)


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of the connection, None once the client has closed it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    method, path, version = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, version, headers, body)


def http(
    status: int, body: bytes, *, kind: str = "application/json", retry_after: float | None = None
) -> bytes:
    """A whole HTTP response."""
    head = (
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'Error'}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    )
    if retry_after is not None:
        head += f"Retry-After: {retry_after:.9g}\r\n"
    return head.encode() + b"\r\n" + body


def error(status: int, *, message: str = "", retry_after: float | None = None) -> bytes:
    """A response with OpenAI's error body."""
    kind, code, usual = ERRORS.get(status, ("error", "error", f"Error {status}."))
    record = {"message": message or usual, "type": kind, "param": None, "code": code}
    return http(status, json.dumps({"error": record}).encode(), retry_after=retry_after)


def completion(
    chat: Chat, content: str | None = None, *, finish: str = "stop", refusal: str | None = None
) -> bytes:
    """The body of a chat completion: the deterministic answer, or another content."""
    message = {
        "role": "assistant",
        "content": chat.content if content is None else content,
        "refusal": refusal,
    }
    return json.dumps(
        {
            "id": f"chatcmpl-{chat.prompt}",
            "object": "chat.completion",
            "created": CREATED,
            "model": chat.model,
            "choices": [
                {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
            ],
            "usage": {
                "prompt_tokens": chat.tokens_in,
                "completion_tokens": chat.tokens_out,
                "total_tokens": chat.tokens_in + chat.tokens_out,
            },
        }
    ).encode()


def parse_chat(body: bytes) -> Chat:
    """Raises ValueError, KeyError or TypeError if the body is no chat request."""
    asked = json.loads(body)
    messages = json.dumps(asked["messages"], ensure_ascii=False).encode(errors="surrogatepass")
    schema = ((asked.get("response_format") or {}).get("json_schema") or {}).get("schema") or {}
    whole = hashlib.blake2b(messages + json.dumps(schema).encode(), digest_size=8)
    content = json.dumps(answer(messages, schema))
    return Chat(whole.hexdigest(), asked.get("model", ""), content, -(-len(messages) // 4))


def answer(messages: bytes, schema: dict[str, Any]) -> Any:
    """What the schema asks for, drawn by the hash of the messages; a label without a schema."""
    rng = random.Random(hashlib.blake2b(messages, digest_size=8).digest())
    fixed: dict[str, Any] = {"features": features(rng)}
    if "verdict" in schema.get("properties", {}):
        fixed["verdict"] = rng.choices(["KEEP", "REVISE", "REJECT"], [80, 15, 5])[0]
        if fixed["verdict"] != "REVISE":
            fixed["features"] = []
    return fill(schema, schema.get("$defs", {}), rng, fixed) if schema else fixed


def features(rng: random.Random) -> list[str]:
    """Two or three closed sentences of 8 to 14 words, the last about the end of the text."""
    adjectives, nouns = rng.sample(ADJECTIVES, 4), rng.sample(NOUNS, 8)
    sentences = [
        f"The {rng.choice(FORMS)} describes the {adjectives[0]} {nouns[0]} and the "
        f"{adjectives[1]} {nouns[1]} near the {nouns[2]}.",
        f"Its present clause {rng.choice(VERBS)} the {nouns[3]} with the {adjectives[2]} "
        f"{nouns[4]}.",
        f"The text stops at the {nouns[5]} and next comes the {adjectives[3]} {nouns[6]}.",
    ]
    return sentences if rng.random() < 0.5 else [sentences[0], sentences[2]]


def fill(
    schema: dict[str, Any], defs: dict[str, Any], rng: random.Random, fixed: dict[str, Any]
) -> Any:
    """A value of a JSON schema; a property named in `fixed` takes its value from there."""
    if "$ref" in schema:
        schema = defs[schema["$ref"].rpartition("/")[2]]
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return rng.choice(choices)
    if options := schema.get("anyOf"):
        return fill(options[0], defs, rng, fixed)
    match schema.get("type"):
        case "object":
            return {
                name: fixed[name] if name in fixed else fill(part, defs, rng, fixed)
                for name, part in schema.get("properties", {}).items()
            }
        case "array":
            count = schema.get("minItems", 1)
            return [fill(schema.get("items", {}), defs, rng, fixed) for _ in range(count)]
        case "integer" | "number":
            return rng.randint(schema.get("minimum", 1), schema.get("maximum", 5))
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
    return features(rng)[0]


def fault(kind: str, turn: int, chat: Chat, retry_after: float) -> bytes:
    """The response of a fault; `turn` counts the faults of this kind, for those with two forms."""
    half = chat.content[: len(chat.content) // 2]
    match kind:
        case "429" | "500" | "503":
            return error(int(kind))
        case "429_retry_after":
            return error(429, retry_after=retry_after)
        case "truncated_json":
            body = completion(chat)
            return http(200, body[: len(body) // 2])
        case "invalid_json":
            return http(200, b"not json")
        case "bad_content":
            return http(200, completion(chat, half))
        case "length":
            return http(200, completion(chat, half, finish="length"))
        case "empty":
            return http(200, completion(chat, ""))
        case "refusal":
            return http(200, completion(chat, REFUSAL, refusal=REFUSAL if turn % 2 else None))
        case "unicode" if turn % 2:
            return http(200, completion(chat, chat.content.replace("The ", "The \\ud800 ", 1)))
        case "unicode":
            return http(200, completion(chat).replace(b"The ", b"The \xff\xfe ", 1))
        case "wrong_type":
            page = b"<!doctype html><title>Bad gateway</title><p>Please try again later."
            return http(200, page, kind="text/html")
    return http(200, completion(chat))  # `cut` sends half of it


async def send_huge(writer: asyncio.StreamWriter, chat: Chat) -> None:
    """A valid completion with a huge content, from one shared piece of filler."""
    before, after = completion(chat, "\0").split(b"\\u0000")
    pieces = HUGE_BYTES // len(FILLER)
    length = len(before) + pieces * len(FILLER) + len(after)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode() + before)
    for _ in range(pieces):
        writer.write(FILLER)
        await writer.drain()
    writer.write(after)


async def forward(upstream: str, request: Request) -> tuple[int, bytes]:
    """Status and body of the answer of the server behind this one."""
    address = urlsplit(upstream)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        # HTTP/1.0 rules out a chunked answer, and the end of the connection ends the body.
        head = (
            f"{request.method} {request.path} HTTP/1.0\r\nHost: {address.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(request.body)}\r\n\r\n"
        )
        writer.write(head.encode() + request.body)
        first, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    return int(first.split()[1]), body


@dataclass
class Stats:
    """What has happened so far. `faults` also counts `quota`, `status`, `upstream` and `gone`
    (the client left before the answer); tokens are those of answered requests."""

    requests: int = 0
    answered: int = 0
    in_flight: int = 0
    max_in_flight: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    prompts: set[str] = field(default_factory=set)
    answered_prompts: set[str] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "faults": dict(self.faults),
            "prompts": len(self.prompts),
            "answered_prompts": len(self.answered_prompts),
        }


class LabelServer:
    """The server. `settings` may be replaced while it runs; `last` is the last chat request."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.stats = Stats()
        self.last: Request | None = None
        self.port = 0
        self._quota_used, self._quota_reset, self._came = 0, 0.0, 0.0
        self._connections: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self._log: TextIO | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self) -> None:
        if self.settings.log:
            self._log = Path(self.settings.log).open("a", buffering=1, encoding="utf-8")  # noqa: SIM115 (`stop` closes it)
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.settings.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()
        if self._log is not None:
            self._log.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await read_request(reader)) is not None:
                open_after = await self._respond(request, reader, writer)
                await writer.drain()
                if not (open_after and request.keeps_alive):
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the server stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _respond(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; returns whether the connection may serve another."""
        if not request.path.endswith("/chat/completions"):
            writer.write(self._page(request.path))
            return True
        try:
            chat = parse_chat(request.body)
        except (ValueError, KeyError, TypeError) as wrong:
            writer.write(error(400, message=f"no chat request: {wrong!r}"))
            return True
        stats, start = self.stats, time.monotonic()
        self._came = start
        stats.requests += 1
        number, self.last = stats.requests, request
        stats.prompts.add(chat.prompt)
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        outcome = "gone"
        try:
            if self.settings.delay:
                await asyncio.sleep(self.settings.delay)
            while (wait := self.settings.settle - (time.monotonic() - self._came)) > 0:
                await asyncio.sleep(wait)
            if not reader.at_eof():
                outcome = self._outcome(number)
                outcome = await self._send(outcome, chat, request, reader, writer)
        finally:
            stats.in_flight -= 1
            self._record(outcome, chat, number, time.monotonic() - start)
        return outcome not in ("hang", "cut", "gone")

    def _outcome(self, number: int) -> str:
        """`answered`, or why this request gets no answer."""
        s = self.settings
        if s.status:
            return "status"
        if s.quota and self._quota_used >= s.quota:
            if time.monotonic() < self._quota_reset:
                return "quota"
            self._quota_used = 0
        if s.faults:
            rng = random.Random(f"{s.seed}:{number}")
            if rng.random() < s.faults:
                return rng.choice(s.kinds)
        self._quota_used += 1
        if s.quota and self._quota_used == s.quota:
            self._quota_reset = time.monotonic() + s.quota_seconds
        return "answered"

    async def _send(
        self,
        outcome: str,
        chat: Chat,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> str:
        """Write what the outcome asks for; returns the outcome, which an upstream may change."""
        s = self.settings
        match outcome:
            case "answered" if s.upstream:
                return await self._pass_on(chat, request, reader, writer)
            case "answered":
                writer.write(http(200, completion(chat)))
                self._count(chat, chat.tokens_in, chat.tokens_out)
            case "status":
                writer.write(http(s.status, s.body.encode()) if s.body else error(s.status))
            case "quota":
                left = math.ceil(1000 * (self._quota_reset - time.monotonic())) / 1000
                told = None if s.quota_silent else max(left, 0.0)
                writer.write(error(429, message=DAILY_LIMIT, retry_after=told))
            case "hang":
                while await reader.read(65536):
                    pass
            case "huge":
                await send_huge(writer, chat)
            case _:
                data = fault(outcome, self.stats.faults[outcome], chat, s.retry_after)
                body = len(data) - data.index(b"\r\n\r\n") - 4
                writer.write(data[: -(body // 2)] if outcome == "cut" else data)
        return outcome

    async def _pass_on(
        self,
        chat: Chat,
        request: Request,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> str:
        """Let the upstream answer, and stop it as soon as the client leaves."""
        asked = asyncio.create_task(forward(self.settings.upstream, request))
        while not asked.done():
            await asyncio.wait({asked}, timeout=POLL_SECONDS)
            if reader.at_eof():
                asked.cancel()
                return "gone"
        try:
            status, body = asked.result()
        except (OSError, IndexError, ValueError) as broken:
            status, body = 502, repr(broken).encode()
        writer.write(http(status, body))
        if status != 200:
            return "upstream"
        usage = json.loads(body)["usage"]
        self._count(chat, usage["prompt_tokens"], usage["completion_tokens"])
        return "answered"

    def _count(self, chat: Chat, tokens_in: int, tokens_out: int) -> None:
        self.stats.answered += 1
        self.stats.answered_prompts.add(chat.prompt)
        self.stats.tokens_in += tokens_in
        self.stats.tokens_out += tokens_out

    def _record(self, outcome: str, chat: Chat, number: int, seconds: float) -> None:
        if outcome != "answered":
            self.stats.faults[outcome] += 1
        if self._log is not None:
            line = {"number": number, "prompt": chat.prompt, "outcome": outcome}
            self._log.write(json.dumps({**line, "seconds": round(seconds, 4)}) + "\n")

    def _page(self, path: str) -> bytes:
        if path == "/stats":
            return http(200, json.dumps(self.stats.as_dict()).encode())
        if path == "/health":
            return http(200, b'{"status": "ok"}')
        if path == "/v1/models":
            model = {"id": "labelserver", "object": "model", "created": CREATED, "owned_by": "test"}
            return http(200, json.dumps({"object": "list", "data": [model]}).encode())
        return error(404, message=f"no such path: {path}")


@contextlib.contextmanager
def running(settings: Settings | None = None) -> Iterator[tuple[str, LabelServer]]:
    """A server in a background thread, and its base URL."""
    server, loop = LabelServer(settings), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait_for(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(10)

    try:
        wait_for(server.start())
        yield server.base_url, server
        wait_for(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def parse_settings(arguments: Sequence[str]) -> Settings:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for item in fields(Settings):
        assert item.default is not MISSING
        option = "--" + item.name.replace("_", "-")
        if isinstance(item.default, bool):
            parser.add_argument(option, action="store_true")
        elif isinstance(item.default, tuple):
            parser.add_argument(option, nargs="+", default=item.default, choices=item.default)
        else:
            parser.add_argument(option, type=type(item.default), default=item.default)
    given = vars(parser.parse_args(arguments))
    return Settings(**{**given, "kinds": tuple(given["kinds"])})


async def main() -> None:
    server = LabelServer(parse_settings(sys.argv[1:]))
    await server.start()
    sys.stdout.write(f"listening on {server.base_url}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
