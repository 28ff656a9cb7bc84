"""Toy halves, rows and loops for joint RL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlakit.config.sections import RLConfig, SubjectConfig
from nlakit.files.rows import TableRows
from nlakit.models.subject import load_subject
from nlakit.train.rl.instruments import Instruments
from nlakit.train.rl.joint import Halves, JointLoop
from nlakit.train.rl.learn import load_halves
from tests.conftest import D

# Of a toy run.
RL: dict[str, Any] = {
    "phases": [{"steps": 3, "lr": 0.01, "schedule": "constant", "warmup": 0}],
    "batch_rows": 2,
    "samples": 2,
    "ar_samples": 1,
    "measure_every": 2,
    "measure_rows": 6,
    "checkpoint_every": 1,
    "max_tokens": 420,
    "brakes": {"truncated": 1.0},  # texts of a toy never end by themselves
}
WORDS = "whale tax garden engine psalm river ledger violin".split()


def rl_config(**overrides: Any) -> RLConfig:
    given: dict[str, Any] = {
        "phases": [{"steps": 3, "lr": 1e-3, "schedule": "constant", "warmup": 0}],
        "batch_rows": 4,
        "samples": 3,
        "ar_samples": 2,
        "measure_every": 2,
        "checkpoint_every": 1,
        "max_tokens": 420,
        # Texts of a toy never end by themselves.
        "brakes": {"truncated": 1.0, "fall": 1.0, "unique": 0.0},
    }
    return RLConfig.model_validate(given | overrides)


def build_rows(count: int, first: int = 0, per_document: int = 2) -> TableRows:
    """Rows whose texts and sources say something, of `per_document` rows a document."""
    rng = np.random.default_rng(first)
    places = range(first, first + count)
    words = [[WORDS[(at + k) % len(WORDS)] for k in range(3)] for at in places]
    vectors = (rng.standard_normal((count, D)) + 1.5).astype(np.float32) * 20
    return TableRows(
        [f"r{at}" for at in places],
        [f"d{at // per_document}" for at in places],
        [f"It speaks of {a} and {b}." for a, b, _ in words],
        [f"The {a} and the {b} near the {c}." for a, b, c in words],
        ["odd" if at // per_document % 2 else "even" for at in places],
        [c for *_, c in words],
        [7] * count,
        vectors,
    )


def load_toy(pair: Path, model: Path, dtype: str = "float32") -> Halves:
    """The halves of a saved toy pair, twice."""
    settings = {"model": str(model), "dtype": "float32", "device": "cpu", "layer": 1}
    subject = load_subject(SubjectConfig.model_validate(settings))
    halves = load_halves(subject, pair)
    if dtype == "float64":
        for half in (halves.av, halves.start_av):
            half.to(torch.float64)
    return halves


def build_loop(halves: Halves, folder: Path, config: RLConfig, **given: Any) -> JointLoop:
    mean = np.full(D, 0.1)
    held_out = build_rows(6, first=100)
    instruments = Instruments(halves.av, halves.ar, halves.start_ar, held_out, mean, 8, 0)
    return JointLoop(
        halves, build_rows(12), build_rows(8, first=50), instruments, config, folder, 0, **given
    )


class Pays:
    """A reward that pays for something else besides."""

    def __init__(self, rewarder: Any, worth: Callable[[Sequence[int]], float]) -> None:
        self.rewarder, self.worth = rewarder, worth

    def parts(self, rollouts: Any, *given: Any) -> dict[str, np.ndarray]:
        planted = np.array([self.worth(tokens) for tokens in rollouts.tokens], dtype=float)
        return self.rewarder.parts(rollouts, *given) | {"planted": planted}
