"""What labelling will cost, before anything is sent."""

from __future__ import annotations

import json
from dataclasses import dataclass

from nlakit.config.labels import LabelsConfig, RequestsConfig, ServiceConfig
from nlakit.data.labels.services.answers import Answer, LabelAnswer, Verdict, schema
from nlakit.data.labels.services.prices import Prices, load_prices
from nlakit.data.labels.services.prompts import Template, load_prompts

BYTES_PER_TOKEN = 4.0  # of English prose
ANSWER_TOKENS = {LabelAnswer: 120, Verdict: 160}  # without reasoning


@dataclass(frozen=True)
class Estimate:
    """Of all rows, with one answer a question and nothing in the store yet. US dollars; None if a
    price is unknown."""

    requests: int
    tokens_in: float
    tokens_out: float
    cost: float | None

    def __add__(self, other: Estimate) -> Estimate:
        known = self.cost is not None and other.cost is not None
        return Estimate(
            self.requests + other.requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            (self.cost or 0) + (other.cost or 0) if known else None,
        )


def estimate(
    settings: LabelsConfig, requests: RequestsConfig, rows: int, text_tokens: float
) -> tuple[Estimate, Prices]:
    """Requests, tokens and cost of `rows` rows whose texts have `text_tokens` tokens on average.

    Raises ConfigError for prompts or prices that cannot be used.
    """
    prices, prompts = load_prices(requests.prices), load_prompts(settings.prompts)
    total = _persona(settings.services[0], prompts.labeler, LabelAnswer, rows, text_tokens, prices)
    if settings.auditor is not None:
        # A verdict follows on the label, which is part of its prompt.
        longer = text_tokens + ANSWER_TOKENS[LabelAnswer]
        total += _persona(settings.auditor, prompts.auditor, Verdict, rows, longer, prices)
    return total, prices


def _persona(
    service: ServiceConfig,
    template: Template,
    kind: type[Answer],
    rows: int,
    text_tokens: float,
    prices: Prices,
) -> Estimate:
    fixed = template.instructions + template.message + json.dumps(schema(kind))
    tokens_in = rows * (len(fixed.encode()) / BYTES_PER_TOKEN + text_tokens)
    tokens_out = float(rows * ANSWER_TOKENS[kind])
    price = prices.of(service.name)
    cost = (tokens_in * price.input + tokens_out * price.output) / 1e6 if price else None
    return Estimate(rows, tokens_in, tokens_out, cost)


def line(settings: LabelsConfig, requests: RequestsConfig, rows: int, text_tokens: float) -> str:
    """The estimate in one sentence."""
    found, prices = estimate(settings, requests, rows, text_tokens)
    audit = f", audited by {settings.auditor.name}" if settings.auditor else ""
    cost = f"about ${found.cost:,.2f}" if found.cost is not None else "cost unknown"
    return (
        f"labels: {rows:,} rows by {settings.services[0].name}{audit}: {found.requests:,} requests,"
        f" {found.tokens_in / 1e6:,.2f} M tokens in, {found.tokens_out / 1e6:,.2f} M out,"
        f" {cost} ({prices.source}; reasoning tokens, retries and answers already stored left out)"
    )
