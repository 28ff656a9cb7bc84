"""The load test at toy size: many clients get what one gets."""

from __future__ import annotations

from benchmarks.service_load import measure, serving
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from nlakit.serve.settings import Settings


def test_many_clients_get_what_one_gets(engine: Engine) -> None:
    app = create_app({"toy": engine}, Settings(rate=0))
    with serving(app) as url:
        found = measure(app, url, distinct=6, clients=4, seconds=2)
    assert (found.failed, found.busy, found.other_texts) == (0, 0, 0)
    assert found.largest_score_difference < 1e-4
    assert found.answers >= 4
    assert found.first_token_seconds["p95"] > 0
    assert found.resident_mb["highest"] >= found.resident_mb["start"]
