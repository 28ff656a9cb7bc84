"""The label server answers by content, fails by number, and keeps honest books."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.labelserver import HUGE_BYTES, KINDS, Settings, running

LABEL = {
    "type": "object",
    "properties": {"features": {"type": "array", "items": {"type": "string"}}},
    "required": ["features"],
}
SCORES = ("integrated", "specific", "checkable", "ending")
AUDIT = {
    "type": "object",
    "properties": {
        "reasons": {"type": "string"},
        "scores": {"$ref": "#/$defs/Scores"},
        "verdict": {"enum": ["KEEP", "REVISE", "REJECT"]},
        "features": {"type": "array", "items": {"type": "string"}},
    },
    "$defs": {
        "Scores": {"type": "object", "properties": {name: {"type": "integer"} for name in SCORES}}
    },
}
# One client for all: making one loads the certificates each time.
CLIENT = httpx2.Client(timeout=2, trust_env=False)


def ask(url: str, text: str = "a text", schema: dict[str, Any] = LABEL) -> httpx2.Response:
    given = {
        "model": "toy",
        "messages": [{"role": "user", "content": text}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
    }
    return CLIENT.post(f"{url}/chat/completions", json=given)


def choice(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200
    return response.json()["choices"][0]


def content(response: httpx2.Response) -> str:
    return choice(response)["message"]["content"]


def test_a_label_is_a_function_of_the_messages():
    with running() as (url, server):
        labels = [json.loads(content(ask(url, f"text {n % 50}")))["features"] for n in range(100)]
    assert labels[:50] == labels[50:]
    assert len({tuple(label) for label in labels}) == 50
    for label in labels:
        assert len(label) in (2, 3) and label[-1].startswith("The text stops at")
        assert all(8 <= len(sentence.split()) <= 14 and sentence[-1] == "." for sentence in label)
    assert server.stats.requests == 100 and len(server.stats.prompts) == 50


def test_an_audit_follows_its_schema():
    with running() as (url, _):
        audits = [json.loads(content(ask(url, f"row {n}", AUDIT))) for n in range(200)]
    for audit in audits:
        assert audit.keys() == AUDIT["properties"].keys()
        assert all(1 <= audit["scores"][name] <= 5 for name in SCORES)
        assert bool(audit["features"]) == (audit["verdict"] == "REVISE")
    verdicts = [audit["verdict"] for audit in audits]
    assert 140 <= verdicts.count("KEEP") <= 180 and 15 <= verdicts.count("REVISE") <= 45


def test_tokens_are_a_quarter_of_the_bytes():
    with running() as (url, server):
        response = ask(url)
    usage = response.json()["usage"]
    messages = json.dumps([{"role": "user", "content": "a text"}])
    assert usage["prompt_tokens"] == -(-len(messages) // 4) == server.stats.tokens_in
    assert usage["completion_tokens"] == -(-len(content(response)) // 4) == server.stats.tokens_out


def is_broken(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return True
    return False


SEEN: dict[str, Callable[[httpx2.Response], bool]] = {
    "429": lambda r: r.status_code == 429 and "retry-after" not in r.headers,
    "429_retry_after": lambda r: r.status_code == 429 and r.headers["retry-after"] == "0.25",
    "500": lambda r: r.status_code == 500 and r.json()["error"]["type"] == "server_error",
    "503": lambda r: r.status_code == 503,
    "truncated_json": lambda r: r.status_code == 200 and is_broken(r.text),
    "invalid_json": lambda r: r.text == "not json",
    "bad_content": lambda r: is_broken(content(r)) and choice(r)["finish_reason"] == "stop",
    "empty": lambda r: content(r) == "",
    "refusal": lambda r: content(r).startswith("I'm sorry"),
    "wrong_type": lambda r: r.headers["content-type"] == "text/html",
    "length": lambda r: is_broken(content(r)) and choice(r)["finish_reason"] == "length",
    "huge": lambda r: len(r.content) > HUGE_BYTES and content(r).startswith("xxx"),
}


@pytest.mark.parametrize("kind", SEEN)
def test_a_fault_is_what_it_is_called(kind: str):
    with running(Settings(faults=1, kinds=(kind,), retry_after=0.25)) as (url, server):
        assert SEEN[kind](ask(url))
    assert server.stats.faults == {kind: 1} and server.stats.answered == 0


def test_bad_unicode_has_two_forms():
    with running(Settings(faults=1, kinds=("unicode",))) as (url, _):
        assert b"\xff\xfe" in ask(url).content
        assert "\ud800" in json.loads(content(ask(url)))["features"][0]


def test_a_refusal_is_told_in_two_forms():
    with running(Settings(faults=1, kinds=("refusal",))) as (url, _):
        assert [choice(ask(url))["message"]["refusal"] is None for _ in range(2)] == [True, False]


def test_a_cut_connection_ends_within_the_body():
    with (
        running(Settings(faults=1, kinds=("cut",))) as (url, _),
        pytest.raises(httpx2.RemoteProtocolError, match="without sending complete"),
    ):
        ask(url)


def test_a_hanging_request_is_freed_when_the_client_leaves():
    with running(Settings(faults=1, kinds=("hang",))) as (url, server):
        with pytest.raises(httpx2.ReadTimeout):
            CLIENT.post(f"{url}/chat/completions", json={"messages": []}, timeout=0.2)
        assert waits_for(lambda: server.stats.in_flight == 0)
    assert server.stats.faults == {"hang": 1}


def waits_for(condition: Callable[[], bool], seconds: float = 2.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_faults_are_drawn_by_number_and_a_retry_can_succeed():
    mild = tuple(kind for kind in KINDS if kind not in ("hang", "huge", "cut"))
    settings = Settings(faults=0.3, kinds=mild, seed=7)

    def statuses() -> tuple[list[int], int]:
        with running(settings) as (url, server):
            found = [ask(url).status_code for _ in range(100)]
        return found, server.stats.answered  # the last answer is counted after it is sent

    first, answered = statuses()
    assert statuses() == (first, answered)
    assert 55 <= answered <= 85


def test_the_quota_runs_out_and_comes_back():
    with running(Settings(quota=2, quota_seconds=0.3)) as (url, server):
        assert [ask(url).status_code for _ in range(3)] == [200, 200, 429]
        refused = ask(url)
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert "requests per day (RPD)" in refused.json()["error"]["message"]
        time.sleep(float(refused.headers["retry-after"]))
        assert [ask(url).status_code for _ in range(3)] == [200, 200, 429]
        server.settings = Settings(quota=2, quota_silent=True)
        assert "retry-after" not in ask(url).headers
    assert server.stats.answered == 4 and server.stats.faults["quota"] == 4


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "invalid_api_key"), (404, "model_not_found"), (400, "context_length_exceeded")],
)
def test_one_status_for_everything(status: int, code: str):
    with running(Settings(status=status)) as (url, server):
        response = ask(url)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        server.settings = Settings(status=status, body="gone fishing")
        assert ask(url).text == "gone fishing"


def test_the_books_count_what_is_in_flight():
    with running(Settings(delay=0.2)) as (url, server):
        with ThreadPoolExecutor(4) as pool:
            assert all(r.status_code == 200 for r in pool.map(ask, [url] * 4))
        seen = CLIENT.get(url.replace("/v1", "/stats")).json()
    assert seen == server.stats.as_dict()
    assert (seen["max_in_flight"], seen["in_flight"], seen["answered"]) == (4, 0, 4)
    assert (seen["prompts"], seen["answered_prompts"]) == (1, 1)


def test_an_upstream_answers_through_the_server():
    with running() as (behind, back), running(Settings(upstream=behind[:-3])) as (url, server):
        assert ask(url).json() == ask(behind).json()
        back.settings = Settings(status=503)
        assert ask(url).status_code == 503
    assert server.stats.answered == 1 and server.stats.faults == {"upstream": 1}
    assert server.stats.tokens_out == back.stats.tokens_out // 2


def test_the_process_tells_where_it_listens(tmp_path: Path):
    script, log = Path(__file__).with_name("labelserver.py"), tmp_path / "log.jsonl"
    options = ["--faults", "1", "--kinds", "500", "empty", "--log", str(log)]
    process = subprocess.Popen(
        [sys.executable, str(script), *options], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("listening on ").strip()
        ask(url)
        assert CLIENT.get(f"{url}/models").json()["object"] == "list"
        assert CLIENT.get(url.replace("/v1", "/health")).status_code == 200
        assert CLIENT.get(url.replace("/v1", "/stats")).json()["requests"] == 1
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(5)
        assert process.stdout is not None
        process.stdout.close()
    line = json.loads(log.read_text())
    assert line["number"] == 1 and line["outcome"] in ("500", "empty")
