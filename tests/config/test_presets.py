"""Presets: every configuration they write is one that nlakit reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.config.load import load_config, parse_config
from nlakit.config.presets import Preset, find_preset, presets
from nlakit.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "examples" / "gemma4-e2b-4gb.yaml"


@pytest.mark.parametrize("preset", presets(), ids=lambda one: one.model)
@pytest.mark.parametrize("small_card", [False, True])
def test_each_is_a_configuration(preset: Preset, small_card: bool) -> None:
    if small_card and preset.gigabytes[1] > 2.2:
        with pytest.raises(ConfigError, match="does not fit a card of 4 GB"):
            preset.settings(small_card)
        return
    config = parse_config(preset.settings(small_card))
    assert config.subject.layer == 2 * preset.blocks // 3 < preset.blocks
    whole, small = preset.gigabytes
    assert 0 < small < whole
    if small_card:
        assert config.ar.optimizer == config.av.optimizer == "adamw8bit"
        assert config.ar.batch_rows * config.ar.accumulation == 16


def test_layers_of_the_released_runs() -> None:
    """Gemma 3 12B at 32, 27B at 41, Llama 70B at 53, Gemma 4 E2B at 23."""
    named = {preset.model: preset.layer for preset in presets()}
    assert named["google/gemma-3-12b-pt"] == 32
    assert named["google/gemma-3-27b-pt"] == 41
    assert named["meta-llama/Llama-3.3-70B-Instruct"] == 53
    assert named["google/gemma-4-E2B"] == 23


def test_the_example_is_the_cards_recipe() -> None:
    config = load_config(EXAMPLE)
    assert (config.subject.quantisation, config.subject.layer) == ("nf4", 23)
    for half in (config.ar, config.av):
        assert half.lora is not None and (half.lora.r, half.lora.alpha) == (64, 128)
        assert [phase.lr for phase in half.phases] == [1e-4, 3e-5]
        assert (half.batch_rows, half.accumulation, half.max_tokens) == (1, 16, 512)
        assert half.checkpoint_every == 50 and half.gradient_checkpointing
    assert config.ar.blocks == 24
    assert load_config(EXAMPLE, ["ar.blocks=18"]).ar.blocks == 18
    preset = parse_config(find_preset("gemma-4-e2b").settings(small_card=True))
    for section in ("subject", "activations", "ar", "av", "pair", "eval"):
        assert getattr(preset, section) == getattr(config, section), section


def test_the_command_lists_and_writes() -> None:
    listed = CliRunner().invoke(app, ["presets"], env={"COLUMNS": "200"})
    assert listed.exit_code == 0 and "google/gemma-4-E2B" in listed.output
    written = CliRunner().invoke(app, ["presets", "gemma-4-e2b", "--small-card"])
    assert yaml.safe_load(written.output)["subject"]["ple_on_cpu"] is True


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ConfigError, match="no preset"):
        find_preset("gemma-9")
