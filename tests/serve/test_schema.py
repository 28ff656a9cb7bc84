"""The OpenAPI document: complete, with examples that are valid, and true of whatever is drawn from
it."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.service_cases import draw
from nlakit.serve.api import inference, web
from nlakit.serve.engine import Engine
from tests.serve.conftest import Client

ROUTES = {
    "GET /", "POST /tokenize", "POST /extract", "POST /explain", "POST /describe", "POST /score",
    "POST /compare", "POST /completion", "GET /api/nla/sources", "POST /api/nla/explain",
    "POST /api/nla/completion", "POST /api/nla/reconstruct", "GET /health", "GET /metrics",
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
