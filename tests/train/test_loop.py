"""The loop: schedules, batches, exact resume, non-finite steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nlakit.config.sections import Phase, TrainConfig
from nlakit.errors import ModelError, RunError
from nlakit.train.loop import Reading, Trainer, batch_at, trend
from nlakit.train.optimizer import LossScale, MasterAdamW, learning_rate


def build_config(**overrides: Any) -> TrainConfig:
    given: dict[str, Any] = {
        "phases": [{"steps": 12, "lr": 0.05, "warmup": 2}],
        "batch_rows": 4,
        "checkpoint_every": 5,
        "measure_every": 6,
    }
    return TrainConfig.model_validate(given | overrides)


class LineTask:
    """Fit a line; `poison` makes the loss of these steps not finite, `dies_at` stops the run."""

    reading = Reading("norm", "read", "", "")  # which nothing measures here

    def __init__(self, poison: Sequence[int] = (), dies_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.module = nn.Linear(3, 1, dtype=torch.bfloat16)
        self.inputs = torch.randn(40, 3)
        self.poison, self.dies_at, self.calls = set(poison), dies_at, 0

    def lengths(self) -> Sequence[int]:
        return [i % 7 for i in range(40)]

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        if self.calls == self.dies_at:
            raise KeyboardInterrupt
        x = self.inputs[list(rows)]
        loss = (self.module(x.bfloat16())[:, 0].float() - x.sum(1)).square().mean()
        if self.calls in self.poison:
            loss = loss * math.nan
        self.calls += 1
        return loss, {}

    def measure(self) -> dict[str, float]:
        return {"norm": float(self.module.weight.float().norm())}


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = LineTask()
    Trainer(whole, build_config(), tmp_path / "whole", 0).run("t")
    with pytest.raises(KeyboardInterrupt):
        Trainer(LineTask(dies_at=8), build_config(), tmp_path / "cut", 0).run("t")
    resumed = LineTask()
    Trainer(resumed, build_config(), tmp_path / "cut", 0).run("t")
    assert resumed.calls == 7  # from the checkpoint at step 5
    assert torch.equal(resumed.module.weight, whole.module.weight)
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "cut")]
    assert metrics[0] == metrics[1]


def test_planted_mode_6_non_finite_steps_are_skipped_and_counted(tmp_path: Path) -> None:
    task = LineTask(poison=[3, 4])
    found = Trainer(task, build_config(), tmp_path, 0).run("t")
    assert found["skipped_steps"] == 2
    assert torch.isfinite(task.module.weight).all()


def test_only_non_finite_steps_is_an_error(tmp_path: Path) -> None:
    task = LineTask(poison=range(100))
    config = build_config(phases=[{"steps": 40, "lr": 0.1}])
    with pytest.raises(ModelError, match="no finite gradient"):
        Trainer(task, config, tmp_path, 0).run("t")


def test_accumulation_sees_every_row(tmp_path: Path) -> None:
    task = LineTask()
    Trainer(task, build_config(accumulation=3), tmp_path, 0).run("t")
    assert task.calls == 36


def test_accumulated_gradient_is_the_mean(tmp_path: Path) -> None:
    """Two micro-batches of 4 move the weights as one batch of the same 8 rows."""

    class Fixed(LineTask):
        def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
            size = len(rows)
            return super().loss(range(self.calls * size, (self.calls + 1) * size))

    one = {"phases": [{"steps": 1, "lr": 0.1, "warmup": 0}]}
    left, right = Fixed(), Fixed()
    left.module.float(), right.module.float()
    left.module.bfloat16(), right.module.bfloat16()
    Trainer(left, build_config(**one, accumulation=2), tmp_path / "a", 0).run("t")
    Trainer(right, build_config(**one, batch_rows=8), tmp_path / "b", 0).run("t")
    assert torch.allclose(left.module.weight, right.module.weight, atol=1e-2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=8, max_size=60), st.integers(2, 8), st.integers(0, 5))
def test_an_epoch_visits_rows_once(lengths: list[int], batch: int, seed: int) -> None:
    per_epoch = len(lengths) // batch
    rows = [r for step in range(per_epoch) for r in batch_at(step, lengths, batch, seed)]
    assert len(rows) == len(set(rows)) == per_epoch * batch
    assert batch_at(1, lengths, batch, seed) == batch_at(1, lengths, batch, seed)


def test_batches_are_of_similar_length() -> None:
    lengths = list(range(256))
    spans = [batch_at(step, lengths, 16, 0) for step in range(16)]
    assert all(max(rows) - min(rows) < 40 for rows in spans)


def test_too_few_rows() -> None:
    with pytest.raises(RunError, match="fewer training rows"):
        batch_at(0, [1, 2], 4, 0)


def test_learning_rate_by_hand() -> None:
    phases = [
        Phase(steps=10, lr=1.0, schedule="cosine", warmup=2, end_factor=0.0),
        Phase(steps=4, lr=0.5, schedule="linear", warmup=0, end_factor=0.5),
        Phase(steps=2, lr=0.1, schedule="constant", warmup=0),
    ]
    rates = [learning_rate(phases, step) for step in range(17)]
    assert rates[:3] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[6] == pytest.approx(0.5)  # half of the cosine
    assert rates[10:14] == pytest.approx([0.5, 0.4375, 0.375, 0.3125])
    assert rates[14:] == pytest.approx([0.1, 0.1, 0.0])


def test_trend_rule() -> None:
    assert trend([3 - 0.01 * i for i in range(50)])["descending"]
    assert not trend([3 - 0.001 * i for i in range(50)])["descending"]  # too flat
    noise = [(-1) ** i * 50 - 0.01 * i for i in range(50)]
    assert not trend(noise)["descending"]  # R² below 0.10
    assert trend([1.0, float("nan")])["descending"] is False


def test_masters_keep_small_updates() -> None:
    """A bfloat16 weight of 1 loses an update of 0.001; forty of them must still move it."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = MasterAdamW([weight], 0.0)
    for _ in range(40):
        weight.grad = torch.ones(1, dtype=torch.bfloat16)
        optimizer.step(0.001, 1e9)
    assert float(weight.detach()) == pytest.approx(0.96, abs=0.005)


def test_loss_scale_keeps_small_gradients_and_backs_off() -> None:
    """Halved at a gradient that is not finite; the update is that of the unscaled gradient."""
    scale = LossScale(on=True)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = MasterAdamW([weight], 0.0, scale=scale)
    weight.grad = torch.tensor([torch.inf, 0.0, 0.0])
    assert optimizer.step(0.1, 1.0) == torch.inf and torch.equal(weight, torch.ones(3))
    assert scale.factor == 2.0**14
    weight.grad = torch.tensor([3.0, 4.0, 0.0]) * scale.factor
    assert optimizer.step(0.1, 10.0) == pytest.approx(5.0)
    for _ in range(199):
        scale.update(True)
    assert scale.factor == 2.0**15
    state = optimizer.state_dict()
    again = MasterAdamW([torch.nn.Parameter(torch.ones(3))], 0.0, scale=LossScale(on=True))
    again.load_state_dict(state)
    assert again.scale.state() == scale.state()


def test_eight_bit_states_resume_exactly(tmp_path: Path) -> None:
    """Through the file that a checkpoint is, which is read without pickle."""

    def steps(optimizer: MasterAdamW, first: int, last: int) -> None:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            weight = optimizer.parameters[0]
            weight.grad = torch.randn(weight.shape, generator=generator)
            optimizer.step(0.01, 1e9)

    def fresh() -> MasterAdamW:
        return MasterAdamW([torch.nn.Parameter(torch.ones(80, 80))], 0.01, bits=8)

    whole, half, rest = fresh(), fresh(), fresh()
    steps(whole, 0, 6)
    steps(half, 0, 3)
    torch.save(half.state_dict(), tmp_path / "state.pt")
    rest.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    steps(rest, 3, 6)
    assert torch.equal(whole.parameters[0], rest.parameters[0])
    states = whole.inner.state[whole.masters[0]]
    assert states["state1"].dtype == torch.uint8


class Numbered(LineTask):
    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        return super().loss(rows)[0], {"call": float(self.calls)}


def test_what_is_logged_is_the_mean_over_the_micro_batches(tmp_path: Path) -> None:
    trainer = Trainer(Numbered(), build_config(accumulation=4), tmp_path, 0)
    trainer.run("t")
    assert [record["call"] for record in trainer.records[:2]] == [2.5, 6.5]


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x04noise"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        Trainer(LineTask(dies_at=11), build_config(), tmp_path, 0).run("t")
    state = max(tmp_path.glob("checkpoints/*/state.pt"))
    state.write_bytes(data)
    with pytest.raises(RunError, match=r"step-\d+ cannot be read.*do: delete that folder"):
        Trainer(LineTask(), build_config(), tmp_path, 0).run("t")
