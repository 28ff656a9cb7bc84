"""One training loop for every half: accumulation, clipping, exact resume, metrics.

The batch of a step is a pure function of (seed, step), so the data position is the step itself.
"""

from __future__ import annotations

import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from nlakit.config.sections import TrainConfig
from nlakit.errors import LimitReached, ModelError, RunError, first_line
from nlakit.files.text import as_json
from nlakit.run.folder import atomic_write
from nlakit.run.progress import say, ticker
from nlakit.train.optimizer import LossScale, MasterAdamW, learning_rate

KEEP_CHECKPOINTS = 2
WINDOW = 16
GIVE_UP_AFTER = 20
SHOWN = ("fve_", "gap_nats", "reward_sum", "frozen_fve")  # beside the loss, while it runs
BLIND_AFTER = 2  # measurements in a row that show nothing read


@dataclass(frozen=True)
class Reading:
    """How a measurement tells that a half reads what it is given: the interval of `measure`, whose
    lower end it records as `low`, lies above 0. `blind` says what a half does that does not read,
    `advice` what to try then."""

    measure: str
    low: str
    blind: str
    advice: str


class Task(Protocol):
    """What a half brings to the loop."""

    reading: Reading

    @property
    def module(self) -> nn.Module: ...

    def lengths(self) -> Sequence[int]:
        """Tokens of each training row: rows of similar length share a batch."""
        ...

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of a batch of row indices, and numbers to log."""
        ...

    def measure(self) -> dict[str, float]:
        """Measures on held-out documents."""
        ...


def batch_at(step: int, lengths: Sequence[int], batch: int, seed: int) -> list[int]:
    """Row indices of the `step`-th batch: shuffled each epoch, similar lengths together.

    Rows are shuffled, cut into windows of 16 batches, sorted by length inside a window and cut
    into batches, whose order is shuffled again. The rest that fills no batch waits for the next
    epoch's shuffle.
    """
    per_epoch = len(lengths) // batch
    if per_epoch == 0:
        raise RunError(
            "fewer training rows than one batch",
            found=f"{len(lengths)} rows, batch {batch}",
            do="use more documents or a smaller batch_rows",
        )
    epoch, place = divmod(step, per_epoch)
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))[: per_epoch * batch]
    batches: list[np.ndarray] = []
    for start in range(0, len(order), WINDOW * batch):
        window = order[start : start + WINDOW * batch]
        window = window[np.argsort([lengths[row] for row in window], kind="stable")]
        batches += [window[i : i + batch] for i in range(0, len(window), batch)]
    return [int(row) for row in batches[rng.permutation(len(batches))[place]]]


def has_float16(module: nn.Module) -> bool:
    """Whether gradients pass through float16."""
    return any(parameter.dtype == torch.float16 for parameter in module.parameters())


def trend(losses: Sequence[float]) -> dict[str, float | bool]:
    """Linear fit of the raw loss over the steps; descending if slope < −0.002 a step and
    R² ≥ 0.10 (the rule of the Gemma-4-E2B card). A falling loss alone proves nothing."""
    finite = [(step, loss) for step, loss in enumerate(losses) if math.isfinite(loss)]
    if len(finite) < 3:
        return {"slope": 0.0, "r2": 0.0, "descending": False}
    x, y = np.array(finite, dtype=np.float64).T
    slope, intercept = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = 1 - float(((y - slope * x - intercept) ** 2).sum()) / spread if spread else 0.0
    descending = bool(slope < -0.002 and r2 >= 0.10)
    return {"slope": float(slope), "r2": float(r2), "descending": descending}


class Loop(ABC):
    """Steps in a stage folder with measurements and checkpoints; `run` resumes from the newest
    checkpoint there. What a step is, each training says itself."""

    def __init__(self, config: TrainConfig, folder: Path, seed: int) -> None:
        self.config, self.folder, self.seed = config, folder, seed
        self.accelerator = Accelerator(
            gradient_accumulation_steps=config.accumulation,
            log_with=list(config.trackers) or None,
            project_dir=str(folder) if config.trackers else None,
        )
        self.names: list[str] = []
        self.optimizers: dict[str, MasterAdamW] = {}
        self.records: list[dict[str, Any]] = []
        self.skipped = 0

    def _optimizer(self, name: str, module: nn.Module) -> MasterAdamW:
        """A new optimizer of a module's trained parameters; a checkpoint has it by its name."""
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        self.names += [name for name, _ in named]
        config = self.config
        self.optimizers[name] = MasterAdamW(
            [p for _, p in named],
            config.weight_decay,
            bits=config.optimizer_bits,
            scale=LossScale(on=has_float16(module)),
        )
        return self.optimizers[name]

    @abstractmethod
    def _step(self, step: int) -> dict[str, Any]:
        """The step of this 0-based number; its record has `step`, counted from 1, `loss` and
        `skipped`."""

    @abstractmethod
    def _measure(self) -> dict[str, float]:
        """Measures on held-out documents."""

    @abstractmethod
    def _ends(self, label: str, record: dict[str, Any]) -> bool:
        """Whether the training is over before its last step."""

    def run(self, label: str) -> dict[str, Any]:
        """Train to the last step; returns the summary that goes into `training.json`.

        Raises ModelError if 20 steps in a row have a gradient that is not finite, and LimitReached
        if a half does not read and is to stop then.
        """
        config = self.config
        first = self._resume()
        if config.trackers:
            self.accelerator.init_trackers(label, config=config.model_dump(mode="json"))
        bad_in_a_row = 0
        with ticker(label, config.steps, "steps") as progress:
            progress.skip(first)
            for step in range(first, config.steps):
                record = self._step(step)
                bad_in_a_row = bad_in_a_row + 1 if record["skipped"] else 0
                if bad_in_a_row >= GIVE_UP_AFTER:
                    raise ModelError(
                        f"{GIVE_UP_AFTER} steps in a row had no finite gradient",
                        found=f"step {step}",
                        do="lower the learning rate, or use bfloat16 or float32",
                    )
                done = step + 1
                if done % config.measure_every == 0 or done == config.steps:
                    with torch.no_grad():
                        measured = self._measure()
                    record |= {name: round(value, 6) for name, value in measured.items()}
                self.records.append(record)
                if config.trackers:
                    numbers = {k: float(v) for k, v in record.items() if v is not None}
                    self.accelerator.log(numbers, step=step)
                progress.advance(1, _note(record))
                # First: a step that ends the training is taken again when it is resumed.
                if self._ends(label, record):
                    break
                if done % config.checkpoint_every == 0 and done < config.steps:
                    self._save(done)
        return self._finish()

    def _share_gradients(self, optimizer: MasterAdamW) -> None:
        """Average gradients over processes: adapters are small, so one reduction a step is cheap
        and no wrapper stands between the loop and the half's own methods."""
        if self.accelerator.num_processes == 1:
            return
        for parameter in optimizer.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = self.accelerator.reduce(parameter.grad, reduction="mean")  # type: ignore[assignment]

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        parent = self.folder / "checkpoints"
        target, temporary = parent / f"step-{step:06d}", parent / ".writing"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        state = {
            "step": step,
            "names": self.names,
            "torch_rng": torch.get_rng_state(),
            "records": json.dumps(self.records),
            **{name: one.state_dict() for name, one in self.optimizers.items()},
        }
        torch.save(state, temporary / "state.pt")
        temporary.rename(target)
        self._write_metrics()
        for old in sorted(parent.glob("step-*"))[:-KEEP_CHECKPOINTS]:
            shutil.rmtree(old)

    def _resume(self) -> int:
        found = sorted((self.folder / "checkpoints").glob("step-*"))
        if not found:
            return 0
        try:
            state = torch.load(found[-1] / "state.pt", weights_only=True, map_location="cpu")
        except Exception as error:  # a damaged archive fails in many ways
            raise RunError(
                f"the checkpoint {found[-1]} cannot be read",
                found=first_line(error),
                do="delete that folder: the one before it is taken, or the beginning",
            ) from error
        if state["names"] != self.names:
            raise RunError(
                "the checkpoint belongs to another set of adapters",
                found=str(found[-1]),
                do="redo the stage",
            )
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state[name])
        torch.set_rng_state(state["torch_rng"])
        self.records = json.loads(state["records"])
        self.skipped = sum(bool(record["skipped"]) for record in self.records)
        return int(state["step"])

    def _write_metrics(self) -> None:
        lines = [as_json(record) for record in self.records]
        atomic_write(self.folder / "metrics.jsonl", "\n".join(lines) + "\n")

    def _finish(self) -> dict[str, Any]:
        summary = self._summary()
        if self.accelerator.is_main_process:
            self._write_metrics()
            atomic_write(self.folder / "training.json", as_json(summary, indent=1) + "\n")
        if self.config.trackers:
            self.accelerator.end_training()
        return summary

    def _summary(self) -> dict[str, Any]:
        return {
            "steps": self.config.steps,
            "skipped_steps": self.skipped,
            "last": self.records[-1] if self.records else {},
        }


class Trainer(Loop):
    """Trains a task: one half, on rows that are there."""

    def __init__(
        self, task: Task, config: TrainConfig, folder: Path, seed: int, stop_if_blind: bool = False
    ) -> None:
        super().__init__(config, folder, seed)
        self.task, self.stop_if_blind = task, stop_if_blind
        self.optimizer = self._optimizer("optimizer", task.module)
        self.lengths = list(task.lengths())

    def _ends(self, label: str, record: dict[str, Any]) -> bool:
        """Whether the training is over before its last step."""
        if self.task.reading.low in record:
            self._watch(label, record["step"])
        return False

    def _watch(self, label: str, done: int) -> None:
        """Say, once, that two measurements in a row show nothing read; stop if that is wanted."""
        reading = self.task.reading
        measured = [record for record in self.records if reading.low in record]
        blind = [record[reading.low] <= 0 for record in reversed(measured)]
        in_a_row = blind.index(False) if False in blind else len(blind)
        if in_a_row < BLIND_AFTER:
            return
        found = f"{reading.measure} {measured[-1][reading.measure]:.3g}, its interval touches 0"
        if self.stop_if_blind:
            self._save(done)
            raise LimitReached(
                f"{label}: after {done} steps {reading.blind}",
                found=found,
                do=f"{reading.advice}; with --no-stop-if-blind the training goes on",
            )
        if in_a_row == BLIND_AFTER:
            say(f"{label}: after {done} steps {reading.blind} ({found}); try: {reading.advice}")

    def _step(self, step: int) -> dict[str, Any]:
        config, world = self.config, self.accelerator.num_processes
        self.task.module.train()
        losses: list[float] = []
        logged: list[dict[str, float]] = []
        for micro in range(config.accumulation):
            index = (step * config.accumulation + micro) * world + self.accelerator.process_index
            rows = batch_at(index, self.lengths, config.batch_rows, self.seed)
            loss, extras = self.task.loss(rows)
            self.accelerator.backward(loss * self.optimizer.scale.factor)
            losses.append(float(loss.detach()))
            logged.append(extras)
        self._share_gradients(self.optimizer)
        rate = learning_rate(config.phases, step)
        norm = self.optimizer.step(rate, config.clip_norm)
        skipped = not math.isfinite(norm)
        self.skipped += skipped
        mean = sum(losses) / len(losses)
        extras = {name: sum(one[name] for one in logged) / len(logged) for name in logged[0]}
        record = {"step": step + 1, "loss": round(mean, 6), "lr": rate, "skipped": skipped}
        return record | {"grad_norm": norm if math.isfinite(norm) else None} | extras

    def _measure(self) -> dict[str, float]:
        self.task.module.eval()
        return self.task.measure()

    def _summary(self) -> dict[str, Any]:
        losses = [record["loss"] for record in self.records]
        return super()._summary() | {"trend": trend(losses)}


def _note(record: dict[str, Any]) -> str:
    shown = [f"loss {record['loss']:.3f}"]
    shown += [f"{k} {v:.3f}" for k, v in record.items() if k.startswith(SHOWN)]
    return " ".join(shown)


def copy_half(source: Path, target: Path) -> None:
    """Copy a trained half without what its training left beside it."""
    names = ("checkpoints", "manifest.json", "begin.json", "training.json", "metrics.jsonl", ".*")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*names))
