"""What the model decides of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nlakit.config.from_model import Shape, fitted, learning_rate_of, needs_model
from nlakit.config.load import dump_config, load_config, parse_config
from nlakit.core.layer_choice import two_thirds
from nlakit.errors import ModelError
from nlakit.run.pipeline import with_model_settings
from nlakit.train.optimizer import learning_rate

WIDE = Shape(blocks=48, width=2560)


def test_what_is_left_out_comes_from_the_model() -> None:
    config = fitted(parse_config({"name": "t"}), WIDE)
    assert config.subject.layer == two_thirds(48) == 32
    rates = [half.phases[0].lr for half in (config.ar, config.av, config.pair)]
    assert rates == [learning_rate_of(2560)] * 2 + [
        pytest.approx(0.4 * learning_rate_of(2560), rel=0.05)
    ]
    assert not needs_model(config)


def test_what_is_given_stays() -> None:
    given = {"phases": [{"steps": 9, "lr": 1e-5}, {"steps": 4}]}
    config = parse_config({"name": "t", "subject": {"layer": 3}, "av": given})
    made = fitted(config, WIDE)
    assert made.subject.layer == 3
    assert [phase.lr for phase in made.av.phases] == [1e-5, learning_rate_of(2560)]
    assert [phase.steps for phase in made.av.phases] == [9, 4]


def test_rl_takes_a_tenth_where_it_is_asked_for() -> None:
    assert fitted(parse_config({"name": "t"}), WIDE).rl is None
    config = parse_config({"name": "t", "rl": {}})
    assert needs_model(config)
    made = fitted(config, WIDE)
    assert made.rl is not None
    assert made.rl.phases[0].lr == pytest.approx(0.1 * learning_rate_of(2560), rel=0.05)
    assert not needs_model(made)


def test_a_written_configuration_leaves_nothing_out() -> None:
    import yaml

    config = fitted(parse_config({"name": "t"}), WIDE)
    assert not needs_model(parse_config(yaml.safe_load(dump_config(config))))


def test_imported_tables_keep_their_layer_and_take_the_rates_of_the_model(
    tmp_path: Path, toy_subject: Any
) -> None:
    """The default rate is a narrow model's: on a wide one it would be several times too high."""
    given = {"name": "t", "tables": {"source": str(tmp_path)}}
    config = fitted(parse_config(given), WIDE)
    assert config.subject.layer == parse_config(given).subject.layer
    assert config.av.phases[0].lr == config.ar.phases[0].lr == learning_rate_of(2560)
    toy = toy_subject("llama")
    made = with_model_settings(parse_config({**given, "subject": {"model": toy.source}}))
    assert made.av.phases[0].lr == learning_rate_of(toy.d_model)
    rates = {half: {"phases": [{"steps": 5, "lr": 1e-3}]} for half in ("ar", "av", "pair")}
    assert not needs_model(parse_config(given | rates))


def test_wider_models_get_lower_rates_and_none_a_wild_one() -> None:
    rates = [learning_rate_of(width) for width in (8, 64, 640, 1152, 2560, 5376)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] <= 1e-3 and rates[-1] >= 5e-5


def test_the_warm_up_is_a_twentieth_of_the_steps() -> None:
    phases = parse_config({"name": "t", "av": {"phases": [{"steps": 40, "lr": 1e-3}]}}).av.phases
    assert [learning_rate(phases, step) for step in (0, 1)] == [5e-4, 1e-3]


def test_a_model_is_looked_at_only_where_something_is_left_out(
    tmp_path: Path, toy_subject: Any
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("subject: {model: nowhere/none, layer: 1}\n", encoding="utf-8")
    rates = [f"{half}.phases=[{{steps: 5, lr: 1.0e-3}}]" for half in ("ar", "av", "pair")]
    assert with_model_settings(load_config(file, rates)).subject.layer == 1
    with pytest.raises(ModelError, match="cannot load the subject"):
        with_model_settings(load_config(file))
    toy = toy_subject("llama")
    made = with_model_settings(load_config(file, [f"subject.model={toy.source}"]))
    assert made.av.phases[0].lr == learning_rate_of(toy.d_model)
