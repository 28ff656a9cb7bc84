"""Planted faults: each ends the training under its own name within a stated number of steps, and
what is kept is from before it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from nlakit.files.rows import TableRows
from nlakit.models.decode import Decoding
from nlakit.train.rl import joint
from nlakit.train.rl.joint import Halves, JointLoop
from nlakit.train.rl.rollout import roll_out
from tests.conftest import D
from tests.pairs import save_pair
from tests.train.rl.toys import Pays, build_loop, load_toy, rl_config

LAST = 30  # steps within which a fault that is learnt is to be named
SUBJECTS = "amber birch cedar dolmen ember fjord glade heron islet jetty knoll larch marsh nacre \
oxbow prawn".split()


@pytest.fixture
def halves(toy_folder: Callable[[str], Path], tmp_path: Path) -> Halves:
    model = toy_folder("gemma3")
    return load_toy(save_pair(model, tmp_path / "pair"), model)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(joint, "say", lines.append)
    return lines


def learning(halves: Halves, folder: Path, **given: Any) -> JointLoop:
    """A loop that learns fast; its texts are drawn cold, since those of a toy are chance."""
    settings = {
        "phases": [{"steps": LAST, "lr": 0.02, "schedule": "constant", "warmup": 0}],
        "batch_rows": 2,
        "samples": 6,
        "ar_samples": 1,
        "measure_every": LAST,
        "checkpoint_every": LAST,
        "max_new_tokens": 4,
        "temperature": 0.05,
        "kl": 0.0,
    }
    return build_loop(halves, folder, rl_config(**settings | given))


def check_stop(loop: JointLoop, summary: dict[str, Any], said: list[str], name: str) -> None:
    """The training ended under this name, says so, and its files tell it."""
    steps = len(loop.records)
    assert summary["stopped"] is not None, loop.records[-1]
    assert summary["stopped"]["name"] == name, summary["stopped"]
    stored = json.loads((loop.folder / "training.json").read_text())
    assert stored["stopped"] == summary["stopped"] and stored["stopped"]["evidence"]
    assert len(said) == 1 and f"stopped after {steps} steps ({name})" in said[0]
    assert f"the pair of step {loop.kept['content']['step']} is kept" in said[0]
    lines = (loop.folder / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["step"] == steps
    kept = json.loads((loop.folder / "kept.json").read_text())
    assert kept == loop.kept and all(one["step"] < steps for one in kept.values())
    for half in ("av", "ar"):
        assert load_file(loop.folder / "best" / "content" / half / "adapter_model.safetensors")


def test_an_entropy_bonus_of_one(halves: Halves, tmp_path: Path, said: list[str]) -> None:
    brakes = {"truncated": 1.0, "entropy_high": 1.2}
    loop = learning(halves, tmp_path / "rl", reward={"entropy": 1.0}, brakes=brakes)
    check_stop(loop, loop.run("RL"), said, "entropy up")
    assert loop.records[-1]["reward_entropy"] > loop.records[0]["reward_entropy"]


def test_a_reward_for_certainty(halves: Halves, tmp_path: Path, said: list[str]) -> None:
    """One token pays: all texts become that token."""
    brakes = {"truncated": 1.0, "entropy_low": 0.6}
    loop = learning(halves, tmp_path / "rl", brakes=brakes)
    loop.rewarder = Pays(loop.rewarder, lambda tokens: -float(np.mean(tokens)))  # type: ignore[assignment]
    check_stop(loop, loop.run("RL"), said, "entropy down")


def test_a_reward_for_length(halves: Halves, tmp_path: Path, said: list[str]) -> None:
    """Texts that end by themselves at first, since their closing tag is a likely token."""
    budget, temperature = 24, 0.1
    how = Decoding(budget, temperature=temperature)
    found = roll_out(halves.av, halves.av.scaled(build_rows(12).vectors), 2, how, [0], 64)
    inside = [set(tokens) - {tokens[0]} for tokens in found.tokens]
    likely = np.bincount([token for one in inside for token in one]).argmax()
    for half in (halves.av, halves.start_av):
        half.close = [int(likely)]
    brakes = {"truncated": 0.9}
    given = {"max_new_tokens": budget, "temperature": temperature, "brakes": brakes}
    loop = learning(halves, tmp_path / "rl", **given)
    loop.rewarder = Pays(loop.rewarder, lambda tokens: 4.0 * len(tokens))  # type: ignore[assignment]
    check_stop(loop, loop.run("RL"), said, "length")
    assert loop.records[0]["truncated"] < 0.7
    assert loop.records[-1]["tokens"] > loop.records[0]["tokens"]


# --- what held-out texts show


def build_rows(count: int) -> TableRows:
    """Rows of as many documents, each with a word of its own."""
    rng = np.random.default_rng(0)
    words = [SUBJECTS[at % len(SUBJECTS)] for at in range(count)]
    return TableRows(
        [f"r{at}" for at in range(count)],
        [f"d{at}" for at in range(count)],
        [""] * count,
        [f"Of the {word}, with common things and matters of all." for word in words],
        ["odd" if at % 2 else "even" for at in range(count)],
        ["x"] * count,
        [3] * count,
        (rng.standard_normal((count, D)) + 1.5).astype(np.float32) * 20,
    )


HEALTHY = "w{at} is up. It is of {word}, common and matters."
Fault = tuple[str, Callable[[str, bool], float]]


def always(text: str, live: bool) -> float:
    return 0.6


# Name → what the AV writes from then on, and how well an AR reads it (1: the vector itself).
FAULTS: dict[str, Fault] = {
    "private code": (HEALTHY + " It is zyx.", lambda text, live: 0.9 if live else 0.3),
    "shuffle kept": (
        HEALTHY,
        lambda text, live: 0.9 if text.startswith("w") or not live else 0.2,
    ),
    "paraphrase kept": (
        HEALTHY,
        lambda text, live: 0.9 if ", common and matters" in text or not live else 0.2,
    ),
    "within family": ("w{at} is up. It is of common and matters.", always),
    "claim precision": (HEALTHY + " It is of quartz, zebras and violins.", always),
    "alike": ("It is all the same.", always),
}


class Planted:
    """Halves whose greedy texts and reconstructions are healthy, and improve, until a loop has
    taken `after` steps; then the fault sets in."""

    loop: JointLoop | None = None

    def __init__(self, halves: Halves, rows: TableRows, fault: Fault, after: int) -> None:
        self.fault, self.after, self.vectors = fault, after, rows.vectors
        rng = np.random.default_rng(5)
        self.noise = (rng.standard_normal(self.vectors.shape) + 1.5) * 20
        halves.av.explain = self.explain  # type: ignore[method-assign]
        halves.ar.reconstruct = lambda texts: self.read(texts, True)  # type: ignore[method-assign]
        halves.start_ar.reconstruct = lambda texts: self.read(texts, False)  # type: ignore[method-assign]

    @property
    def steps(self) -> int:
        return len(self.loop.records) if self.loop else 0

    @property
    def ill(self) -> bool:
        return self.steps >= self.after

    def explain(self, vectors: Any, **_: Any) -> list[str]:
        form = self.fault[0] if self.ill else HEALTHY
        return [form.format(at=at, word=word) for at, word in enumerate(SUBJECTS)]

    def read(self, texts: Sequence[str], live: bool) -> np.ndarray:
        made = []
        for text in texts:
            named = [word for word in text.split() if word[0] == "w" and word[1:].isdigit()]
            at = int(named[0][1:]) if named else 0
            share = self.fault[1](text, live) if self.ill else 0.5 + 0.05 * self.steps
            share = share if named else 0.0
            made.append(share * self.vectors[at] + (1 - share) * self.noise[at])
        return np.array(made, dtype=np.float32)


def watched(halves: Halves, folder: Path, fault: Fault) -> JointLoop:
    """A loop that measures every other step; of its steps nothing but the record is left."""
    config = rl_config(
        phases=[{"steps": 12, "lr": 1e-3}], measure_every=2, brakes={"truncated": 1.0}
    )
    rows = build_rows(len(SUBJECTS))
    planted = Planted(halves, rows, fault, after=3)
    instruments = joint.Instruments(
        halves.av, halves.ar, halves.start_ar, rows, np.full(D, 0.1), 8, 0
    )
    loop = planted.loop = JointLoop(halves, rows, rows, instruments, config, folder, 0)

    def step(at: int) -> dict[str, Any]:
        record = {"step": at + 1, "loss": 0.0, "lr": 1e-3, "skipped": False}
        return record | {"entropy": 2.0, "truncated": 0.1}

    loop._step = step  # type: ignore[method-assign]
    return loop


@pytest.mark.parametrize("name", FAULTS)
def test_what_held_out_texts_show(
    halves: Halves, tmp_path: Path, said: list[str], name: str
) -> None:
    """The first measurement after it sets in, step 4, ends the training; the pair of step 2 is the
    last good one by either rule, however well the live AR reads that of step 4."""
    loop = watched(halves, tmp_path / "rl", FAULTS[name])
    check_stop(loop, loop.run("RL"), said, name)
    assert len(loop.records) == 4
    assert {rule: kept["step"] for rule, kept in loop.kept.items()} == {"content": 2, "fve": 2}


def test_a_healthy_pair_goes_to_the_end(halves: Halves, tmp_path: Path, said: list[str]) -> None:
    loop = watched(halves, tmp_path / "rl", (HEALTHY, always))
    summary = loop.run("RL")
    assert summary["stopped"] is None and not said and len(loop.records) == 12


def test_a_training_that_was_stopped_stops_again(
    halves: Halves, tmp_path: Path, said: list[str]
) -> None:
    """As where the process dies between the stop and the stage's manifest."""
    folder, names = tmp_path / "rl", ("training.json", "metrics.jsonl", "kept.json")
    found = []
    for _ in range(2):
        loop = watched(halves, folder, FAULTS["private code"])
        loop.run("RL")
        found.append([(folder / name).read_bytes() for name in names])
    assert found[0] == found[1] and said[0] == said[1]
