"""What answers cost: a small table with its date; an unknown price is unknown, never zero."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlakit.errors import ConfigError

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """US dollars a million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    input: Dollars
    output: Dollars

    def cost(self, tokens_in: int, tokens_out: int) -> float:
        """US dollars."""
        return (tokens_in * self.input + tokens_out * self.output) / 1e6


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    date: date
    models: dict[str, Price]


@dataclass(frozen=True)
class Prices:
    """Prices by a service's name, `anthropic:claude-haiku-4-5`; `source` and its date go with
    them wherever a cost is shown."""

    models: dict[str, Price]
    source: str

    def of(self, service: str) -> Price | None:
        """The price of a service; a date at the end of a model's name does not matter."""
        if service in self.models:
            return self.models[service]
        known = [name for name in self.models if service.startswith(f"{name}-20")]
        return self.models[known[0]] if known else None


def load_prices(path: str | None) -> Prices:
    """nlakit's own table, overridden by the lines of `path`.

    Raises ConfigError for a file that cannot be read or is no price table.
    """
    own = _parse(
        files("nlakit.data.labels.services").joinpath("prices.yaml").read_text(encoding="utf-8"),
        "nlakit",
    )
    if path is None:
        return Prices(own.models, f"nlakit's price table of {own.date}")
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the price table {path}",
            found=error,
            do="check labels.prices: a JSON or YAML file that you may read",
        ) from error
    theirs = _parse(text, path)
    return Prices(own.models | theirs.models, f"{path} of {theirs.date}")


def _parse(text: str, where: str) -> _File:
    try:
        return _File.model_validate(yaml.safe_load(text))
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(
            f"{where} is no price table",
            found=" ".join(str(error).split())[:300],
            do="date: 2026-01-31, then models: {service:model: {input: 1.0, output: 5.0}}, "
            "in US dollars a million tokens",
        ) from error
