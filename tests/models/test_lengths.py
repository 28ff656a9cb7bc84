"""Texts longer than the subject's positions are refused, or cut, before the model sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from nlakit import NLA
from nlakit.cli.main import app
from nlakit.config.load import parse_config
from nlakit.config.sections import LoraConfig, SubjectConfig
from nlakit.data.activations import Reader
from nlakit.errors import ConfigError, DataError, ModelError
from nlakit.evaluate.parts.readouts import continuations
from nlakit.models import families
from nlakit.models.families import check_lengths, position_limit
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.run import pipeline
from nlakit.studies.planning.plan import predict
from tests.conftest import FAMILIES, D, build_contract, toy_config, toy_corpus, toy_settings

Folder = Callable[[str], Path]
LONG = "word " * 300  # 1500 tokens of the toy's, whose models have 512 positions


def pair_of(subject: Any, **record: Any) -> NLA:
    contract = build_contract(subject, **record)
    lora = LoraConfig(r=2, alpha=4)
    av = Verbalizer(subject, contract, np.zeros(D), lora, 0).eval()
    return NLA(subject, av, Reconstructor(subject, contract, lora, 0).eval(), np.zeros(D))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_names_its_limit(family: str) -> None:
    assert position_limit(toy_config(family)) == 512


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_text_beyond_the_positions_is_refused(toy_subject: Any, family: str) -> None:
    nla = pair_of(toy_subject(family, 1))
    with pytest.raises(DataError, match="longer than the subject can read; found: 1501 tokens"):
        nla.explain(LONG)
    assert len(nla.explain("w" * 511)) == 1
    with pytest.raises(DataError, match="513 tokens, 512 positions"):
        Reader(nla.subject, [1], 0).read([[5] * 513], [[512]])


def test_what_goes_into_the_halves_is_cut_to_the_positions(toy_subject: Any) -> None:
    """A foreign sidecar names no lengths of its own; what is assumed may not fit."""
    nla = pair_of(toy_subject("gpt2", 1), max_tokens=2048, max_new_tokens=2048)
    assert nla.av is not None
    assert nla.ar is not None
    assert nla.reconstruct([LONG]).shape == (1, D)
    assert nla.av.label_loss(nla.av.scaled(np.ones((1, D))), [LONG]).shape == (1,)
    assert len(nla.av.prompt) + nla.av.decoding().max_new_tokens == 512
    assert len(continuations(nla.av, [LONG, "a b"], 2)) == 2


def test_the_tokenizers_limit_counts_where_the_model_names_none(
    toy_subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = toy_subject("llama", 1)
    monkeypatch.setattr(families, "POSITIONS", ())
    assert subject.positions is None
    subject.tokenizer.model_max_length = 100
    assert subject.positions == 100


@pytest.mark.parametrize(
    ("setting", "value"),
    [("activations.max_tokens", 2048), ("av.max_tokens", 513), ("decoding.max_new_tokens", 600)],
)
def test_settings_beyond_the_positions_end_a_run_before_its_corpus(
    toy_folder: Folder, tmp_path: Path, setting: str, value: int
) -> None:
    settings = toy_settings(toy_folder("gpt2"), toy_corpus(tmp_path / "c.jsonl", 8))
    file = tmp_path / "toy.yaml"
    file.write_text(json.dumps(settings), encoding="utf-8")
    out = tmp_path / "run"
    arguments = ["run", str(file), "--out", str(out), "--set", f"{setting}={value}"]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, ConfigError)
    assert f"{setting} {value}; the model has 512 positions" in str(error)
    assert not (out / "01_corpus").exists()
    section, name = setting.split(".")
    config = parse_config(settings | {section: {**settings[section], name: value}})
    with pytest.raises(ConfigError, match="the model has 512 positions"):
        predict(config, pipeline.RunDir(tmp_path / "plan"))


def test_a_subject_that_is_not_there_ends_a_run_before_its_corpus(tmp_path: Path) -> None:
    settings = toy_settings(tmp_path / "nowhere", toy_corpus(tmp_path / "c.jsonl", 8))
    with pytest.raises(ModelError, match="cannot load the subject"):
        pipeline.run(parse_config(settings), tmp_path / "run")
    assert not (tmp_path / "run" / "01_corpus").exists()


def test_defaults_fit_the_embedded_model() -> None:
    check_lengths(parse_config({"name": "t"}))
    assert load_subject(SubjectConfig(device="cpu")).positions == 32768
