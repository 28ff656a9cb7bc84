"""A step of joint RL over other bases, in other formats, and beside other processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nlakit.config.load import parse_config
from nlakit.config.sections import SubjectConfig
from nlakit.errors import ConfigError
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.train import loop as loops
from nlakit.train.ar import enable_checkpointing
from nlakit.train.rl import joint
from nlakit.train.rl.joint import Halves, JointLoop
from nlakit.train.rl.learn import load_halves
from tests.conftest import D, build_contract
from tests.pairs import save_pair
from tests.train.rl.toys import Pays, build_loop, build_rows, load_toy, rl_config


def subject_of(model: Path, **given: Any) -> Any:
    settings = {"model": str(model), "dtype": "float32", "device": "cpu", "layer": 1}
    return load_subject(SubjectConfig.model_validate(settings | given))


def loud(halves: Halves, folder: Path, **given: Any) -> JointLoop:
    """A loop whose rewards differ, though texts of toys all fail."""
    settings = {"batch_rows": 2, "samples": 2, "ar_samples": 1, "max_new_tokens": 4}
    loop = build_loop(halves, folder, rl_config(**settings | given))
    loop.rewarder = Pays(loop.rewarder, lambda tokens: tokens[0] % 7)  # type: ignore[assignment]
    return loop


def numbers(half: torch.nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in half.parameters()]


def moved(before: list[torch.Tensor], half: torch.nn.Module) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, half.parameters(), strict=True))


@pytest.mark.parametrize(
    ("family", "given"),
    [
        ("gemma3", {"dtype": "float16"}),
        ("gemma3", {"dtype": "bfloat16", "quantisation": "nf4"}),
        ("gemma3n", {}),
    ],
)
def test_a_step_over_other_bases(
    toy_folder: Callable[[str], Path], tmp_path: Path, family: str, given: dict[str, Any]
) -> None:
    model = toy_folder(family)
    halves = load_halves(subject_of(model, **given), save_pair(model, tmp_path / "pair"))
    with torch.no_grad():  # adapters as large as those of toys overflow in float16
        for half in vars(halves).values():
            for name, parameter in half.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(0.1)
    before = [numbers(half) for half in vars(halves).values()]
    loop = loud(halves, tmp_path / "rl")
    steps = 12 if given.get("dtype") == "float16" else 2  # whose scale has to come down first
    records = [loop._step(at) for at in range(steps)]
    assert not records[-1]["skipped"], [(r["grad_norm"], r["ar_grad_norm"]) for r in records]
    assert records[0]["kl"] == pytest.approx(0, abs=0.02)
    found = [moved(one, half) for one, half in zip(before, vars(halves).values(), strict=True)]
    assert found == [True, True, False, False]
    assert all(bool(torch.isfinite(p).all()) for p in loop.av_optimizer.masters)


def test_halves_of_which_all_weights_are_trained(
    toy_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    """Four copies: what learns is neither the subject nor the pair as it was."""
    from safetensors.torch import save_file

    subject = subject_of(toy_folder("gemma3"))
    mean = np.full(D, 0.1)
    contract = build_contract(subject, max_new_tokens=8, mean_unit_file="mean_unit.safetensors")
    made = {
        "av": Verbalizer(subject, contract, mean, None, 0),
        "ar": Reconstructor(subject, contract.model_copy(deep=True), None, 0),
    }
    for name, half in made.items():
        half.save(tmp_path / name)
        save_file(
            {"mean_unit": torch.tensor(mean).float()}, tmp_path / name / "mean_unit.safetensors"
        )
    halves = load_halves(subject, tmp_path)
    assert not any(p.requires_grad for p in halves.start_av.parameters())
    assert not any(p.requires_grad for p in halves.start_ar.parameters())
    before = [numbers(half) for half in vars(halves).values()]
    own = numbers(subject.model)
    loop = loud(halves, tmp_path / "rl")
    assert not loop._step(0)["skipped"]
    found = [moved(one, half) for one, half in zip(before, vars(halves).values(), strict=True)]
    assert found == [True, True, False, False]
    assert not moved(own, subject.model)


def test_recomputed_blocks_give_the_same_step(
    toy_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    model = toy_folder("gemma3")
    pair, found = save_pair(model, tmp_path / "pair"), []
    for name in ("plain", "recomputed"):
        halves = load_toy(pair, model)
        if name == "recomputed":
            enable_checkpointing(halves.av.model)
            enable_checkpointing(halves.ar.decoder)
        loop = loud(halves, tmp_path / name, label_weight=0.5, kl=0.3)
        loop._step(0)
        found.append([*loop.av_optimizer.masters, *loop.ar_optimizer.masters])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=1e-4)


class Second:
    """The second of two processes, as accelerate shows itself to it."""

    num_processes, process_index, is_main_process = 2, 1, False

    def __init__(self, **_: Any) -> None: ...

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def reduce(self, found: torch.Tensor, reduction: str) -> torch.Tensor:
        return found


def test_the_main_process_alone_measures_and_writes(
    toy_folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy_folder("gemma3")
    halves = load_toy(save_pair(model, tmp_path / "pair"), model)
    settings = {"phases": [{"steps": 2, "lr": 1e-3}], "measure_every": 1}
    first = loud(halves, tmp_path / "first", **settings)
    monkeypatch.setattr(loops, "Accelerator", Second)
    monkeypatch.setattr(joint, "broadcast_object_list", lambda rows: [first.start])
    monkeypatch.setattr(joint.Instruments, "measure", lambda tool: pytest.fail("measured"))
    second = loud(halves, tmp_path / "second", **settings)
    drawn: list[list[int]] = []
    monkeypatch.setattr(joint, "batch_at", batches(drawn, joint.batch_at))
    summary = second.run("RL")
    assert summary["stopped"] is None and [one["step"] for one in second.records] == [1, 2]
    assert {rule: kept["step"] for rule, kept in second.kept.items()} == {"content": 0, "fve": 0}
    assert not (tmp_path / "second").exists()
    size = [1] * len(build_rows(12))
    assert drawn == [loops.batch_at(index, size, 2, 0) for index in (1, 3)]


def batches(seen: list[list[int]], batch_at: Any) -> Any:
    def spy(*given: Any) -> list[int]:
        seen.append(batch_at(*given))
        return seen[-1]

    return spy


def test_accumulation_is_refused() -> None:
    with pytest.raises(ConfigError, match="texts_per_pass"):
        parse_config({"name": "t", "rl": {"accumulation": 2}})
