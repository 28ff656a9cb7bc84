"""Prices: by hand, dated, and unknown where unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from nlakit.config.labels import LabelsConfig, RequestsConfig
from nlakit.data.labels.services.estimate import estimate, line
from nlakit.data.labels.services.labeler import check_prices
from nlakit.data.labels.services.prices import load_prices
from nlakit.errors import ConfigError

TABLE = "date: 2026-02-01\nmodels:\n  'compatible:m': {input: 2.0, output: 10.0}\n"


def services(name: str = "m") -> LabelsConfig:
    one = {"kind": "compatible", "model": name, "base_url": "http://127.0.0.1:1/v1"}
    return LabelsConfig.model_validate({"labeler": "services", "services": [one]})


def test_cost_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(TABLE)
    prices = load_prices(str(file))
    price = prices.of("compatible:m")
    assert price is not None
    assert price.cost(1_000_000, 100_000) == pytest.approx(3.0)
    assert prices.of("anthropic:claude-haiku-4-5") is not None  # nlakit's own lines stay
    assert "2026-02-01" in prices.source


def test_a_dated_model_has_the_price_of_its_name() -> None:
    prices = load_prices(None)
    dated = prices.of("anthropic:claude-haiku-4-5-20251001")
    assert dated == prices.of("anthropic:claude-haiku-4-5")
    assert prices.of("openai:gpt-4o-2024-08-06") == prices.of("openai:gpt-4o")
    assert prices.of("openai:gpt-4o-mini-tts") is None
    assert prices.of("compatible:whatever") is None


def test_a_limit_on_an_unknown_cost_is_refused() -> None:
    check_prices(services(), RequestsConfig())
    with pytest.raises(ConfigError, match="no price of compatible:m in nlakit's price table of 20"):
        check_prices(services(), RequestsConfig(max_cost=1.0))


@pytest.mark.parametrize("text", ["[", "models: {}", TABLE + "  x: {input: -1, output: 1}\n", "3"])
def test_a_file_that_is_no_price_table(tmp_path: Path, text: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="is no price table"):
        load_prices(str(file))


def test_estimate_counts_both_personas(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(TABLE)
    requests = RequestsConfig(prices=str(file))
    alone, _ = estimate(services(), requests, 1000, 150)
    assert alone.requests == 1000
    assert alone.cost == pytest.approx((alone.tokens_in * 2 + alone.tokens_out * 10) / 1e6)
    audited = services().model_copy(update={"auditor": services().services[0]})
    both, _ = estimate(audited, requests, 1000, 150)
    assert both.requests == 2000
    assert both.cost is not None
    assert alone.cost is not None
    assert both.cost > 2 * alone.cost  # the auditor reads the label too
    assert "cost unknown" in line(services("other"), requests, 1000, 150)
