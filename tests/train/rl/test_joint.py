"""Joint RL on toys: what a step does, what is kept, exact resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from nlakit.models.verbalizer import Verbalizer
from nlakit.train.rl.joint import Halves, JointLoop
from tests.pairs import save_pair
from tests.train.rl.toys import build_loop, load_toy, rl_config


@pytest.fixture
def halves(toy_folder: Callable[[str], Path], tmp_path: Path) -> Callable[..., Halves]:
    model = toy_folder("gemma3")
    pair = save_pair(model, tmp_path / "pair")
    return lambda dtype="float32": load_toy(pair, model, dtype)


def state_of(half: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in half.named_parameters() if p.requires_grad}


def test_a_step_moves_both_halves_and_leaves_the_start_alone(
    halves: Callable[..., Halves], tmp_path: Path
) -> None:
    pair = halves()
    before = {name: state_of(half) for name, half in (("av", pair.av), ("ar", pair.ar))}
    start = [p.clone() for half in (pair.start_av, pair.start_ar) for p in half.parameters()]
    loop = build_loop(pair, tmp_path / "rl", rl_config(reward={"frozen_share": 0.0}))
    loop.rewarder = Loud(loop.rewarder)  # toy texts all fail: rewards that differ
    summary = loop.run("RL")
    for name, half in (("av", pair.av), ("ar", pair.ar)):
        moved = [not torch.equal(before[name][n], p) for n, p in state_of(half).items()]
        assert any(moved), name
    after = [p for half in (pair.start_av, pair.start_ar) for p in half.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(start, after, strict=True))
    assert summary["steps"] == 3 and summary["stopped"] is None
    records = [json.loads(line) for line in (tmp_path / "rl/metrics.jsonl").open()]
    assert [record["step"] for record in records] == [1, 2, 3]
    assert {"reward_sum", "entropy", "kl", "ar_loss", "truncated"} <= set(records[0])
    assert records[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert "frozen_fve" in records[1] and "frozen_fve" in records[2]


class Loud:
    """Rewards that depend on the first token of a text."""

    def __init__(self, rewarder: Any) -> None:
        self.rewarder = rewarder

    def parts(self, rollouts: Any, *given: Any) -> dict[str, np.ndarray]:
        found = self.rewarder.parts(rollouts, *given)
        return found | {"loud": np.array([float(tokens[0] % 7) for tokens in rollouts.tokens])}


def test_alike_rewards_move_nothing_of_the_av(
    halves: Callable[..., Halves], tmp_path: Path
) -> None:
    pair = halves()
    before = state_of(pair.av)
    loop = build_loop(pair, tmp_path / "rl", rl_config())  # all texts fail alike
    loop.run("RL")
    assert all(torch.equal(before[n], p) for n, p in state_of(pair.av).items())
    assert loop.records[0]["groups"] == 0


@pytest.mark.parametrize("update", ["clip", "cispo"])
@pytest.mark.parametrize("kind", ["group", "batch"])
def test_the_gradient_is_that_of_the_objective(
    halves: Callable[..., Halves], tmp_path: Path, update: str, kind: str
) -> None:
    """Two steps in float64 against the objective written out over each text by itself."""
    settings: dict[str, Any] = {"update": update, "advantages": kind, "kl": 0.3, "clip_norm": 1e9}
    settings |= {"texts_per_pass": 5, "label_weight": 0.7, "merge_adapters": False}
    config = rl_config(**settings)
    loop = build_loop(halves("float64"), tmp_path / "rl", config)
    loop.rewarder = Loud(loop.rewarder)
    seen: list[dict[str, torch.Tensor]] = []
    step_of = loop.av_optimizer.step

    def spy(rate: float, clip: float) -> float:
        gradients = [p.grad.clone() for p in loop.av_optimizer.parameters if p.grad is not None]
        expected = objective(loop, moved[-1])
        for own, other in zip(gradients, expected, strict=True):
            torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-5)
        seen.append({"norm": torch.tensor(len(gradients))})
        return step_of(rate, clip)

    moved: list[tuple[Any, ...]] = []
    move_av = loop._move_av
    loop._move_av = lambda *given: (moved.append(given), move_av(*given))[1]  # type: ignore[method-assign]
    loop.av_optimizer.step = spy  # type: ignore[method-assign]
    loop._step(0), loop._step(1)
    assert len(seen) == 2


def objective(loop: JointLoop, given: tuple[Any, ...]) -> list[torch.Tensor]:
    """Gradient of mean over tokens of −min(ρA, clip(ρ)A) (or CISPO) + 0.3·k3, plus 0.7 of the
    labels' mean −log p, by autograd over one text at a time."""
    injected, rollouts, advantage, labels, _ = given
    av, start = loop.halves.av, loop.halves.start_av
    used = [at for at in range(len(rollouts)) if advantage[at] != 0]
    count = sum(len(rollouts.tokens[at]) for at in used)
    total = torch.zeros((), dtype=torch.float64)
    for at in used:
        vector = injected[at // rollouts.samples][None]
        log_p = token_log_p(av, vector, rollouts.tokens[at])
        with torch.no_grad():
            other = token_log_p(start, vector, rollouts.tokens[at])
        for now, before, then in zip(log_p, other, rollouts.log_p[at], strict=True):
            ratio = torch.exp(now - then)
            if loop.settings.update == "clip":
                beyond = ratio > 1.28 if advantage[at] > 0 else ratio < 0.8
                gain = torch.zeros(()) if bool(beyond) else ratio * advantage[at]
            else:
                gain = min(float(ratio), 1.28) * advantage[at] * now
            kl = torch.exp(before - now) - (before - now) - 1
            total = total + (-gain + 0.3 * kl) / count
    responses = [av.response_ids(label, 420) for label in labels]
    tokens = sum(len(one) for one in responses)
    for vector, response in zip(injected, responses, strict=True):
        total = total - 0.7 * token_log_p(av, vector[None], response).sum() / tokens
    parameters = loop.av_optimizer.parameters
    return list(torch.autograd.grad(total, parameters))


def token_log_p(av: Verbalizer, vector: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """log p `(t,)` of tokens behind the prompt, by the model's own logits."""
    ids = torch.tensor([[*av.prompt, *tokens]])
    with av.injecting(vector):
        logits = av.model(input_ids=ids).logits[0]
    chances = torch.log_softmax(logits, dim=-1)
    behind = len(av.prompt)
    return torch.stack([chances[behind - 1 + at, token] for at, token in enumerate(tokens)])


def test_killed_and_resumed_it_is_the_same(halves: Callable[..., Halves], tmp_path: Path) -> None:
    def run(folder: Path, dies_at: int | None) -> bytes:
        loop = build_loop(halves(), folder, rl_config(phases=[{"steps": 5, "lr": 1e-3}]))
        loop.rewarder = Loud(loop.rewarder)
        step = loop._step

        def dying(number: int) -> dict[str, Any]:
            if number == dies_at:
                raise KeyboardInterrupt
            return step(number)

        loop._step = dying  # type: ignore[method-assign]
        loop.run("RL")
        loop.halves.av.save(folder / "end")
        loop.halves.ar.save(folder / "end_ar")
        return (folder / "metrics.jsonl").read_bytes()

    whole = run(tmp_path / "whole", None)
    for dies_at in (1, 2, 4):
        folder = tmp_path / f"killed-{dies_at}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, dies_at)
        assert run(folder, None) == whole
        for name in ("end", "end_ar", "best/content/av", "best/fve/ar"):
            files = [tmp_path / "whole" / name, folder / name]
            own, other = (load_file(one / "adapter_model.safetensors") for one in files)
            assert all(torch.equal(own[key], other[key]) for key in own)
        assert (folder / "kept.json").read_text() == (tmp_path / "whole/kept.json").read_text()


def test_a_step_that_is_not_finite_is_skipped_and_counted(
    halves: Callable[..., Halves], tmp_path: Path
) -> None:
    loop = build_loop(halves(), tmp_path / "rl", rl_config(phases=[{"steps": 9, "lr": 1e-3}]))
    loop.rewarder = Loud(loop.rewarder)
    policy, calls = loop._policy, 0

    def poisoned(*given: Any) -> Any:
        nonlocal calls
        loss, kl = policy(*given)
        calls += 1
        return (loss * math.nan, kl) if calls == 7 else (loss, kl)

    loop._policy = poisoned  # type: ignore[method-assign]
    summary = loop.run("RL")
    assert [record["step"] for record in loop.records if record["skipped"]] == [7]
    assert summary["skipped_steps"] == 1
    assert all(torch.isfinite(p).all() for p in loop.av_optimizer.masters)
