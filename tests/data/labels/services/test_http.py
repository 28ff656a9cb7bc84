"""Services over real HTTP on loopback: every fault by its name, limits under load, quotas."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import models

from nlakit.config.labels import LabelsConfig, RequestsConfig, ServiceConfig
from nlakit.data.labels.services.answers import LabelAnswer, parse
from nlakit.data.labels.services.faults import Fault
from nlakit.data.labels.services.labeler import ServiceLabeler
from nlakit.data.labels.services.prompts import Prompt
from nlakit.data.labels.services.service import ModelService
from nlakit.data.labels.services.waits import Stopped
from nlakit.errors import ConfigError, LimitReached, ServiceError
from tests.data.labels.services.conftest import rows
from tests.labelserver import KINDS, Settings, running

KIND_OF = {
    "429": "rate_limit",
    "429_retry_after": "rate_limit",
    "500": "server",
    "503": "overloaded",
    "hang": "timeout",
    "cut": "connection",
    "truncated_json": "protocol",
    "invalid_json": "protocol",
    "bad_content": "invalid",
    "empty": "empty",
    "refusal": "refusal",
    "unicode": "unreadable",
    "wrong_type": "protocol",
    "huge": "too_large",
    "length": "cut_off",
}


@pytest.fixture(autouse=True)
def loopback_requests(no_real_requests: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)


def config(url: str, **more: Any) -> dict[str, Any]:
    return {"kind": "compatible", "model": "chen", "base_url": url} | more


def ask(url: str, **more: Any) -> LabelAnswer:
    async def work() -> LabelAnswer:
        service = ModelService(ServiceConfig.model_validate(config(url, **more)), 1.0, 4)
        try:
            reply = await service.ask(Prompt("Label it.", "the text"), LabelAnswer)
            return parse(reply.text, LabelAnswer).value
        finally:
            await service.close()

    return asyncio.run(work())


def labeler(url: str, folder: Path, auditor: bool = False, **requests: Any) -> ServiceLabeler:
    settings = LabelsConfig.model_validate(
        {
            "labeler": "services",
            "services": [config(url)],
            "auditor": config(url) if auditor else None,
        }
    )
    wanted = RequestsConfig.model_validate({"timeout": 5.0, "patience": 2.0} | requests)
    return ServiceLabeler(settings, wanted, folder / "answers.sqlite", "run", 100)


def test_every_kind_of_fault_is_expected_below() -> None:
    assert set(KIND_OF) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_has_its_name(kind: str) -> None:
    with running(Settings(faults=1.0, kinds=(kind,), retry_after=7.0)) as (url, server):
        for _ in range(2):  # some kinds come in two forms, by turns
            with pytest.raises(Fault) as found:
                ask(url)
            assert found.value.kind == KIND_OF[kind] or (
                kind == "unicode" and found.value.kind == "protocol"
            )
        if kind == "429_retry_after":
            assert found.value.retry_after == 7.0
        assert server.stats.requests == 2  # nobody below asks again on their own


def test_an_answer_comes_through() -> None:
    with running() as (url, _):
        assert len(ask(url).features) in (2, 3)


def test_a_vendors_model_behind_a_compatible_server_is_asked_for_json() -> None:
    for model in ("Qwen/Qwen3-8B", "anthropic/claude-haiku-4.5", "deepseek/x"):
        with running() as (url, server):
            assert ask(url, model=model).features
            assert server.last is not None
            assert b"json_schema" in server.last.body


def test_odd_replies_are_faults() -> None:
    for body in ('{"choices": []}', '{"id": ' + "[" * 20_000, '{"choices": 3}', "[]", "null"):
        with running(Settings(status=200, body=body)) as (url, _), pytest.raises(Fault):
            ask(url)


def test_the_key_never_reaches_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "hf_abcdefgh0123456789")
    said = '{"error": {"message": "Invalid token hf_abcdefgh0123456789"}}'
    with running(Settings(status=401, body=said)) as (url, _):
        with pytest.raises(ServiceError) as found:
            ask(url, key_variable="MY_KEY")
        assert "Invalid token [key]" in str(found.value)
    monkeypatch.setenv("MY_KEY", "two\nlines")
    with pytest.raises(ConfigError, match="cannot be one"):
        ask("http://127.0.0.1:9/v1", key_variable="MY_KEY")


def test_a_poisoned_row_is_given_up_while_others_are_answered(tmp_path: Path) -> None:
    with running(Settings(delay=0.01)) as (url, server):
        real = server._outcome
        server._outcome = lambda number: "500" if number % 4 == 0 else real(number)  # type: ignore[method-assign]
        made = labeler(url, tmp_path, concurrency=2, attempts=1)
        labels = made.label(rows(30))
        made.close()
    assert sum(label.explanation is not None for label in labels) >= 28
    assert {label.reason for label in labels} <= {None, "server"}


def test_nobody_listens(tmp_path: Path) -> None:
    made = labeler("http://127.0.0.1:9/v1", tmp_path)
    started = time.monotonic()
    with pytest.raises(ServiceError, match="compatible:chen does not answer; found: connection"):
        made.label(rows(50))
    made.close()
    assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    ("status", "match"),
    [
        (401, "does not accept the key"),
        (404, "is not known to the service"),
        (400, "a text is longer than compatible:chen takes.*labels.max_characters"),
    ],
)
def test_errors_of_the_user_are_one_line(tmp_path: Path, status: int, match: str) -> None:
    with running(Settings(status=status)) as (url, server):
        made = labeler(url, tmp_path)
        with pytest.raises(ServiceError, match=match):
            made.label(rows(50))
        made.close()
        assert server.stats.requests == 1


def test_a_server_that_dies_loses_no_answer(tmp_path: Path) -> None:
    with running(Settings(delay=0.02)) as (url, server):
        made = labeler(url, tmp_path, concurrency=4, patience=1.0)
        port = server.port
        threading.Timer(0.6, lambda: setattr(server, "settings", Settings(status=500))).start()
        with pytest.raises(ServiceError, match="does not answer"):
            made.label(rows(400))
        made.close()
        answered = server.stats.answered
        assert 0 < answered < 400
    with running(Settings(port=port)) as (again, server):
        assert again == url
        made = labeler(url, tmp_path, concurrency=4)
        labels = made.label(rows(400))
        made.close()
        assert server.stats.requests == 400 - answered
    assert all(label.explanation for label in labels)


@pytest.mark.parametrize("limit", ["max_requests", "max_cost"])
def test_limits_hold_with_32_in_flight(tmp_path: Path, price_table: str, limit: str) -> None:
    """The server counts what it answered; at the table's prices that must stay below."""
    values = {"max_requests": 250, "max_cost": 2.0}
    kinds = ("500", "cut", "bad_content", "empty", "length")  # none that asks for less at a time
    with running(Settings(settle=0.1, faults=0.1, kinds=kinds)) as (url, server):
        made = labeler(
            url, tmp_path, auditor=True, concurrency=32, prices=price_table, attempts=30,
            timeout=10.0, **{limit: values[limit]},
        )  # fmt: skip
        with pytest.raises(LimitReached, match=limit):
            made.label(rows(600))
        made.close()
        seen = server.stats
        cost = (seen.tokens_in * 10 + seen.tokens_out * 50) / 1e6
    assert seen.max_in_flight >= 24
    if limit == "max_requests":
        assert seen.requests == 250
    else:
        assert 1.0 < cost <= 2.0


def test_a_slower_service_is_asked_less(tmp_path: Path) -> None:
    """Without faults the window reaches the limit; rate limits halve it and every row is done."""
    with running(Settings(settle=0.1)) as (url, server):
        made = labeler(url, tmp_path, concurrency=24)
        made.label(rows(300))
        assert made.askers[0].gate.window == 24
        assert server.stats.max_in_flight == 24
        server.settings = Settings(
            delay=0.02, faults=0.1, kinds=("429_retry_after",), retry_after=0.05
        )
        labels = made.label(rows(300, "Another text of number {} said that"))
        assert made.askers[0].gate.window < 20
        made.close()
    assert all(label.explanation for label in labels)


@pytest.mark.parametrize("silent", [False, True])
def test_a_daily_quota_is_slept_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], silent: bool
) -> None:
    """Where the service does not say when, the configured hour does: here, in three seconds."""
    settings = Settings(delay=0.01, quota=40, quota_seconds=1.0, quota_silent=silent)
    with running(settings) as (url, server):
        moment = time.gmtime(time.time() + 3)
        hour = (moment.tm_hour + moment.tm_min / 60 + moment.tm_sec / 3600) % 24
        made = labeler(url, tmp_path, concurrency=8, quota_reset_hour=hour if silent else None)
        labels = made.label(rows(60))
        made.close()
        assert all(label.explanation for label in labels)
        assert server.stats.answered == 60
        assert server.stats.faults["quota"] <= 8 * 2  # those in flight, and nobody while asleep
    said = " ".join(capsys.readouterr().err.split())
    assert "compatible:chen: the quota is used up; asleep until" in said


def test_a_restart_while_asleep_sleeps_on(tmp_path: Path) -> None:
    settings = Settings(delay=0.01, quota=20, quota_seconds=4.0)
    with running(settings) as (url, server):
        first = labeler(url, tmp_path, concurrency=4)

        def sleeper() -> None:
            with pytest.raises(Stopped):
                first.label(rows(40))

        work = threading.Thread(target=sleeper)
        work.start()
        while not first.ledger.pauses():
            time.sleep(0.02)
        first.runner.get_loop().call_soon_threadsafe(first.stop.set)
        work.join(5)
        first.close()
        asked = server.stats.requests
        second = labeler(url, tmp_path, concurrency=4)
        began = time.monotonic()
        labels = second.label(rows(40))
        second.close()
        assert time.monotonic() - began > 1.5  # it slept, though it is a new process' worth
        assert server.stats.requests == asked + 20  # and asked for nothing while asleep
    assert all(label.explanation for label in labels)


def test_without_waiting_an_exhausted_quota_ends_the_run(tmp_path: Path) -> None:
    with running(Settings(quota=5, quota_seconds=60.0)) as (url, _):
        made = labeler(url, tmp_path, wait_for_quota=False)
        with pytest.raises(ServiceError, match="the quota of compatible:chen is used up"):
            made.label(rows(20))
        made.close()
