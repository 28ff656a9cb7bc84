"""Joint RL inside the stage `pair`: from the adapted pair to the one that is kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.config.sections import RLConfig, RunConfig
from nlakit.core.contract import FILE, read_contract
from nlakit.core.prompts import document_ids
from nlakit.errors import DataError
from nlakit.files.rows import TableRows, read_mean, read_rows
from nlakit.models.loading import MEAN_FILE
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.steering.patch import Patcher
from nlakit.models.subject import Subject, decoder_of
from nlakit.models.verbalizer import Verbalizer
from nlakit.models.weights import stored_weights
from nlakit.run.folder import RunDir, file_sha256
from nlakit.run.progress import say
from nlakit.train.ar import enable_checkpointing
from nlakit.train.loop import copy_half
from nlakit.train.rl.brakes import FEW
from nlakit.train.rl.instruments import Instruments
from nlakit.train.rl.joint import Halves, JointLoop
from nlakit.train.rl.reward import Functional

FOLDER = "rl"


def learn(config: RunConfig, rundir: RunDir, adapted: Path, folder: Path, subject: Subject) -> None:
    """Train the pair in `adapted` further; `folder` gets the pair that the settings keep, its
    `rl/` the log, the measures at the start, and the best pairs by either rule.

    Raises DataError with too few rows.
    """
    settings = config.rl
    assert settings is not None, "asked for by the caller"
    rows, held_out = learnt_rows(rundir, settings)
    if (documents := len(set(held_out.doc_ids))) < FEW:
        say(f"RL: {documents} documents held out; the brakes on them need {FEW}")
    gold = read_rows(rundir, "ar")[0]
    gold = gold.take([row for row, text in enumerate(gold.texts) if text.strip()])
    halves = load_halves(subject, adapted)
    if settings.gradient_checkpointing:
        enable_checkpointing(halves.av.model)
        enable_checkpointing(halves.ar.decoder)
    mean = read_mean(adapted / "ar")
    instruments = Instruments(
        halves.av, halves.ar, halves.start_ar, held_out, mean, settings.texts_at_once, config.seed
    )
    place = folder / FOLDER
    going_on = how_it_goes_on(subject, halves.av) if settings.reward.functional else None
    loop = JointLoop(halves, rows, gold, instruments, settings, place, config.seed, going_on)
    summary = loop.run("RL")
    if settings.keep == "last":
        source = place / "last"
        halves.av.save(source / "av")
        halves.ar.save(source / "ar")
    else:
        source = place / "best" / settings.keep
    said = said_of(settings, summary)
    for half in ("av", "ar"):
        for learnt in place.rglob(half):  # so that each can be used
            shutil.copyfile(adapted / half / MEAN_FILE, learnt / MEAN_FILE)
        _take(source / half, adapted / half, folder / half, said)


def how_it_goes_on(subject: Subject, av: Verbalizer) -> Functional:
    """KL in nats of the subject's next token with reconstructions put back in place of the
    activation that was read at the end of a source; 0 where there is none."""
    patcher = Patcher(subject.model, decoder_of(subject.model), av.contract.layer)
    how = av.contract.nlakit.special_tokens

    def diverged(source: str, made: NDArray[np.float32]) -> NDArray[np.float64]:
        if not source:
            return np.zeros(len(made))
        return patcher.effect(document_ids(subject.tokenizer, source, how), made).kl

    return diverged


def load_halves(subject: Subject, pair: Path) -> Halves:
    """The pair in a folder twice: once to learn, once as it is."""
    mean = read_mean(pair / "av")
    contracts = {half: read_contract(pair / half) for half in ("av", "ar")}
    avs = [Verbalizer.load(subject, contracts["av"], mean, pair / "av") for _ in range(2)]
    ars = [Reconstructor.load(subject, contracts["ar"], pair / "ar") for _ in range(2)]
    for half in (avs[1], ars[1]):
        half.requires_grad_(False)
    return Halves(avs[0], ars[0], avs[1], ars[1])


def learnt_rows(rundir: RunDir, settings: RLConfig) -> tuple[TableRows, TableRows]:
    """Rows to learn on and rows to measure on, of different documents.

    The first of `rl` are held out; the rest of `rl`, then `ar`, are learnt on: the AV has not seen
    their labels, so that it is as unsure there as it is on new rows. Raises DataError with fewer
    vectors than one step takes, or nothing to measure on.
    """
    rl, ar = read_rows(rundir, "rl")[0], read_rows(rundir, "ar")[0]
    held_out = rl.head(min(settings.measure_rows, len(rl) // 2))
    documents = set(held_out.doc_ids)
    if len(documents) < 2:
        raise DataError(
            "RL is measured on at least two documents",
            found=f"{len(rl)} rows in the part rl, {len(documents)} documents in half of them",
            do="use more documents, or a larger split.rl",
        )
    rows = rl.join(ar)
    rows = rows.take([row for row, name in enumerate(rows.doc_ids) if name not in documents])
    rows = rows.head(settings.rows or len(rows))
    if len(rows) < settings.batch_rows:
        raise DataError(
            "fewer vectors than one step of RL takes",
            found=f"{len(rows)} rows, batch_rows {settings.batch_rows}",
            do="use more documents, or smaller rl.batch_rows",
        )
    return rows, held_out


def said_of(settings: RLConfig, summary: dict[str, Any]) -> dict[str, Any]:
    """What a half's contract says of RL: its steps, the rule and the step of the kept pair, what
    stopped it, and the settings that are not the defaults."""
    steps, keep = summary["last"].get("step", 0), settings.keep
    return {
        "steps": steps,
        "keep": keep,
        "step": steps if keep == "last" else summary["kept"][keep]["step"],
        "kept": summary["kept"],
        "stopped": summary["stopped"]["name"] if summary["stopped"] else None,
        "settings": settings.model_dump(mode="json", exclude_defaults=True),
    }


def _take(source: Path, before: Path, target: Path, said: dict[str, Any]) -> None:
    """Copy a half to where the stage's result lies; its contract names what it was before."""
    copy_half(source, target)
    contract = read_contract(before)
    contract.nlakit.parent = f"before RL:{file_sha256(stored_weights(before))}"
    contract.nlakit.scores = contract.nlakit.scores | {"rl": said}
    contract.write(target / FILE)
