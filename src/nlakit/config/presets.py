"""What nlakit would start with for well-known models, and the recipe for a card of 4 GB."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from nlakit.core.layer_choice import two_thirds
from nlakit.errors import ConfigError

NF4_BYTES = 0.516  # half a byte, and scales of blocks of 64, which are quantised themselves
SMALL_CARD_GIB = 2.2  # of weights; adapters, optimizer and batches need the rest
LARGE = 3.0  # billions of parameters; from here up a preset quantises

# The settings of the Gemma-4-E2B card: its adapters, optimizer, batches, lengths and schedule.
SMALL_CARD_LORA = {"r": 64, "alpha": 128}
SMALL_CARD: dict[str, Any] = {
    "optimizer": "adamw8bit",
    "gradient_checkpointing": True,
    "batch_rows": 1,
    "accumulation": 16,
    "max_tokens": 512,
    "checkpoint_every": 50,
}


@dataclass(frozen=True)
class Preset:
    """A model by its published shape; `billions` leaves out per-layer embeddings."""

    model: str
    blocks: int
    width: int
    vocabulary: int
    tables: int
    billions: float
    ple_billions: float
    remark: str

    @property
    def layer(self) -> int:
        return two_thirds(self.blocks)

    @property
    def gigabytes(self) -> tuple[float, float]:
        """GiB of the weights in bfloat16, and with the blocks in NF4 and per-layer embeddings in
        main memory."""
        table = self.tables * self.vocabulary * self.width  # bitsandbytes leaves these alone
        blocks = self.billions * 1e9 - table
        whole = 2 * (self.billions + self.ple_billions) * 1e9
        return whole / 2**30, (2 * table + NF4_BYTES * blocks) / 2**30

    def settings(self, small_card: bool) -> dict[str, Any]:
        """Settings of a run; `small_card` adds the recipe for a card of 4 GB. Raises ConfigError if
        the weights alone do not fit there."""
        if small_card and self.gigabytes[1] > SMALL_CARD_GIB:
            raise ConfigError(
                f"{self.model} does not fit a card of 4 GB",
                found=f"{self.gigabytes[1]:.1f} GiB of weights in four bits",
                do="leave out --small-card, or choose a smaller model",
            )
        subject: dict[str, Any] = {"model": self.model, "layer": self.layer}
        if small_card or self.billions >= LARGE:
            subject["quantisation"] = "nf4"
        if small_card and self.ple_billions:
            subject["ple_on_cpu"] = True
        name = self.model.split("/")[-1].lower()
        if not small_card:
            return {"name": name, "subject": subject}
        first, second = {"steps": 500, "lr": 1e-4}, {"steps": 250, "lr": 3e-5}
        half = {"phases": [first, second], "lora": SMALL_CARD_LORA} | SMALL_CARD
        return {
            "name": f"{name}-4gb",
            "subject": subject,
            "activations": {"tokens_per_batch": 512, "max_tokens": 512},
            "ar": half | {"blocks": self.layer + 1},
            "av": half,
            "pair": {"phases": [{"steps": 60, "lr": 3e-5}], "generate_batch": 8} | SMALL_CARD,
            "eval": {"generate_batch": 8},
        }


def presets() -> list[Preset]:
    """All presets, in the order of the file."""
    text = (files("nlakit.config") / "presets.yaml").read_text(encoding="utf-8")
    return [Preset(*row) for row in yaml.safe_load(text)]


def find_preset(name: str) -> Preset:
    """The preset whose hub id, or its last part, is `name`. Raises ConfigError if there is none."""
    for preset in presets():
        if name.lower() in (preset.model.lower(), preset.model.split("/")[-1].lower()):
            return preset
    raise ConfigError(
        "no preset of this name",
        found=name,
        do="`nlakit presets` lists them; any causal LM can be named in subject.model",
    )
