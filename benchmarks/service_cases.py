"""Cases of the service that a machine thinks up from its own OpenAPI document, half of them against
it: none may end in an error of the service, and every answer must be one that the document names.

    python benchmarks/service_cases.py demo --cases 2000

Prints how many cases each route had and how they were answered; exit code 1 if any fails.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode, checks
from schemathesis.core.failures import FailureGroup

from nlakit import NLA
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from nlakit.serve.settings import LOOPBACK, Settings

CHECKS: list[Any] = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
VECTORS = ("activation", "activation_a", "activation_b")
NAMES = ("modelId", "nlaSourceId")
SAID = (503, 504)  # what a service says on purpose when it has too much to do


@dataclass
class Drawn:
    """What was tried: route and status → cases; and what failed."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.answers.total()

    def table(self) -> str:
        routes: dict[str, list[str]] = {}
        for (route, status), count in sorted(self.answers.items()):
            routes.setdefault(route, []).append(f"{status}: {count}")
        return "\n".join(f"{route:32} {', '.join(found)}" for route, found in routes.items())


SLOW_OR_LARGE: Any = list(HealthCheck)  # the service's own limits are what is tried


def draw(engine: Engine, cases: int, number: int) -> Drawn:
    """As many cases, evenly over the routes, half of them valid by the document."""
    allowed = Settings(rate=0, hosts=(*LOOPBACK, "testserver"))
    app, drawn = create_app({"demo": engine}, allowed), Drawn()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    found: list[Any] = list(schema.get_all_operations())
    operations = [one.ok() for one in found]
    # A GET has nothing that could be drawn: it is one case.
    asking = [one for one in operations if one.method != "get"]
    each = -(-(cases - len(operations) + len(asking)) // (2 * len(asking)))
    width = engine.nla.contract.d_model
    for operation in operations:
        for mode in GenerationMode:
            _draw_of(operation, mode, each, number, drawn, width)
    return drawn


def fitting(body: Any, width: int) -> Any:
    """A request of the pair's width, which no document knows, for the pair that is there."""
    if not isinstance(body, dict):
        return body

    def fit(value: Any) -> Any:
        return np.resize(value, width).tolist() if isinstance(value, list) and value else value

    kept = {name: value for name, value in body.items() if name not in NAMES}
    vectors = {name: fit(kept[name]) for name in VECTORS if name in kept}
    if isinstance(kept.get("activations"), list):
        vectors["activations"] = [fit(value) for value in kept["activations"]]
    return kept | vectors


def _draw_of(
    operation: Any, mode: GenerationMode, count: int, number: int, drawn: Drawn, width: int
) -> None:
    if mode is GenerationMode.NEGATIVE and operation.method == "get":
        return  # nothing is sent that could be wrong

    @seed(number)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=SLOW_OR_LARGE,
    )  # fmt: skip
    @given(operation.as_strategy(generation_mode=mode))
    def one(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            case.body = fitting(case.body, width)
        answer = case.call(timeout=600)
        drawn.answers[f"{operation.method.upper()} {operation.path}", answer.status_code] += 1
        try:
            if answer.status_code not in SAID:
                case.validate_response(answer, checks=CHECKS)
        except (Exception, FailureGroup) as error:
            said = "; ".join(str(part) for part in getattr(error, "exceptions", [error]))
            drawn.failures.append(f"{operation.method} {operation.path}: {said[:2000]}")

    one()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", help="a pair, as for nlakit serve")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given_words = parser.parse_args()
    engine = Engine(NLA.load(given_words.pair))
    began = time.monotonic()
    try:
        drawn = draw(engine, given_words.cases, given_words.seed)
    finally:
        engine.close()
    print(drawn.table())
    print(f"{drawn.cases} cases in {time.monotonic() - began:.0f} s, {len(drawn.failures)} failed")
    for failure in drawn.failures[:10]:
        print(failure)
    sys.exit(bool(drawn.failures))


if __name__ == "__main__":
    main()
