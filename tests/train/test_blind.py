"""A training that does not read is named while it runs, and a clean one is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nlakit.cli import main
from nlakit.config.sections import AVConfig, TrainConfig
from nlakit.core.injection import Injection
from nlakit.errors import LimitReached
from nlakit.files.rows import TableRows
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.av import AVTask
from nlakit.train.loop import Reading, Trainer
from tests.conftest import D, build_contract

WORDS = ["red", "owl", "six", "nut"]


def rows_of_words(documents: int, seed: int) -> TableRows:
    """Rows whose label is one of four words and whose vector is that word's direction."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(documents) % len(WORDS)
    vectors = 20 * np.eye(D)[kinds * 5] + rng.normal(size=(documents, D))
    ids = [f"d{i}" for i in range(documents)]
    texts = [f"It is {WORDS[kind]} here." for kind in kinds]
    return TableRows(
        ids, ids, texts, [""] * documents, [""] * documents, [""] * documents, [0] * documents,
        vectors.astype(np.float32),
    )  # fmt: skip


def train_toy(toy_subject: Any, folder: Path, deaf: bool, stop: bool) -> dict[str, Any]:
    """An AV on words; a deaf one is handed every row's vector as the same."""
    subject = toy_subject("llama")
    contract = build_contract(subject)
    contract.nlakit.injection = Injection(blocks=(0, 1), block_scale=10.0)
    settings = AVConfig.model_validate(
        {"phases": [{"steps": 60, "lr": 0.01}], "batch_rows": 8, "measure_every": 20,
         "lora": {"r": 8, "alpha": 16}}
    )  # fmt: skip
    module = Verbalizer(subject, contract, np.zeros(D), settings.lora, 0)
    if deaf:
        module.scaled = lambda vectors: torch.ones(len(vectors), D)  # type: ignore[method-assign]
    task = AVTask(module, rows_of_words(64, 0), rows_of_words(24, 1), settings)
    return Trainer(task, settings, folder, 0, stop_if_blind=stop).run("AV")


def test_planted_an_av_that_cannot_read_is_named_at_the_second_measurement(
    toy_subject: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = train_toy(toy_subject, tmp_path, deaf=True, stop=False)
    said = [line for line in capsys.readouterr().err.splitlines() if "does not read" in line]
    assert len(said) == 1
    assert "AV: after 40 steps" in said[0] and "nlakit layers" in said[0]
    assert found["steps"] == 60  # it goes on


def test_planted_stop_if_blind_ends_it_and_keeps_what_is_done(
    toy_subject: Any, tmp_path: Path
) -> None:
    with pytest.raises(LimitReached, match="after 40 steps it writes labels as well from another"):
        train_toy(toy_subject, tmp_path, deaf=True, stop=True)
    assert [one.name for one in (tmp_path / "checkpoints").iterdir()] == ["step-000040"]
    assert train_toy(toy_subject, tmp_path, deaf=True, stop=False)["steps"] == 60


def test_a_clean_av_is_not_named(
    toy_subject: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = train_toy(toy_subject, tmp_path, deaf=False, stop=True)
    assert found["last"]["gap_low"] > 0
    assert "does not read" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "stops"), [([], True), (["--no-stop-if-blind"], False), (["--stop-if-blind"], True)]
)
def test_an_option_that_is_not_given_leaves_the_setting_alone(
    words: list[str], stops: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(main, "guarded", lambda config, *rest: seen.append(config))
    monkeypatch.setattr(main.cli_eval, "show_run", lambda path: None)
    file = tmp_path / "c.yaml"
    file.write_text("watch: {stop_if_blind: true}\ntables: {source: nowhere}\n", encoding="utf-8")
    assert CliRunner().invoke(main.app, ["run", str(file), *words]).exit_code == 0
    assert [config.watch.stop_if_blind for config in seen] == [stops]


class Scripted:
    """A task that measures given lower ends, one after the other."""

    reading = Reading("gap", "low", "it is blind", "look again")

    def __init__(self, lows: Sequence[float]) -> None:
        self.module, self.lows = nn.Linear(1, 1), list(lows)

    def lengths(self) -> Sequence[int]:
        return [1] * 4

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        return self.module(torch.ones(1, 1)).square().mean(), {}

    def measure(self) -> dict[str, float]:
        return {"gap": 0.5, "low": self.lows.pop(0)}


@pytest.mark.parametrize(
    ("lows", "times"),
    [([-1, 1, -1, 1], 0), ([-1, -1, -1, -1], 1), ([0, 0, 1, 1], 1), ([-1, -1, 1, -1, -1], 2)],
)
def test_two_in_a_row_are_said_once(
    lows: list[float], times: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"phases": [{"steps": len(lows), "lr": 0.1}], "batch_rows": 4, "measure_every": 1}
    Trainer(Scripted(lows), TrainConfig.model_validate(given), tmp_path, 0).run("AV")
    assert capsys.readouterr().err.count("it is blind") == times
