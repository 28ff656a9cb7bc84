"""Train the AR on teacher labels."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from nlakit.config.sections import ARConfig, PairConfig, RunConfig
from nlakit.core.contract import Contract
from nlakit.core.metrics import baseline, centred_cosine, fve_rows
from nlakit.core.statistics import derangement, paired_difference
from nlakit.files.rows import TableRows, read_mean, read_rows
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.run.folder import Rows, RunDir
from nlakit.run.inputs import training_files
from nlakit.run.stage import stage
from nlakit.train.loop import Reading, Trainer


def ar_loss(
    made: torch.Tensor,
    real: torch.Tensor,
    mean: torch.Tensor,
    base: float,
    weight: float,
    temperature: float,
) -> tuple[torch.Tensor, dict[str, float]]:
    """Loss of reconstructions `(b, d)` of raw activations `(b, d)`.

    ‖u − û‖² / E‖u − ū‖² (one minus the batch's FVE), plus `weight` times the cross-entropy of
    finding each row's own activation among the batch by centred cosine / `temperature`
    (InfoNCE, van den Oord et al. 2018).
    """
    u, made_unit = normalize(real.float(), dim=-1), normalize(made.float(), dim=-1, eps=1e-6)
    unexplained = (u - made_unit).square().sum(-1).mean() / base
    loss, extras = unexplained, {"train_fve": round(1 - float(unexplained.detach()), 6)}
    if weight and len(u) > 1:
        left, right = normalize(made_unit - mean, dim=-1), normalize(u - mean, dim=-1)
        scores = left @ right.T / temperature
        target = torch.arange(len(u), device=u.device)
        contrast = torch.nn.functional.cross_entropy(scores, target)
        loss = loss + weight * contrast
        extras["contrastive"] = round(float(contrast.detach()), 6)
    return loss, extras


class ARTask:
    """AR regression: texts (labels, or the AV's own) to vectors."""

    reading = Reading(
        "gain_fve",
        "gain_low",
        "it reconstructs no better than from the empty text: it does not read the text",
        "a higher learning rate, more steps, or labels that say more (`nlakit labels --try`)",
    )

    def __init__(
        self,
        module: Reconstructor,
        texts: Sequence[str],
        vectors: NDArray[Any],
        held_out: TableRows,
        mean: NDArray[Any],
        config: ARConfig | PairConfig,
    ) -> None:
        self.module, self.config, self.held_out = module, config, held_out
        self.ids = [module.encode(text, config.max_tokens) for text in texts]
        self.vectors = torch.as_tensor(vectors, device=module.device)
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=module.device)
        base = module.contract.nlakit.baseline
        assert base is not None, "tables record the baseline"
        self.base = base

    def lengths(self) -> Sequence[int]:
        return [len(row) for row in self.ids]

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
        made = self.module([self.ids[row] for row in rows])
        real = self.vectors[torch.as_tensor(rows, device=self.vectors.device)]
        config = self.config
        return ar_loss(
            made,
            real,
            self.mean,
            self.base,
            config.contrastive_weight,
            config.contrastive_temperature,
        )

    def measure(self) -> dict[str, float]:
        return measure_ar(self.module, self.held_out, self.mean.cpu().numpy())


def measure_ar(module: Reconstructor, rows: TableRows, mean: NDArray[Any]) -> dict[str, float]:
    """FVE and centred cosine of an AR on labels beside empty text and another row's label; the FVE
    over that of the empty text with the lower end of its interval over documents.

    The FVE's denominator is that of the rows at hand, with ū of the training parts.
    """
    base = baseline(rows.vectors, mean)
    partners = derangement(rows.doc_ids)
    other = [rows.texts[partner] if partner >= 0 else "" for partner in partners]
    result, fve = {}, {}
    for name, texts in (("real", rows.texts), ("empty", [""]), ("other", other)):
        made = module.reconstruct(texts)
        if len(made) == 1:
            made = np.repeat(made, len(rows), axis=0)
        fve[name] = fve_rows(rows.vectors, made, base)
        result[f"fve_{name}"] = float(fve[name].mean())
        result[f"centred_{name}"] = float(centred_cosine(rows.vectors, made, mean).mean())
    gain = paired_difference(fve["real"], fve["empty"], rows.doc_ids)
    return result | {"gain_fve": gain.mean, "gain_low": gain.low}


def prepared_contract(contract: Contract, config: RunConfig) -> Contract:
    """The table's contract as an AR's."""
    made = contract.model_copy(deep=True)
    made.kind = "nla_model"
    made.nlakit.role = "ar"
    made.nlakit.max_tokens = config.ar.max_tokens
    made.nlakit.ar_blocks = config.ar.blocks or config.subject.layer + 1
    return made


def copy_mean(rundir: RunDir, folder: Path) -> None:
    """Each half carries ū, so that it can be used alone."""
    source = rundir.need("tables") / "mean_unit.safetensors"
    shutil.copyfile(source, folder / "mean_unit.safetensors")


@stage(
    "ar",
    parents=("tables",),
    sections=("ar", "subject", "seed", "start"),
    outside=training_files("ar"),
)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Train on the `ar` part; measure on documents of the `rl` part, which SFT never sees."""
    rows, contract = read_rows(rundir, "ar")
    held_out, _ = read_rows(rundir, "rl")
    mean = read_mean(rundir.need("tables"))
    subject = load_subject(config.subject)
    module = Reconstructor(
        subject, prepared_contract(contract, config), config.ar.lora, config.seed
    )
    if config.start and config.start.ar:
        module.adopt(Path(config.start.ar))
    if config.ar.gradient_checkpointing:
        enable_checkpointing(module.decoder)
    held_out = held_out.head(config.ar.measure_rows)
    task = ARTask(module, rows.texts, rows.vectors, held_out, mean, config.ar)
    summary = Trainer(task, config.ar, folder, config.seed, config.watch.stop_if_blind).run("AR")
    module.contract.nlakit.scores = {"held_out": summary["last"]}
    module.save(folder)
    copy_mean(rundir, folder)
    return Rows(entered=len(rows), kept=len(rows))


def enable_checkpointing(decoder: Any) -> None:
    """Recompute blocks in the backward pass. Reentrant checkpointing gives wrong gradients where
    blocks share keys and values."""
    settings = {"use_reentrant": False}
    if hasattr(decoder, "activation_checkpointing_enable"):  # its name from transformers 5.23 on
        decoder.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        decoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    decoder.enable_input_require_grads()
