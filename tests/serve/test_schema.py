"""The OpenAPI document: complete, with examples that are valid, and true of whatever is drawn from
it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.service_cases import draw
from nlakit.serve.api import inference, web
from nlakit.serve.api.examples import ANSWERS
from nlakit.serve.api.own import Health, ReconstructResponse
from nlakit.serve.api.steering import SteerResponse
from nlakit.serve.api.wire import (
    CompareResponse,
    DescribeResponse,
    ExplainResponse,
    ExtractResponse,
    Scores,
    ServerHealth,
    TokenizeResponse,
)
from nlakit.serve.engine import Engine
from tests.serve.conftest import Client

ROUTES = {
    "GET /", "POST /tokenize", "POST /extract", "POST /explain", "POST /describe", "POST /score",
    "POST /compare", "POST /completion", "GET /api/nla/sources", "POST /api/nla/explain",
    "POST /api/nla/completion", "POST /api/nla/reconstruct", "POST /api/nla/steer",
    "GET /health", "GET /metrics",
}  # fmt: skip


@pytest.fixture
def document(client: Client) -> dict[str, Any]:
    return client.get("/openapi.json").json()


def test_every_route_is_told_with_an_example(document: dict[str, Any]) -> None:
    found = set()
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            found.add(f"{method.upper()} {path}")
            assert one["summary"]
            assert one["description"]
            answer = one["responses"]["200"]["content"]
            if "application/json" in answer:
                assert answer["application/json"]["example"], path
            if method == "post":
                assert one["requestBody"]["content"]["application/json"]["example"], path
    assert found == ROUTES


MODELS = {
    "health": ServerHealth, "alive": Health, "sources": web.Sources, "tokenize": TokenizeResponse,
    "extract": ExtractResponse, "explain": ExplainResponse, "describe": DescribeResponse,
    "score": Scores, "compare": CompareResponse, "completion": TokenizeResponse,
    "web_explain": web.WebExplainResponse, "web_completion": web.WebCompletionResponse,
    "reconstruct": ReconstructResponse, "steer": SteerResponse,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_an_example_has_every_field_and_no_other(name: str) -> None:
    model = MODELS[name]
    assert model.model_validate(ANSWERS[name]).model_dump(mode="json") == ANSWERS[name]


def test_what_is_drawn_from_it_is_answered_as_it_says(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for routes in (inference, web):
        monkeypatch.setattr(routes, "MOST_COMPLETED", 3)
    drawn = draw(engine, cases=150, number=0)
    assert drawn.failures == []
    assert drawn.cases >= 120
    assert drawn.answers["POST /tokenize", 200] > 0
    assert drawn.answers["POST /tokenize", 422] > 0
    assert drawn.answers["POST /score", 200] > 0
