"""What a configuration leaves out and the model decides: the layer by its depth, the learning rate
by its width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nlakit.config.sections import Phase, RunConfig
from nlakit.core.layer_choice import two_thirds

# Of adapters: measured at widths 576 and 640, and lower for wider models by the power that Schulman
# et al. (LoRA Without Regret, 2025) fitted over Llamas.
LR, WIDTH, POWER = 1e-3, 640, 0.775
ADAPTATION = 0.4  # of that: the AR's adaptation to AV texts starts from a trained half
RL = 0.1  # of that: what is learnt is what was drawn, and noisy
SHARES = {"ar": 1.0, "av": 1.0, "pair": ADAPTATION, "rl": RL}


@dataclass(frozen=True)
class Shape:
    """A model's number of blocks and the width of its residual stream."""

    blocks: int
    width: int


def learning_rate_of(width: int) -> float:
    """Learning rate of adapters on a model of this width, to two digits."""
    return float(f"{LR * min(WIDTH / width, 1) ** POWER:.1e}")


def needs_model(config: RunConfig) -> bool:
    """Whether something is left out that takes the model's shape."""
    rates = ("lr" in phase.model_fields_set for name in SHARES for phase in _phases(config, name))
    return _takes_layer(config) or not all(rates)


def _takes_layer(config: RunConfig) -> bool:
    """Whether the layer is left to the model's depth; imported tables are of one layer."""
    return "layer" not in config.subject.model_fields_set and not config.tables.source


def fitted(config: RunConfig, shape: Shape) -> RunConfig:
    """The configuration with the settings that it leaves to the model."""
    subject = config.subject
    update: dict[str, Any] = {}
    if _takes_layer(config):
        update["subject"] = subject.model_copy(update={"layer": two_thirds(shape.blocks)})
    for name, share in SHARES.items():
        if getattr(config, name) is None:
            continue
        rate = float(f"{share * learning_rate_of(shape.width):.1e}")
        phases = tuple(
            phase if "lr" in phase.model_fields_set else phase.model_copy(update={"lr": rate})
            for phase in _phases(config, name)
        )
        update[name] = getattr(config, name).model_copy(update={"phases": phases})
    return config.model_copy(update=update)


def _phases(config: RunConfig, name: str) -> tuple[Phase, ...]:
    section = getattr(config, name)
    return section.phases if section else ()
