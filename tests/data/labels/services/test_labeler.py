"""Persona and audit: what becomes a label, what never does, and what is paid for once."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import exceptions as e
from pydantic_ai import models

from nlakit.config.labels import LabelsConfig, RequestsConfig
from nlakit.data.labels.services.faults import Fault
from nlakit.data.labels.services.labeler import ServiceLabeler
from nlakit.data.labels.services.service import translated
from nlakit.errors import ConfigError, LimitReached, ServiceError
from tests.data.labels.services.conftest import FEATURES, Scripted, rows, verdict

LABEL = "The captain has begun to speak of the storm. It stops after “that”; a clause follows."


def audits(scripted: Scripted, answer: Any) -> None:
    scripted.script = lambda name, form, message: (
        {"features": FEATURES} if form == "LabelAnswer" else answer
    )


def test_a_label_carries_where_it_comes_from(scripted: Scripted, price_table: str) -> None:
    (label,) = scripted.once(rows(1), prices=price_table)
    assert label.explanation == LABEL
    assert (label.labeler_model, label.auditor_model) == ("compatible:chen", "compatible:otsuka")
    assert (label.verdict, label.audit_score) == ("KEEP", 4.0)
    assert (label.tokens_in, label.tokens_out, label.attempts) == (200, 40, 2)
    assert label.cost == pytest.approx(2 * (100 * 10 + 20 * 50) / 1e6)
    assert len({label.labeler_prompt, label.auditor_prompt}) == 2
    assert label.labelled_at.startswith("20")


def test_an_unknown_price_is_unknown(scripted: Scripted) -> None:
    labeler = scripted.labeler()
    (label,) = labeler.label(rows(1))
    assert label.cost is None
    assert labeler.note() == "2 requests, cost unknown"


def test_revise_replaces_the_label_and_nothing_else_of_the_audit_enters(scripted: Scripted) -> None:
    mended = ["A new first feature of the ship", "The end forces a clause that tells of the storm"]
    audits(scripted, verdict("REVISE", mended))
    (label,) = scripted.once(rows(1))
    assert label.verdict == "REVISE"
    assert label.explanation == (
        "A new first feature of the ship. The end forces a clause that tells of the storm."
    )


def test_reject_leaves_no_label(scripted: Scripted) -> None:
    audits(scripted, verdict("REJECT"))
    (label,) = scripted.once(rows(1))
    assert (label.explanation, label.reason, label.verdict) == (None, "rejected", "REJECT")


def test_planted_mode_8_auditors_words_in_a_revision_are_refused(scripted: Scripted) -> None:
    audits(scripted, verdict("REVISE", ["N: KEEP, the label is specific enough", "It ends there."]))
    (label,) = scripted.once(rows(1))
    assert (label.explanation, label.reason) == (None, "revised_auditor_leakage")


def test_a_bad_label_is_not_audited(scripted: Scripted) -> None:
    scripted.script = lambda *_: {"features": ["Too", "short."]}
    (label,) = scripted.once(rows(1))
    assert label.reason == "too_short"
    assert [form for _, form, _ in scripted.asked] == ["LabelAnswer"]


def test_useless_answers_are_asked_again_then_counted(scripted: Scripted) -> None:
    scripted.script = lambda name, form, message: (
        "" if "number 0 " in message else {"features": FEATURES}
    )
    labels = scripted.once(rows(2), auditor=None)
    assert [label.reason for label in labels] == ["empty", None]
    assert labels[0].attempts == 3
    assert len(scripted.asked) == 4
    assert scripted.once(rows(2), auditor=None) == labels  # given up is given up, for nothing
    assert len(scripted.asked) == 4
    scripted.once(rows(2), auditor=None, attempts=5)
    assert len(scripted.asked) == 6


def test_a_fallback_takes_the_rows_that_fail(scripted: Scripted) -> None:
    scripted.script = lambda name, form, message: (
        verdict()
        if form == "Verdict"
        else "I'm sorry, but I can't assist with that."
        if name == "chen" and "number 1 " in message
        else {"features": FEATURES}
    )
    labels = scripted.once(rows(2), models=("chen", "tanaka"))
    assert [label.labeler_model for label in labels] == ["compatible:chen", "compatible:tanaka"]
    assert all(label.explanation for label in labels)


def test_the_store_serves_another_run_in_any_order(scripted: Scripted) -> None:
    first = scripted.once(rows(20))
    asked = len(scripted.asked)
    assert asked == 40
    again = rows(20)
    random.Random(0).shuffle(again)
    labeler = scripted.labeler(run="another")
    second = [label for row in again for label in labeler.label([row])]  # chunks of one
    assert len(scripted.asked) == asked
    assert labeler.ledger.spent().requests == 0
    assert sorted(second, key=lambda one: one.row_id) == sorted(first, key=lambda one: one.row_id)


def test_equal_texts_are_asked_once(scripted: Scripted) -> None:
    labels = scripted.once(rows(6, "The same captain said that"))
    assert len(scripted.asked) == 2
    assert len({label.explanation for label in labels}) == 1


def test_two_prompts_never_mix(scripted: Scripted, tmp_path: Path) -> None:
    other = tmp_path / "labeler.md"
    other.write_text("Say it otherwise.\n=== user ===\n{text}")
    scripted.script = lambda name, form, message: {
        "features": ["By the first prompt it is a captain", "It ends with a clause to come."]
        if message.startswith("The text up to")
        else ["By the second prompt it is a sailor", "It ends with a clause to come."]
    }
    first = scripted.once(rows(5), auditor=None)
    changed = {"prompts": {"labeler": str(other)}}
    second = scripted.once(rows(5), auditor=None, labels=changed)
    assert all("first prompt" in label.explanation for label in first)
    assert all("second prompt" in label.explanation for label in second)
    assert not {label.labeler_prompt for label in first} & {one.labeler_prompt for one in second}
    asked = len(scripted.asked)
    assert scripted.once(rows(5), auditor=None) == first
    assert scripted.once(rows(5), auditor=None, labels=changed) == second
    assert len(scripted.asked) == asked


def test_limits_stop_cleanly_and_go_on(scripted: Scripted, price_table: str) -> None:
    labeler = scripted.labeler(max_requests=11, concurrency=32)
    with pytest.raises(LimitReached, match="max_requests"):
        labeler.label(rows(20))
    assert len(scripted.asked) == 11
    scripted.made.remove(labeler)
    labeler.close()
    with pytest.raises(LimitReached):  # what was spent stays spent
        scripted.once(rows(20), max_requests=11)
    assert len(scripted.asked) == 11
    labels = scripted.once(rows(20), max_requests=40)
    assert len(scripted.asked) == 40
    assert all(label.explanation for label in labels)


def test_rows_of_a_sitting_are_finished(scripted: Scripted) -> None:
    with pytest.raises(LimitReached, match="max_rows; found: 7 rows"):
        scripted.once(rows(20), max_rows=7)
    assert len(scripted.asked) == 14  # label and audit of seven
    with pytest.raises(LimitReached):
        scripted.once(rows(20), max_rows=7)
    assert len(scripted.asked) == 28  # seven more


@pytest.mark.parametrize("concurrency", [1, 32])
def test_cost_is_never_exceeded(scripted: Scripted, price_table: str, concurrency: int) -> None:
    settings: dict[str, Any] = {
        "prices": price_table, "max_cost": 0.5, "concurrency": concurrency,
        "models": ("chen",), "auditor": None,
    }  # fmt: skip
    labeler = scripted.labeler(**settings)
    with pytest.raises(LimitReached, match="max_cost"):
        labeler.label(rows(400))
    paid = len(scripted.asked) * (100 * 10 + 20 * 50) / 1e6
    assert paid == pytest.approx(labeler.ledger.spent().cost)
    # It stops only where one more request, at its worst, might go beyond.
    worst = (4000 * 10 + 600 * 50) / 1e6
    assert 0.5 - worst < paid <= 0.5


@pytest.mark.parametrize(
    ("error", "body", "match"),
    [
        (e.ModelAuthenticationError, "bad key sk-abcdefghijklmnop123", "does not accept the key"),
        (e.ModelNotFoundError, "The model `x` does not exist", "is not known to the service"),
        (e.ModelQuotaExceededError, "insufficient_quota: add credit", "has no credit left"),
        (e.ModelContextWindowExceededError, "8192 tokens", "lower labels.max_characters"),
        (e.ModelRequestRejectedError, "unsupported parameter", "rejects the request"),
    ],
)
def test_what_no_retry_cures_ends_the_run(
    scripted: Scripted, error: type[e.ModelAPIError], body: str, match: str
) -> None:
    scripted.script = lambda *_: error("m", body)
    with pytest.raises(ServiceError, match=match) as found:
        scripted.once(rows(5))
    assert "sk-abc" not in str(found.value)
    assert len(scripted.asked) <= 2


def test_geminis_daily_quota_is_a_quota_however_long_its_body() -> None:
    """pydantic-ai takes it for an empty account, and its body asks to come back in 36 s."""
    detail = {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}
    body = {"error": {"message": "x" * 500, "details": [detail, {"retryDelay": "36s"}]}}
    error = e.ModelQuotaExceededError("gemini", str(body))
    error.retry_after = 36.0
    found = translated(error, "google:gemini")
    assert isinstance(found, Fault)
    assert (found.kind, found.retry_after) == ("quota", None)


def test_a_service_without_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    settings = LabelsConfig.model_validate(
        {"labeler": "services", "services": [{"kind": "anthropic", "model": "claude-haiku-4-5"}]}
    )
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY is not set; do: set ANTHROPIC_API"):
        ServiceLabeler(settings, RequestsConfig(), tmp_path / "a.sqlite", "run", 1)


@pytest.mark.parametrize("kind", ["anthropic", "openai", "google"])
def test_every_service_is_built_and_real_requests_are_blocked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setenv("MY_KEY", "not-a-key")
    service = {"kind": kind, "model": "some-model", "key_variable": "MY_KEY"}
    settings = LabelsConfig.model_validate({"labeler": "services", "services": [service]})
    labeler = ServiceLabeler(settings, RequestsConfig(), tmp_path / "a.sqlite", "run", 1)
    try:
        assert not models.ALLOW_MODEL_REQUESTS
        with pytest.raises(RuntimeError, match="Model requests are not allowed"):
            labeler.label(rows(1))
        assert "not-a-key" not in str(labeler.askers[0].service.identity)
    finally:
        labeler.close()
    for file in tmp_path.iterdir():
        assert b"not-a-key" not in file.read_bytes()


def test_the_loop_never_waits_for_the_disk(scripted: Scripted) -> None:
    labeler = scripted.labeler()
    turns = 0

    async def watch() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    real, slept = labeler.ledger._do, []

    def slow(batch: Any) -> None:
        end, until = time.monotonic() + 10, turns + 5
        while turns < until and time.monotonic() < end:  # a disk that takes its time
            time.sleep(0.001)
        slept.append(turns >= until)
        real(batch)

    labeler.ledger._do = slow  # type: ignore[method-assign]

    async def both() -> None:
        watching = asyncio.create_task(watch())
        await labeler._label(rows(4), lambda *_: None)
        watching.cancel()

    labeler.runner.run(both())
    assert slept and all(slept)
