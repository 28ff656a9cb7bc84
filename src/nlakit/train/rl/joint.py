"""Joint RL: the AV learns from how well its own texts bring the vector back, the AR from reading
them. One step draws texts, pays them, and moves each half once."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list

from nlakit.config.sections import RLConfig
from nlakit.core.batches import labels_beside
from nlakit.files.rows import TableRows
from nlakit.files.text import as_json
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.folder import atomic_write
from nlakit.run.progress import say
from nlakit.train.ar import ar_loss
from nlakit.train.loop import Loop, batch_at
from nlakit.train.optimizer import learning_rate
from nlakit.train.rl.brakes import Brake, drawn_texts, fallen, held_out
from nlakit.train.rl.instruments import CONTENT, Change, Instruments, Rows, change, summary
from nlakit.train.rl.objective import advantages, best_of_n, divergence, policy_loss
from nlakit.train.rl.reward import Functional, Rewarder
from nlakit.train.rl.rollout import Rollouts, roll_out

WATCHED = (*CONTENT, "fve", "frozen_fve")
BEST = {"content": "frozen_centred", "fve": "fve"}  # rule → what the best has most of


@dataclass(frozen=True)
class Halves:
    """The pair that learns, and the same as it was before RL, all over one base."""

    av: Verbalizer
    ar: Reconstructor
    start_av: Verbalizer
    start_ar: Reconstructor


class JointLoop(Loop):
    """GRPO of the AV with one regression step of the AR a batch, in a stage folder.

    rows: what is learnt on. gold: rows whose labels the AR keeps reading. instruments: the
    measurements. `start.json` holds these before the first step, `best/content` and `best/fve` the
    best pair so far by either rule, `kept.json` which steps they are of.
    """

    def __init__(
        self,
        halves: Halves,
        rows: TableRows,
        gold: TableRows,
        instruments: Instruments,
        config: RLConfig,
        folder: Path,
        seed: int,
        functional: Functional | None = None,
    ) -> None:
        super().__init__(config, folder, seed)
        self.settings, self.halves, self.rows, self.gold = config, halves, rows, gold
        self.instruments = instruments
        self.av_optimizer = self._optimizer("av", halves.av)
        self.ar_optimizer = self._optimizer("ar", halves.ar)
        self.decoding = replace(
            halves.av.decoding(config.max_new_tokens),
            temperature=config.temperature,
            no_repeat_ngram=0,
            repetition_penalty=1.0,
        )
        self.mean = instruments.mean
        self.rewarder = Rewarder(
            config.reward,
            halves.av,
            halves.ar,
            halves.start_ar,
            self.mean,
            self.decoding.max_new_tokens,
            functional,
        )
        self.stopped: Brake | None = None
        self.start: Rows = self._started()
        self.now: Rows = self.start
        self.kept: dict[str, dict[str, float]] = {}

    # --- one step

    def _step(self, step: int) -> dict[str, Any]:
        config, av = self.settings, self.halves.av
        world = self.accelerator.num_processes
        index = step * world + self.accelerator.process_index
        rows = batch_at(index, [1] * len(self.rows), config.batch_rows, self.seed)
        vectors = self.rows.vectors[rows]
        injected = av.scaled(vectors)
        rollouts = roll_out(
            av,
            injected,
            config.samples,
            self.decoding,
            [self.seed, 81, index],
            config.texts_at_once,
            config.merge_adapters,
        )
        sources = [self.rows.sources[row] for row in rows]
        parts = self.rewarder.parts(rollouts, vectors, sources, [self.seed, 82, index])
        rewards = np.sum(list(parts.values()), axis=0).reshape(-1, config.samples)
        advantage = (
            best_of_n(rewards)
            if config.method == "best_of_n"
            else advantages(rewards, config.advantages, config.learn_on)
        )
        rate = learning_rate(config.phases, step)
        labels = [self.rows.texts[row] for row in rows]
        policy = self._move_av(injected, rollouts, advantage.reshape(-1), labels, rate)
        read = self._move_ar(vectors, rollouts, index, rate)
        skipped = policy["grad_norm"] is None or read["ar_grad_norm"] is None
        self.skipped += skipped
        record = {"step": step + 1, "lr": rate, "skipped": skipped, **policy, **read}
        return record | self._shared(drawn(rollouts, rewards, advantage) | paid(parts))

    def _move_av(
        self,
        injected: torch.Tensor,
        rollouts: Rollouts,
        advantage: np.ndarray,
        labels: Sequence[str],
        rate: float,
    ) -> dict[str, Any]:
        """One update of the AV on texts with an advantage, and on labels if these count."""
        config, av, optimizer = self.settings, self.halves.av, self.av_optimizer
        av.train()
        marker = av.contract.tokens.injection_token_id
        used = [
            at
            for at, tokens in enumerate(rollouts.tokens)
            if advantage[at] != 0 and marker not in tokens  # a second marker would be injected
        ]
        count = max(int(rollouts.lengths[used].sum()), 1)
        total = {"loss": 0.0, "kl": 0.0}
        for some in passes([len(rollouts.tokens[at]) for at in used], config.texts_per_pass):
            picked = [used[at] for at in some]
            loss, kl = self._policy(injected, rollouts, advantage, picked)
            self.accelerator.backward(loss / count * optimizer.scale.factor)
            total["loss"] += float(loss.detach()) / count
            total["kl"] += kl / count
        told = [at for at, text in enumerate(labels) if text]
        if config.label_weight and told:
            responses = [av.response_ids(labels[at], config.max_tokens) for at in told]
            anchor = config.label_weight * av.nll(injected[told], responses).mean()
            self.accelerator.backward(anchor * optimizer.scale.factor)
            total["label"] = float(anchor.detach())
        self._share_gradients(optimizer)
        norm = optimizer.step(rate, config.clip_norm)
        return {**rounded(total), "grad_norm": norm if math.isfinite(norm) else None}

    def _policy(
        self,
        injected: torch.Tensor,
        rollouts: Rollouts,
        advantage: np.ndarray,
        picked: Sequence[int],
    ) -> tuple[torch.Tensor, float]:
        """Loss summed over the tokens of some texts, and their KL to the supervised AV."""
        config, device = self.settings, injected.device
        tokens = [rollouts.tokens[at] for at in picked]
        vectors = injected[[rollouts.vector_of[at] for at in picked]]
        heat = config.temperature
        log_p = -self.halves.av.nll(vectors, tokens, heat)
        with torch.no_grad():
            start = -self.halves.start_av.nll(vectors, tokens, heat)
        drawn_at = torch.tensor([p for at in picked for p in rollouts.log_p[at]], device=device)
        lengths = torch.tensor([len(one) for one in tokens], device=device)
        weight = torch.tensor(advantage[picked], dtype=log_p.dtype, device=device)
        losses = policy_loss(
            log_p,
            drawn_at.to(log_p.dtype),
            weight.repeat_interleave(lengths),
            config.update,
            config.clip_low,
            config.clip_high,
        )
        kl = divergence(log_p, start)
        return (losses + config.kl * kl).sum(), float(kl.detach().sum())

    def _move_ar(
        self, vectors: np.ndarray, rollouts: Rollouts, index: int, rate: float
    ) -> dict[str, Any]:
        """One regression step of the AR on `ar_samples` texts of each vector, labels among them.

        A pass holds one text of each vector, since its contrast is between vectors.
        """
        config, ar, optimizer = self.settings, self.halves.ar, self.ar_optimizer
        ar.train()
        rng = np.random.default_rng([self.seed, 83, index])
        base = ar.contract.nlakit.baseline
        assert base is not None, "tables record the baseline"
        mean = torch.as_tensor(self.mean, dtype=torch.float32, device=ar.device)
        order = rng.permuted(
            np.tile(np.arange(config.samples), (len(vectors), 1)), axis=1
        )  # which text of a vector each pass reads
        losses: list[float] = []
        for nth in range(config.ar_samples):
            texts = [at * config.samples + order[at, nth] for at in range(len(vectors))]
            read = [at for at in texts if rollouts.whole[at]]
            said = [rollouts.texts[at] for at in read]
            real = vectors[[rollouts.vector_of[at] for at in read]]
            gold = self._gold(len(texts), rng)
            ids = [ar.encode(text, config.max_tokens) for text in (*said, *gold.texts)]
            if not ids:
                continue
            goal = torch.as_tensor(np.concatenate([real, gold.vectors]), device=ar.device)
            loss, _ = ar_loss(
                ar(ids), goal, mean, base, config.contrastive_weight, config.contrastive_temperature
            )
            self.accelerator.backward(loss / config.ar_samples * optimizer.scale.factor)
            losses.append(float(loss.detach()))
        self._share_gradients(optimizer)
        norm = optimizer.step(rate * config.ar_lr, config.clip_norm)
        return {
            "ar_loss": round(float(np.mean(losses)), 6) if losses else 0.0,
            "ar_grad_norm": norm if math.isfinite(norm) else None,
        }

    def _gold(self, drawn_count: int, rng: np.random.Generator) -> TableRows:
        count = min(labels_beside(drawn_count, self.settings.gold_share), len(self.gold))
        return self.gold.take(rng.choice(len(self.gold), size=count, replace=False).tolist())

    def _shared(self, numbers: dict[str, float]) -> dict[str, float]:
        """Means over the processes: all are to come to the same decision."""
        if self.accelerator.num_processes == 1:
            return numbers
        values = torch.tensor(list(numbers.values()), device=self.halves.av.device)
        means: Any = self.accelerator.reduce(values, reduction="mean")
        return rounded(dict(zip(numbers, means.tolist(), strict=True)))

    # --- measurements, checkpoints, brakes

    def _started(self) -> Rows:
        """Measures before the first step, a value a row; as an earlier call of this stage found
        them, if it did."""
        if not self.accelerator.is_main_process:
            return self._told(None)
        file = self.folder / "start.json"
        if not file.exists():
            with torch.no_grad():
                found = self.instruments.measure()
            atomic_write(file, as_json({k: _listed(v) for k, v in found.items()}) + "\n")
        data = json.loads(file.read_text(encoding="utf-8"))
        return self._told({name: np.array(v, dtype=np.float64) for name, v in data.items()})

    def _told(self, rows: Rows | None) -> Rows:
        """What the main process measured, told to the others."""
        told: list[Any] = broadcast_object_list([rows])
        return told[0]

    def _measure(self) -> dict[str, float]:
        main = self.accelerator.is_main_process
        self.now = self._told(self.instruments.measure() if main else None)
        found = summary(self.now)
        return {name: value for name, value in found.items() if not math.isnan(value)}

    def _changes(self, looks: int = 1) -> dict[str, Change | None]:
        documents = self.instruments.rows.doc_ids
        return {name: change(name, self.start, self.now, documents, looks) for name in WATCHED}

    def _keep(self, step: int) -> None:
        """Keep the pair as it is, where it is the best so far: by its content, unless some of it
        has fallen, and by its FVE."""
        gone, found = fallen(self._changes()), summary(self.now)
        for rule, measure in BEST.items():
            best = self.kept[rule][measure]
            if found[measure] > best and not (rule == "content" and gone):
                self._write_best(rule, step, found)

    def _write_best(self, rule: str, step: int, found: dict[str, float]) -> None:
        self.kept[rule] = {"step": step, BEST[rule]: found[BEST[rule]]}
        if not self.accelerator.is_main_process:
            return
        parent = self.folder / "best"
        target, temporary = parent / rule, parent / f".{rule}.writing"
        shutil.rmtree(temporary, ignore_errors=True)
        self.halves.av.save(temporary / "av")
        self.halves.ar.save(temporary / "ar")
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        atomic_write(self.folder / "kept.json", as_json(self.kept) + "\n")

    def _resume(self) -> int:
        first = super()._resume()
        file = self.folder / "kept.json"
        if first and file.exists():
            self.kept = json.loads(file.read_text(encoding="utf-8"))
        else:
            for rule in BEST:
                self._write_best(rule, 0, summary(self.start))
        return first

    def _ends(self, label: str, record: dict[str, Any]) -> bool:
        brakes, measured = self.settings.brakes, "frozen_fve" in record
        self.stopped = drawn_texts(self.records, brakes)
        if self.stopped is None and measured:
            looks = math.ceil(self.settings.steps / self.settings.measure_every)
            self.stopped = held_out(self._changes(looks), brakes)
        if self.stopped is None:
            if measured:
                self._keep(record["step"])
            return False
        kept = self.settings.keep
        say(
            f"{label} stopped after {record['step']} steps ({self.stopped.name}): "
            f"{self.stopped.says}; {self.stopped.evidence}; the pair of step "
            f"{self.kept.get(kept, record)['step']} is kept"
        )
        return True

    def _summary(self) -> dict[str, Any]:
        stopped = vars(self.stopped) if self.stopped else None
        start = {k: round(v, 6) for k, v in summary(self.start).items() if not math.isnan(v)}
        return super()._summary() | {"start": start, "kept": self.kept, "stopped": stopped}


def passes(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices of texts in groups of `size`, similar lengths together."""
    order = sorted(range(len(lengths)), key=lambda at: lengths[at])
    return [order[start : start + size] for start in range(0, len(order), size)]


def drawn(rollouts: Rollouts, rewards: np.ndarray, advantage: np.ndarray) -> dict[str, float]:
    """What the log says of drawn texts: entropy a token in nats (as −log p of what was drawn),
    tokens a text, shares that failed, that differ, and of vectors that teach something."""
    return rounded(
        {
            "reward_sum": float(rewards.mean()),
            "reward_spread": float(rewards.std(axis=1).mean()),
            "entropy": -float(np.mean([p for one in rollouts.log_p for p in one])),
            "tokens": float(rollouts.lengths.mean()),
            "truncated": float(1 - rollouts.whole.mean()),
            "distinct": len(set(rollouts.texts)) / len(rollouts),
            "groups": float((advantage != 0).any(axis=1).mean()),
        }
    )


def paid(parts: dict[str, np.ndarray]) -> dict[str, float]:
    """The mean of each part of the reward."""
    return rounded({f"reward_{name}": float(values.mean()) for name, values in parts.items()})


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in numbers.items()}


def _listed(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else float(value) for value in values]
