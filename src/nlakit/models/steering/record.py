"""What steering by words gives back, how it is asked for, and when it counts as a success."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nlakit.core.statistics import permutation_p
from nlakit.errors import ConfigError

LEVEL = 0.05
MOST_ALPHAS, MOST_RANDOM = 50, 1000
ALPHAS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Asked:
    """How an edit is tried: sizes α, number of random directions, `seed` of these and of samples,
    `window` places at which words are listened for, length and temperature of continuations."""

    alphas: tuple[float, ...] = ALPHAS
    random: int = 10
    seed: int = 0
    window: int = 8
    new_tokens: int = 24
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Raises ConfigError for numbers out of range."""
        if not 1 <= len(self.alphas) <= MOST_ALPHAS or not all(map(math.isfinite, self.alphas)):
            raise ConfigError(
                "steering needs sizes that are finite numbers",
                found=f"alpha {', '.join(map(str, self.alphas)) or 'none'}"[:80],
                do=f"give 1 to {MOST_ALPHAS}, for example 0.25,0.5,1",
            )
        ranges = {
            "random directions": (self.random, 0, MOST_RANDOM),
            "places to listen at": (self.window, 1, 256),
            "new tokens": (self.new_tokens, 0, 2048),
            "seed": (self.seed, 0, 2**31),
        }
        for name, (found, low, high) in ranges.items():
            if not low <= found <= high:
                raise ConfigError(f"{name} out of range", found=found, do=f"{low} to {high}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigError(
                "a temperature is 0 (greedy) or above", found=self.temperature, do="for example 0.7"
            )


def chance_of_success(random: int) -> float | None:
    """How often one of random directions lies above all but 5% of the others; None without any to
    compare with."""
    return max(1, math.floor(LEVEL * (random + 1))) / (random + 1) if random else None


def succeeded(value: float, random: Sequence[float]) -> bool | None:
    """Whether a value lies above all but 5% of those of random directions; above every one where
    there are fewer than 39. None without any."""
    chance = chance_of_success(len(random))
    if chance is None:
        return None
    return permutation_p(value, np.asarray(random)) <= chance + 1e-9


@dataclass(frozen=True)
class AtSize:
    """What the push of one size α does, beside random directions of the same size.

    log_p: of the first tokens of the edited-in words, in nats, mean over words and over the window
    along the subject's own unsteered continuation; rise: of it above no steering; next_log_p: at
    the first place alone; own_log_p: of that continuation itself, so what the push costs. None for
    words where the edit brings none in. other_log_p: under the further directions that were given.
    """

    alpha: float
    continuation: str
    log_p: float | None
    rise: float | None
    next_log_p: float | None
    own_log_p: float
    random_log_p: list[float]
    random_next_log_p: list[float]
    random_own_log_p: list[float]
    random_continuations: list[str]
    other_log_p: list[float]

    @property
    def gain(self) -> float | None:
        """Nats above the mean of random directions."""
        if self.log_p is None or not self.random_log_p:
            return None
        return self.log_p - float(np.mean(self.random_log_p))

    @property
    def other_gain(self) -> float | None:
        """Nats above the mean of the further directions."""
        if self.log_p is None or not self.other_log_p:
            return None
        return self.log_p - float(np.mean(self.other_log_p))

    @property
    def success(self) -> bool | None:
        """Whether the words are likelier than without steering, and than along random directions.
        Either alone is little: a random push makes all words but a few unlikely."""
        if self.log_p is None or self.rise is None:
            return None
        found = succeeded(self.log_p, self.random_log_p)
        return None if found is None else found and self.rise > 0


@dataclass(frozen=True)
class Steered:
    """An edit of an explanation, and what the subject does when it is pushed along it."""

    text: str
    original: str
    edited: str
    words: list[str]
    at: list[int]
    written: bool
    follow: str
    unsteered: str
    unsteered_log_p: float | None
    unsteered_next_log_p: float | None
    unsteered_own_log_p: float
    chance: float | None
    sizes: list[AtSize]

    def as_dicts(self) -> list[dict[str, Any]]:
        """A record a size, with what the edit shares."""
        shared = {name: value for name, value in vars(self).items() if name != "sizes"}
        found = ("gain", "other_gain", "success")
        return [
            {**shared, **vars(one), **{name: getattr(one, name) for name in found}}
            for one in self.sizes
        ]

    def __repr__(self) -> str:
        lines = [f"{self.original} → {self.edited}", f"unsteered  {self.unsteered}"]
        for one in self.sizes:
            gain = "" if one.gain is None else f"  {one.gain:+.2f} nats over random"
            lines.append(f"α {one.alpha:g}{gain}  {one.continuation}")
        return "\n".join(lines)
