"""Who may ask, how much, how often and how long; and that a service is unharmed by whoever does
otherwise."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from nlakit import NLA
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from nlakit.serve.guard import CLIENTS, Rates
from nlakit.serve.settings import Settings
from tests.conftest import D
from tests.serve.conftest import Client, listening, soon

TOKEN = "a-secret-of-this-test"
ONE = {"text": "The whale sings.", "positions": [1], "temperature": 0}
JSON = {"content-type": "application/json"}


def unharmed(client: Client) -> None:
    assert client.post("/explain", ONE).status_code == 200


# ---- who


def test_a_service_without_a_token_answers_to_its_own_machine_alone(client: Client) -> None:
    """Or a page of another site could point a name of its own here, and read the answers."""
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "LOCALHOST"):
        assert client.get("/health", headers={"host": host}).status_code == 200
    for host in ("example.org", "127.0.0.1.example.org:80", "", "localhost@example.org"):
        assert client.get("/health", headers={"host": host}).status_code == 403


def test_a_token_is_needed_everywhere_but_for_a_sign_of_life(engine: Engine) -> None:
    client = Client(create_app({"toy": engine}, Settings(token=TOKEN)))
    wrong: list[dict[str, str | bytes]] = [
        {}, {"authorization": "Bearer x"}, {"x-secret-key": TOKEN[:-1]},
        {"cookie": "nlakit_token="}, {"x-api-key": b"\xff"},
    ]  # fmt: skip
    for shown in wrong:
        for path in ("/", "/metrics", "/openapi.json", "/api/nla/sources", "/nothing"):
            answer = client.get(path, headers=shown)
            assert (answer.status_code, answer.json()["error"]) == (401, "a valid token is needed")
        assert client.post("/explain", ONE, headers=shown).status_code == 401
    assert client.get("/health", headers={"host": "example.org"}).status_code == 200
    for shown in (
        {"authorization": f"Bearer {TOKEN}"}, {"x-secret-key": TOKEN}, {"x-api-key": TOKEN},
        {"cookie": f"other=1; nlakit_token={TOKEN}"},
    ):  # fmt: skip
        assert client.get("/", headers={**shown, "host": "example.org"}).status_code == 200


# ---- how much


@pytest.mark.parametrize(
    "vector",
    [
        [float("nan")] * D,
        [float("inf"), *[0.0] * (D - 1)],
        [1e39] * D,  # finite, but not as the float32 that activations are
        [0.0] * D,
        [1.0] * (D + 1),
        [1.0] * (D - 1),
        [],
        ["x"] * D,
    ],
    ids=["NaN", "infinite", "overflow", "zero", "wide", "narrow", "empty", "words"],
)
def test_a_vector_that_is_none_is_refused(client: Client, vector: list[Any]) -> None:
    for path, body in (
        ("/describe", {"activations": [[1.0] * D, vector]}),
        ("/score", {"description": "x", "activation": vector}),
        ("/compare", {"activation_a": [1.0] * D, "activation_b": vector}),
        ("/api/nla/reconstruct", {"descriptions": ["x"], "activation": vector}),
    ):
        if path == "/compare" and vector == [0.0] * D:
            continue  # the difference is a vector
        answer = client.post(path, content=json.dumps(body), headers=JSON)
        assert answer.status_code == 422, (path, answer.text)
        assert answer.json()["error"]
    unharmed(client)


def test_the_difference_of_equal_vectors_has_no_direction(client: Client) -> None:
    body = {"activation_a": [1.0] * D, "activation_b": [1.0] * D}
    assert client.post("/compare", body).status_code == 422


def test_long_texts_are_refused(client: Client) -> None:
    """Beyond the fields' characters, beyond the subject's 512 positions, beyond a request's."""
    for path in ("/explain", "/extract", "/tokenize", "/completion"):
        assert client.post(path, {"text": "a " * 500_000}).status_code == 422
        answer = client.post(path, {"text": "a" * 600})
        assert (answer.status_code, "at most 512" in answer.json()["error"]) == (422, True)
    answer = client.post("/explain", {"text": "abc", "positions": [0] * 513})
    assert answer.status_code == 422
    unharmed(client)


def test_texts_have_words(client: Client) -> None:
    assert client.post("/explain", {}).status_code == 400
    assert client.post("/explain", {"text": ""}).status_code == 400
    assert client.post("/explain", {"text": " \n"}).status_code == 422


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"text": "\xff\xfe"}', 400),
        (b"\xff", 400),
        (b'{"text": "\\ud800"}', 422),
        (b"[" * 100_000, 400),
        (b'{"text": "a", "seed": ' + b"9" * 5000 + b"}", 400),
        (b'{"text": "a", "temperature": NaN}', 422),
        (b'{"text": "a", "temperature": 1e999}', 422),
        (b'{"text": "a", "positions": [1e30]}', 422),
        (b'{"text": "a", "positions": [99999999999999999999]}', 400),
        (b'{"text": {"a": 1}}', 422),
        (b"{", 422),
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_a_body_that_is_none_is_refused(client: Client, body: bytes, status: int) -> None:
    answer = client.post("/explain", content=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]


def test_only_json_is_read(client: Client) -> None:
    """A page of another site may send plain text without asking first."""
    body = json.dumps(ONE).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = client.post("/explain", content=body, headers={"content-type": kind})
        assert answer.status_code == 422


def test_a_large_body_is_refused_and_read_to_its_end(serving: str) -> None:
    body = b'{"text": "' + b"a" * 10_000_000 + b'"}'
    for sent in (body, iter([body[:5_000_000], body[5_000_000:]])):  # with a length, and without
        answer = httpx.post(f"{serving}/explain", content=sent, headers=JSON)
        assert (answer.status_code, "larger" in answer.json()["error"]) == (413, True)
    assert httpx.post(f"{serving}/explain", json=ONE).status_code == 200


# ---- where


PATHS = """/../../etc/passwd /%2e%2e/%2e%2e/etc/passwd /..%2f..%2fetc%2fpasswd //explain /explain/
/pairs/../explain /pairs/%2e%2e/explain /pairs/toy/../../explain /api/nla/explain%00 /docs /redoc
/static/..%5c..%5cetc http://example.org/explain/x /explain%2f /%ff""".split()


@pytest.mark.parametrize("path", PATHS)
def test_a_path_leads_nowhere_but_to_routes(serving: str, path: str) -> None:
    """As it stands: clients tidy a path up before they send it."""
    body = json.dumps(ONE).encode()
    with opened(serving) as line:
        line.sendall(f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n".encode())
        line.sendall(f"content-type: application/json\r\ncontent-length: {len(body)}\r\n".encode())
        line.sendall(b"\r\n" + body)
        answer = b"".join(iter(lambda: line.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer
    assert answer.endswith(b'{"detail":"Not Found","error":"Not Found"}')


def test_another_method_is_not_allowed(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"):
        assert client(method, "/explain").status_code == 405


# ---- what is said


def test_markup_stays_text(client: Client) -> None:
    text = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    answer = client.post("/tokenize", {"text": text})
    assert answer.json()["text"] == text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_answer_names_a_file(client: Client, toy_nla: NLA) -> None:
    folder = toy_nla.contract.extraction.base_model
    assert folder.startswith("/"), "the toy's subject is a folder, which a careless answer names"
    long = {"text": "a" * 600}
    answers = [client.get(path) for path in ("/", "/health", "/api/nla/sources", "/metrics")]
    answers += [client.post(path, long) for path in ("/explain", "/extract", "/completion")]
    for answer in answers:
        assert folder not in answer.text
        assert folder.rpartition("/")[0] not in answer.text


def test_a_fault_of_ours_tells_nothing(
    client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise RuntimeError("the secret is in /etc/passwd")

    monkeypatch.setattr(engine.nla, "reconstruct", fail)
    answer = client.post("/api/nla/reconstruct", {"descriptions": ["x"]})
    assert (answer.status_code, "log" in answer.json()["error"]) == (500, True)
    stream = client.post("/explain", {**ONE, "stream": True})
    assert stream.text.rstrip().endswith('data: {"error": "the service failed; its log says why"}')
    for one in (answer, stream):
        assert "secret" not in one.text
        assert "Traceback" not in one.text
    assert client.post("/tokenize", {"text": "a"}).status_code == 200


# ---- how often, how long


def test_a_client_has_a_rate(engine: Engine) -> None:
    client = Client(create_app({"toy": engine}, Settings(rate=2)))
    found = [client.post("/tokenize", {"text": "a"}) for _ in range(3)]
    assert [one.status_code for one in found] == [200, 200, 429]
    assert 1 <= int(found[2].headers["retry-after"]) <= 30
    assert client.get("/").status_code == 200, "only work is counted"


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    rates = Rates(60)
    assert [rates.wait("a") for _ in range(60)] == [0] * 60
    assert rates.wait("a") == pytest.approx(1)
    assert rates.wait("b") == 0
    now[0] += 1.5
    assert rates.wait("a") == 0
    assert rates.wait("a") == pytest.approx(0.5)
    for at in range(CLIENTS + 5):
        rates.wait(f"client {at}")
    assert len(rates.left) == CLIENTS
    assert Rates(0).wait("a") == 0


def test_more_requests_than_are_answered_at_a_time_are_told_so(engine: Engine) -> None:
    client = Client(create_app({"toy": engine}, Settings(requests=0)))
    answer = client.post("/explain", ONE)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert client.get("/health").status_code == 200


def test_a_request_has_its_time(engine: Engine, slowly: Callable[..., Any]) -> None:
    slowly(0.05)
    client = Client(create_app({"toy": engine}, Settings(seconds=0.3)))
    answer = client.post("/explain", {**ONE, "positions": list(range(8))})
    assert (answer.status_code, answer.json()["error"]) == (
        504, "the request took longer than 0.3 s",
    )  # fmt: skip
    stream = client.post("/explain", {**ONE, "stream": True})
    assert stream.status_code == 200
    assert stream.text.rstrip().endswith('data: {"error": "the request took longer than 0.3 s"}')
    soon(lambda: engine.writing == engine.waiting == 0)


def test_a_body_has_its_time(engine: Engine) -> None:
    app = create_app({"toy": engine}, Settings(body_seconds=0.3))
    with listening(app) as url, opened(url) as line:
        line.sendall(b"POST /explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{")
        assert line.recv(4096).startswith(b"HTTP/1.1 408")
        assert httpx.post(f"{url}/explain", json=ONE).status_code == 200


def opened(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def ask(line: socket.socket, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    head = f"POST /explain HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n"
    line.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + data)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_costs_nothing_more(
    engine: Engine, slowly: Callable[..., Any], stream: bool
) -> None:
    """Its rows are out before the next token."""
    steps = slowly(0.1)
    app = create_app({"toy": engine})
    with listening(app) as url:
        with opened(url) as line:
            ask(line, {**ONE, "positions": [1, 2, 3], "stream": stream})
            soon(lambda: engine.writing == 3)
        soon(lambda: app.state.metrics.left._value.get() == 1)
        before = len(steps)
        soon(lambda: engine.writing == 0)
        assert len(steps) - before <= 1
        assert engine.waiting == 0


def test_a_client_that_does_not_read_is_cut_off(engine: Engine) -> None:
    """Its socket fills, and its time ends; nothing piles up here meanwhile."""
    app = create_app({"toy": engine}, Settings(seconds=1))
    with listening(app) as url, opened(url) as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        ask(line, {"text": "a" * 400, "positions": [], "temperature": 0, "stream": True})
        soon(lambda: engine.writing)
        soon(lambda: engine.writing == engine.waiting == 0)
        assert httpx.get(f"{url}/health").status_code == 200


def test_a_full_queue_is_busy(toy_nla: NLA, slowly: Callable[..., Any]) -> None:
    """One is written, one waits; a long request that has begun waits with its other rows."""
    engine = Engine(toy_nla, batch=1, queue=1)
    slowly(0.02, engine)
    try:
        with listening(create_app({"toy": engine})) as url, opened(url) as line:
            ask(line, {**ONE, "positions": [1, 2, 3]})
            soon(lambda: engine.writing == 1)
            first = engine.submit(np.ones(D))
            answer = httpx.post(f"{url}/explain", json=ONE)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert first.result(30)
            assert line.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        engine.close()


def test_what_is_counted(client: Client) -> None:
    client.post("/explain", {**ONE, "positions": [1, 2]})
    client.post("/explain", {"text": "abc", "positions": [9]})
    client.get("/secret-path")
    lines = client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['nlakit_requests_total{route="/explain",status="200"}'] == "1.0"
    assert values['nlakit_requests_total{route="/explain",status="400"}'] == "1.0"
    assert values['nlakit_requests_total{route="other",status="404"}'] == "1.0"
    assert values["nlakit_explanations_total"] == "2.0"
    assert values["nlakit_first_token_seconds_count"] == "2.0"
    assert float(values["nlakit_tokens_total"]) >= 2
    assert float(values["nlakit_tokens_per_second"]) > 0
    assert values['nlakit_queue_length{pair="toy"}'] == "0.0"
    assert values['nlakit_batch_size{pair="toy"}'] == "0.0"
    assert not any("secret-path" in line for line in lines)
