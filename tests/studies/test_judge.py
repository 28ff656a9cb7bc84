"""The real judge over loopback HTTP: kept answers, limits, failures, wrong keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic_ai import models

from nlakit.config.labels import RequestsConfig, ServiceConfig
from nlakit.errors import ConfigError, LimitReached, ServiceError
from nlakit.evaluate.judged import claims as judged_claims
from nlakit.evaluate.judged import quality as judged_quality
from nlakit.studies.judge import ServiceJudge
from tests.evaluate.benches import text_bench
from tests.labelserver import LabelServer, Settings, running

Open = Callable[..., ServiceJudge]


class Rating(BaseModel):
    model_config = ConfigDict(extra="forbid")
    features: list[str] = Field(max_length=3)
    score: int = Field(ge=1, le=5)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setattr(models, "ALLOW_MODEL_REQUESTS", True)
    made: list[ServiceJudge] = []

    def open_(url: str, **requests: Any) -> ServiceJudge:
        if made:
            made.pop().close()
        service = ServiceConfig(kind="compatible", model="chen", base_url=url)
        settings = RequestsConfig.model_validate(
            {"timeout": 5.0, "patience": 2.0, "attempts": 2} | requests
        )
        made.append(ServiceJudge(service, settings, tmp_path / "answers.sqlite", "run"))
        return made[-1]

    yield open_
    for judge in made:
        judge.close()


def sent(server: LabelServer) -> int:
    return server.stats.requests


def test_answers_come_in_order_typed_and_are_paid_for_once(opened: Open) -> None:
    with running(Settings()) as (url, server):
        prompts = [f"Rate text {i}" for i in range(12)]
        first = opened(url).ask(prompts, Rating)
        assert all(isinstance(one, Rating) for one in first)
        asked = sent(server)
        assert asked == 12
        again = opened(url).ask([*reversed(prompts)], Rating)
        assert sent(server) == asked
        assert again == first[::-1]


def test_planted_failures_are_none_and_the_others_stand(opened: Open) -> None:
    with running(Settings(faults=0.5, kinds=("bad_content",), seed=3)) as (url, _):
        found = opened(url, attempts=1, concurrency=1).ask([f"t{i}" for i in range(12)], Rating)
    assert 0 < sum(one is None for one in found) < 12


def test_a_limit_stops_it_and_what_came_is_kept(opened: Open) -> None:
    with running(Settings()) as (url, server):
        prompts = [f"Rate text {i}" for i in range(6)]
        with pytest.raises(LimitReached, match="max_requests"):
            opened(url, max_requests=4).ask(prompts, Rating)
        assert sent(server) == 4
        found = opened(url, max_requests=6).ask(prompts, Rating)
        assert None not in found
        assert sent(server) == 6


def test_a_wrong_key_is_an_error_and_no_failed_row(opened: Open) -> None:
    with running(Settings(status=401)) as (url, server):
        with pytest.raises(ServiceError, match="key"):
            opened(url, concurrency=2).ask(["a", "b", "c"], Rating)
        assert sent(server) <= 2


def test_a_cost_limit_needs_a_price(opened: Open) -> None:
    with pytest.raises(ConfigError, match="max_cost"):
        opened("http://127.0.0.1:9/v1", max_cost=1.0)


def test_the_judged_parts_run_over_http(opened: Open) -> None:
    """Answers are random; forms, counts and order are real."""
    sources = [f"source {i}" for i in range(4)]
    with running(Settings()) as (url, _):
        bench = text_bench(sources, [f"Text {i}. It is so." for i in range(4)], judge=opened(url))
        claims, quality = judged_claims.measure(bench), judged_quality.measure(bench)
    assert not any("failed" in note for note in claims.notes + quality.notes)
    assert (claims.of("claims", "explanation") >= 0).all()
    assert (quality.of("quality", "explanation") >= 0).all()
    assert (quality.of("quality", "explanation") <= 1).all()
