"""Bounds: through the JSON schema, every number of the configuration has both, and they hold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.errors import ConfigError

SCHEMA = RunConfig.model_json_schema()
Step = str | int
# Numbers without bounds, with the reason.
UNBOUNDED = {
    "labels.services.0.options": "whatever the service takes; pydantic-ai and the service check it",
    "labels.auditor.options": "as above",
    "eval.judge.options": "as above",
}


def numbers(node: dict[str, Any], path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple, dict]]:
    """Path and schema of every number; a schema that says nothing may hold one."""
    if "$ref" in node:
        node = {**SCHEMA["$defs"][node["$ref"].split("/")[-1]], **node}
    for choice in (*node.get("anyOf", ()), *node.get("allOf", ()), *node.get("oneOf", ())):
        yield from numbers(choice, path)
    for name, field in node.get("properties", {}).items():
        yield from numbers(field, (*path, name))
    if isinstance(items := node.get("items"), dict):
        yield from numbers(items, (*path, 0))
    more = node.get("additionalProperties")
    if isinstance(more, dict) and more.get("type") != "string":
        yield path, more
    if node.get("type") in ("integer", "number"):
        yield path, node


def dotted(path: tuple[Step, ...]) -> str:
    return ".".join(map(str, path))


NUMBERS = dict(numbers(SCHEMA))
BOUNDED = [path for path in NUMBERS if dotted(path) not in UNBOUNDED]


def with_value(path: tuple[Step, ...], value: Any) -> dict[str, Any]:
    """A configuration that sets one number, and no more than leads there."""
    for step in reversed(path):
        value = [value] if step == 0 else {step: value}
    return {"name": "a", **value}


def ends(path: tuple[Step, ...]) -> tuple[float, float, bool, bool]:
    """Lower and upper end, and whether each itself is allowed."""
    node = NUMBERS[path]
    low, high = node.get("minimum"), node.get("maximum")
    return (
        node.get("exclusiveMinimum", 0) if low is None else low,
        node.get("exclusiveMaximum", 0) if high is None else high,
        low is not None,
        high is not None,
    )


def refused(path: tuple[Step, ...], value: Any) -> str:
    """The one line about a value, or nothing if it is taken. What else is wrong does not count."""
    try:
        parse_config(with_value(path, value))
    except ConfigError as error:
        line = str(error)
        assert len(line.splitlines()) == 1
        return line if f"{dotted(path)}: " in line else ""
    return ""


def test_every_number_has_two_bounds_or_a_reason() -> None:
    assert len(BOUNDED) > 80
    for path in BOUNDED:
        node = NUMBERS[path]
        assert {"minimum", "exclusiveMinimum"} & node.keys(), dotted(path)
        assert {"maximum", "exclusiveMaximum"} & node.keys(), dotted(path)
    assert {dotted(path) for path in NUMBERS} >= UNBOUNDED.keys()


@pytest.mark.parametrize("path", BOUNDED, ids=dotted)
def test_values_beyond_the_bounds_are_refused_when_read(path: tuple[Step, ...]) -> None:
    low, high, closed_low, closed_high = ends(path)
    beyond = [low - 1, high + 1, -1e308, 1e308, math.inf, -math.inf, math.nan, 10**400, "x", []]
    beyond += [] if closed_low else [low]
    beyond += [] if closed_high else [high]
    for value in beyond:
        assert refused(path, value), value
    assert not refused(path, low if closed_low else low + 1)
    assert not refused(path, high if closed_high else high - 1)


@given(path=st.sampled_from(BOUNDED), value=st.integers() | st.floats())
def test_a_number_is_taken_exactly_within_its_bounds(path: tuple[Step, ...], value: float) -> None:
    low, high, closed_low, closed_high = ends(path)
    inside = low < value < high or (closed_low and value == low) or (closed_high and value == high)
    whole = NUMBERS[path]["type"] == "number" or value == math.floor(value) if inside else False
    if path == ("seed",):
        whole = whole and isinstance(value, int)
    assert bool(refused(path, value)) != (inside and whole)


def test_a_planted_negative_seed_makes_no_corpus() -> None:
    with pytest.raises(ConfigError, match=r"seed: .*greater than or equal to 0 \(got -1\)"):
        parse_config({"name": "a", "seed": -1})


def test_a_split_into_nothing_is_refused_when_read() -> None:
    with pytest.raises(ConfigError, match="split: .*sum to zero"):
        parse_config({"name": "a", "split": dict.fromkeys(("av", "ar", "rl", "test"), 0)})
