"""Train the AV on teacher labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nlakit.config.sections import AVConfig, RunConfig
from nlakit.core.contract import Contract
from nlakit.core.injection import NORM_MATCHED, Injection
from nlakit.core.scaling import check_scale
from nlakit.core.statistics import derangement, paired_difference
from nlakit.files.rows import TableRows, read_mean, read_rows
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.folder import Rows, RunDir
from nlakit.run.inputs import training_files
from nlakit.run.progress import say
from nlakit.run.stage import stage
from nlakit.train.ar import copy_mean, enable_checkpointing
from nlakit.train.loop import Reading, Trainer


class AVTask:
    """Next-token loss of labels after the prompt that carries the activation."""

    reading = Reading(
        "gap_nats",
        "gap_low",
        "it writes labels as well from another row's vector: it does not read the vector",
        "a higher learning rate, more steps, av.injection: blocks, or another layer "
        "(`nlakit layers`)",
    )

    def __init__(
        self, module: Verbalizer, rows: TableRows, held_out: TableRows, config: AVConfig
    ) -> None:
        self.module, self.held_out, self.config = module, held_out, config
        self.responses = [module.response_ids(text, config.max_tokens) for text in rows.texts]
        self.injected = module.scaled(rows.vectors)

    def lengths(self) -> Sequence[int]:
        return [len(row) for row in self.responses]

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        picked = torch.as_tensor(rows, device=self.injected.device)
        losses = self.module.nll(self.injected[picked], [self.responses[row] for row in rows])
        return losses.mean(), {}

    def measure(self) -> dict[str, float]:
        return measure_av(self.module, self.held_out, self.config.max_tokens)


def measure_av(module: Verbalizer, rows: TableRows, max_tokens: int) -> dict[str, float]:
    """Loss of labels with the right vector and with another document's; the gap in nats a token,
    and the lower end of its interval over documents.

    A loss that falls while the gap stays at zero is posterior collapse.
    """
    partners = derangement(rows.doc_ids)
    usable = np.flatnonzero(partners >= 0)
    texts = [rows.texts[row] for row in usable]
    injected = module.scaled(rows.vectors)
    right = module.label_loss(injected[usable], texts, max_tokens=max_tokens)
    wrong = module.label_loss(injected[partners[usable]], texts, max_tokens=max_tokens)
    gap = paired_difference(wrong, right, [rows.doc_ids[row] for row in usable])
    return {
        "loss_right": float(right.mean()),
        "loss_other": float(wrong.mean()),
        "gap_nats": gap.mean,
        "gap_low": gap.low,
    }


def prepared_contract(contract: Contract, config: RunConfig) -> Contract:
    """The table's contract as an AV's, with the scale passed through its gate.

    Raises ModelError if the scale is far from every measured norm.
    """
    made = contract.model_copy(deep=True)
    settings, record = config.av, made.nlakit
    assert record.embedding_norm and record.activation_norm, "tables record the norms"
    scale = record.embedding_norm if settings.scale == "embedding" else settings.scale
    if not settings.allow_any_scale:
        ratios = check_scale(scale, record.embedding_norm, record.activation_norm)
        say(
            f"injection scale {scale:.4g}: {ratios['to_embedding_norm']:.3g} x embedding norm, "
            f"{ratios['to_activation_norm']:.3g} x activation norm"
        )
    made.kind = "nla_model"
    made.extraction.injection_scale = scale
    record.role = "av"
    record.max_tokens = settings.max_tokens
    record.centring = "mean_unit" if settings.centring else "none"
    record.injection = way_in(settings, made)
    return made


def way_in(settings: AVConfig, contract: Contract) -> Injection | None:
    """What the contract records of `av.injection`; None where only the embedding is replaced."""
    if settings.injection == "blocks":
        blocks = settings.injection_blocks or tuple(range(contract.layer + 1))
        return Injection(blocks=blocks, block_scale=contract.nlakit.activation_norm)
    if settings.injection == "add":
        blocks = settings.injection_blocks or NORM_MATCHED.blocks
        return NORM_MATCHED.model_copy(update={"blocks": blocks})
    return None


def build(config: RunConfig, contract: Contract, subject: Any, mean: Any) -> Verbalizer:
    """A fresh AV over a loaded subject."""
    module = Verbalizer(
        subject, prepared_contract(contract, config), mean, config.av.lora, config.seed
    )
    if config.start and config.start.av:
        module.adopt(Path(config.start.av))
    if config.av.gradient_checkpointing:
        enable_checkpointing(module.model)
    return module


@stage(
    "av",
    parents=("tables",),
    sections=("av", "subject", "seed", "start"),
    outside=training_files("av"),
)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Train on the `av` part; measure on documents of the `rl` part, which SFT never sees."""
    rows, contract = read_rows(rundir, "av")
    held_out, _ = read_rows(rundir, "rl")
    mean = read_mean(rundir.need("tables"))
    module = build(config, contract, load_subject(config.subject), mean)
    task = AVTask(module, rows, held_out.head(config.av.measure_rows), config.av)
    summary = Trainer(task, config.av, folder, config.seed, config.watch.stop_if_blind).run("AV")
    module.contract.nlakit.scores = {"held_out": summary["last"]}
    module.save(folder)
    copy_mean(rundir, folder)
    return Rows(entered=len(rows), kept=len(rows))
