"""OpenAI-compatible servers that answer otherwise than OpenAI: read, repaired, or given up soon."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_ai import models

from nlakit.config.labels import LabelsConfig, RequestsConfig, ServiceConfig
from nlakit.data.labels.labeler import label_table
from nlakit.data.labels.quality import lines, quality
from nlakit.data.labels.services.answers import LabelAnswer
from nlakit.data.labels.services.faults import Fault
from nlakit.data.labels.services.labeler import ServiceLabeler
from nlakit.data.labels.services.prompts import Prompt
from nlakit.data.labels.services.service import ModelService
from nlakit.errors import LimitReached, ServiceError
from tests.data.labels.services.conftest import FEATURES, rows
from tests.labelserver import Settings, running

JSON = json.dumps({"features": FEATURES})


@pytest.fixture(autouse=True)
def loopback_requests(no_real_requests: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)


def body(content: Any, **changes: Any) -> str:
    """A chat completion with another content, or other fields."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    whole = {"id": "x", "object": "chat.completion", "created": 1, "model": "chen"}
    return json.dumps(whole | {"choices": [choice], "usage": usage} | changes)


def labeler(url: str, folder: Path, more: Any = None, **requests: Any) -> ServiceLabeler:
    service = {"kind": "compatible", "model": "chen", "base_url": url}
    services = [service, *([service | more] if more else [])]
    settings = LabelsConfig.model_validate({"labeler": "services", "services": services})
    wanted = RequestsConfig.model_validate({"timeout": 5.0, "patience": 2.0} | requests)
    return ServiceLabeler(settings, wanted, folder / "answers.sqlite", "run", 100)


def raised(url: str, **service: Any) -> BaseException:
    """What a service raises for one question."""
    config = {"kind": "compatible", "model": "chen", "base_url": url} | service

    async def work() -> None:
        made = ModelService(ServiceConfig.model_validate(config), 2.0, 4)
        try:
            await made.ask(Prompt("Label it.", "the text"), LabelAnswer)
        finally:
            await made.close()

    with pytest.raises((Fault, ServiceError)) as found:
        asyncio.run(work())
    return found.value


@pytest.mark.parametrize(
    "content",
    [
        f"Here is the label:\n```json\n{JSON}\n```\nI hope that it helps.",
        json.dumps({"features": [*FEATURES, *FEATURES]}),
        json.dumps({"features": [FEATURES[0], FEATURES[1], 7, 8]}),
    ],
)
def test_one_request_a_row_is_enough(tmp_path: Path, content: str) -> None:
    asked = rows(4)
    with running(Settings(status=200, body=body(content))) as (url, server):
        made = labeler(url, tmp_path)
        labels = made.label(asked)
        made.close()
        assert server.stats.requests == 4
    assert all(label.explanation and label.explanation.startswith(FEATURES[0]) for label in labels)
    assert [label.repaired for label in labels] == [1] * 4
    names = {one.row_id: "f" for one in asked}
    report = quality(label_table(labels, asked), {r.row_id: r.text for r in asked}, names)
    assert report["repaired"] == 4
    assert "answers that had to be repaired: 4" in lines(report)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429}, "rate_limit"),
        ({"code": "429", "message": "slow down"}, "rate_limit"),
        ({"message": "Rate limit reached", "type": "requests"}, "rate_limit"),
        ({"code": 429, "message": "limit on requests per day (RPD)"}, "quota"),
        ({"code": 502, "message": "Provider returned error"}, "server"),
        ({"code": 503}, "overloaded"),
        ("the model is overloaded", "overloaded"),
        ("something broke", "server"),
        ({"code": 401, "message": "No auth credentials found"}, "does not accept the key"),
        ({"message": "Incorrect API key provided"}, "does not accept the key"),
        ({"code": 402, "message": "Insufficient credits"}, "has no credit left"),
        ({"code": "insufficient_quota"}, "has no credit left"),
        ("model 'chen' not found", "is not known to the service"),
        ({"message": "invalid value for temperature"}, "rejects the request"),
    ],
)
@pytest.mark.parametrize("place", ["top", "choice"])
def test_an_error_inside_a_success_is_what_it_says(place: str, error: Any, kind: str) -> None:
    said = json.dumps({"error": error})
    if place == "choice":
        said = body("", choices=[{"index": 0, "finish_reason": "error", "error": error}])
    with running(Settings(status=200, body=said)) as (url, _):
        found = raised(url)
    assert kind in (found.kind if isinstance(found, Fault) else str(found))


def test_a_rate_limit_inside_a_success_costs_nothing_and_is_waited_out(
    tmp_path: Path, price_table: str
) -> None:
    with running(Settings(status=200, body='{"error": {"code": 429}}')) as (url, server):
        real, limited = server._outcome, 3
        server._outcome = lambda n: real(n) if n <= limited else "answered"  # type: ignore[method-assign]
        made = labeler(url, tmp_path, prices=price_table)
        labels = made.label(rows(4))
        spent = made.ledger.spent().cost
        made.close()
        assert server.stats.requests == 4 + limited
    assert all(label.explanation for label in labels)
    assert spent == pytest.approx(sum(label.cost or 0 for label in labels))


@pytest.mark.parametrize(
    ("said", "kind", "shown"),
    [
        (body("x", choices=None), "invalid", '"choices": null'),
        (body("x", choices=[]), "invalid", '"choices": []'),
        (body(None), "empty", '"content": null'),
        (body('{"features": ["only one"]}'), "invalid", "only one"),
        (body("A captain speaks."), "invalid", "A captain speaks."),
        ("<html>Bad gateway", "protocol", "Bad gateway"),
    ],
)
def test_a_service_without_usable_answers_is_given_up_soon(
    tmp_path: Path, said: str, kind: str, shown: str
) -> None:
    """With the third row in which nothing can be used; what waiting may cure is asked on."""
    with running(Settings(status=200, body=said)) as (url, server):
        made = labeler(url, tmp_path, patience=60.0)
        with pytest.raises(ServiceError, match=f"can be used: {kind}, .* rows") as found:
            made.label(rows(40))
        made.close()
        assert server.stats.requests <= (18 if kind == "protocol" else 13)
    assert shown in str(found.value) and "\n" not in str(found.value)


def test_what_came_before_is_kept_and_goes_on(tmp_path: Path) -> None:
    """Answers, then nothing but useless ones: 18 of these; the next sitting pays for the rest."""
    with running() as (url, server):
        real = server._outcome
        server._outcome = lambda n: real(n) if n <= 10 else "empty"  # type: ignore[method-assign]
        made = labeler(url, tmp_path, concurrency=1)
        with pytest.raises(ServiceError, match="empty, 18 times in a row, over 3 rows"):
            made.label(rows(40))
        made.close()
        assert server.stats.requests == 10 + 18
        server._outcome = real  # type: ignore[method-assign]
        made = labeler(url, tmp_path, attempts=7)
        labels = made.label(rows(40))
        made.close()
        assert server.stats.requests == 10 + 18 + 30
    assert all(label.explanation for label in labels)


def test_another_service_takes_over_from_a_useless_one(tmp_path: Path) -> None:
    with running(Settings(status=200, body=body(None))) as (url, _), running() as (other, server):
        made = labeler(url, tmp_path, {"base_url": other, "model": "tanaka"})
        labels = made.label(rows(8))
        made.close()
        assert server.stats.requests == 8
    assert {label.labeler_model for label in labels} == {"compatible:tanaka"}


def test_refusals_of_some_texts_are_the_texts_doing(tmp_path: Path) -> None:
    with running() as (url, server):
        real = server._outcome
        server._outcome = lambda n: real(n) if n == 1 or n > 40 else "refusal"  # type: ignore[method-assign]
        made = labeler(url, tmp_path, concurrency=1)
        labels = made.label(rows(12))
        made.close()
    assert [label.reason for label in labels] == [None, *["refusal"] * 6, *[None] * 5]


@pytest.mark.parametrize(
    ("service", "sent"),
    [
        ({}, "max_tokens"),
        ({"token_limit_field": "max_tokens"}, "max_tokens"),
        ({"token_limit_field": "max_completion_tokens"}, "max_completion_tokens"),
        ({"kind": "openai", "key_variable": "MY_KEY"}, "max_completion_tokens"),
        (
            {"kind": "openai", "key_variable": "MY_KEY", "token_limit_field": "max_tokens"},
            "max_tokens",
        ),
    ],
)
def test_the_limit_has_the_name_that_the_server_reads(
    monkeypatch: pytest.MonkeyPatch, service: dict[str, Any], sent: str
) -> None:
    monkeypatch.setenv("MY_KEY", "not-a-key")
    with running(Settings(status=500)) as (url, server):
        raised(url, max_tokens=123, **service)
        assert server.last is not None
        asked = json.loads(server.last.body)
    limits = {name: asked.get(name) for name in ("max_tokens", "max_completion_tokens")}
    assert limits.pop(sent) == 123
    assert list(limits.values()) == [None]


def test_an_unset_limit_field_leaves_stored_answers_good() -> None:
    """It is no part of what an answer is found by, nor of what makes a stage stale."""
    config = ServiceConfig(kind="compatible", base_url="http://x/v1")
    assert "token_limit_field" not in config.identity
    other = config.model_copy(update={"token_limit_field": "max_tokens"})
    assert other.identity["token_limit_field"] == "max_tokens"
    with pytest.raises(ValidationError, match="has no token_limit_field"):
        ServiceConfig.model_validate(
            {"kind": "google", "model": "g", "token_limit_field": "max_tokens"}
        )


@pytest.mark.parametrize("counted", [True, False])
def test_a_server_that_ignores_the_limit_passes_max_cost_at_most_once(
    tmp_path: Path, price_table: str, counted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """600 tokens are reserved and 5,000 come: $0.251 each, and no fourth of $1. Where the server
    counts nothing, its 20,000 characters are taken for 5,000 tokens."""
    usage = {"prompt_tokens": 100, "completion_tokens": 5000, "total_tokens": 5100}
    said = body(JSON + " " * (20_000 - len(JSON)), usage=usage if counted else None)
    with running(Settings(status=200, body=said)) as (url, server):
        made = labeler(url, tmp_path, prices=price_table, max_cost=1.0, concurrency=8)
        with pytest.raises(LimitReached, match="max_cost"):
            made.label(rows(40))
        spent = made.ledger.spent().cost
        made.close()
        assert server.stats.requests == 3
    assert spent == pytest.approx(3 * 0.251) if counted else 3 * 0.25 < spent <= 1.0
    said_once = " ".join(capsys.readouterr().err.split()).count("wrote 5000 tokens where 600")
    assert said_once == 1
