"""Adapt the AR to the AV's own texts.

An AR that has seen only labels is overconfident on AV texts: their words are right less often. A
short training on AV texts for training rows, labels mixed in, teaches it how far to trust them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from nlakit.config.sections import PairConfig, RunConfig
from nlakit.core.batches import labels_beside
from nlakit.core.contract import FILE, Contract, read_contract
from nlakit.files.rows import TableRows, read_mean, read_rows
from nlakit.files.text import as_json, read_jsonl
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.folder import Rows, RunDir, atomic_write
from nlakit.run.inputs import subject_files
from nlakit.run.progress import ticker
from nlakit.run.stage import stage
from nlakit.train.ar import ARTask, copy_mean, enable_checkpointing
from nlakit.train.loop import Trainer, copy_half

TEXTS_FILE = "av_texts.jsonl"
BEFORE_RL = "before_rl"


def chosen_rows(
    rundir: RunDir, settings: PairConfig, apart: Collection[str] = ()
) -> tuple[TableRows, TableRows]:
    """Rows to adapt on, and rows held out of the adaptation to measure it.

    The first of `rl` are held out. The rest of `rl`, which neither half has seen, are adapted on,
    then rows of `ar`, which the AV has not seen: its texts there are as wrong as on new rows.
    apart: documents on which what follows is measured, and which are not adapted on.
    """
    rl, ar = read_rows(rundir, "rl")[0], read_rows(rundir, "ar")[0]
    cut = min(settings.measure_rows, len(rl) // 2)
    rest = [row for row in range(cut, len(rl)) if rl.doc_ids[row] not in apart]
    fresh = rl.take(rest[: settings.rows])
    return fresh.join(ar.head(settings.rows - len(fresh))), rl.head(cut)


def decoding_contract(config: RunConfig, rundir: RunDir) -> Contract:
    """The AV's contract with the way its texts are drawn from now on."""
    contract = read_contract(rundir.need("av"))
    contract.nlakit.max_new_tokens = config.decoding.max_new_tokens
    contract.nlakit.no_repeat_ngram = config.decoding.no_repeat_ngram
    contract.nlakit.repetition_penalty = config.decoding.repetition_penalty
    return contract


def write_texts(
    config: RunConfig, rows: TableRows, rundir: RunDir, folder: Path, subject: Subject
) -> list[str]:
    """AV texts of rows, kept a batch at a time so that a restart loses one batch."""
    file = folder / TEXTS_FILE
    done = [one["text"] for _, one in read_jsonl(file)] if file.exists() else []
    if len(done) == len(rows):
        return done
    source = rundir.need("av")
    contract = decoding_contract(config, rundir)
    verbalizer = Verbalizer.load(subject, contract, read_mean(source), source)
    size = config.pair.generate_batch
    with ticker("AV texts", len(rows)) as progress:
        progress.skip(len(done))
        for start in range(len(done), len(rows), size):
            done += verbalizer.explain(rows.vectors[start : start + size], batch=size)
            _write_lines(file, rows.row_ids, done)
            progress.advance(len(done) - start)
    return done


def _write_lines(file: Path, row_ids: Sequence[str], texts: Sequence[str]) -> None:
    records = [{"row_id": row, "text": text} for row, text in zip(row_ids, texts, strict=False)]
    atomic_write(file, "".join(as_json(r) + "\n" for r in records))


def with_labels(rows: TableRows, rundir: RunDir, share: float) -> TableRows:
    """`rows` plus rows of `ar` with their labels, which make up `share` of the whole."""
    count = labels_beside(len(rows), share)
    ar = read_rows(rundir, "ar")[0]
    return rows.join(ar.take(range(max(len(ar) - count, 0), len(ar))))


@stage(
    "pair",
    parents=("tables", "ar", "av"),
    sections=("pair", "decoding", "subject", "seed", "rl"),
    outside=subject_files,
)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write `ar/` (adapted) and `av/` (as trained), both after joint RL if that is asked for: the
    pair that is evaluated and used."""
    from nlakit.train.rl.learn import learn, learnt_rows

    adapted = folder / BEFORE_RL if config.rl else folder
    apart = set(learnt_rows(rundir, config.rl)[1].doc_ids) if config.rl else set()
    rows, held_out = chosen_rows(rundir, config.pair, apart)
    subject = load_subject(config.subject)
    if not (adapted / "ar" / FILE).exists():  # written last
        adapt(config, rundir, folder, adapted, subject, rows, held_out)
    if config.rl:
        learn(config, rundir, adapted, folder, subject)
    count = len(with_labels(rows, rundir, config.pair.label_share))
    return Rows(entered=count, kept=count)


def adapt(
    config: RunConfig,
    rundir: RunDir,
    folder: Path,
    adapted: Path,
    subject: Subject,
    rows: TableRows,
    held_out: TableRows,
) -> None:
    """Train the AR on AV texts of `rows`, in the stage's folder; the pair goes to `adapted`."""
    settings = config.pair
    texts = write_texts(config, held_out.join(rows), rundir, folder, subject)
    held_out = dataclasses.replace(held_out, texts=texts[: len(held_out)])
    rows = dataclasses.replace(rows, texts=texts[len(held_out) :])
    inputs = with_labels(rows, rundir, settings.label_share)

    source = rundir.need("ar")
    module = Reconstructor.load(subject, read_contract(source), source)
    if settings.gradient_checkpointing:
        enable_checkpointing(module.decoder)
    task = ARTask(module, inputs.texts, inputs.vectors, held_out, read_mean(source), settings)
    summary = Trainer(task, settings, folder, config.seed, config.watch.stop_if_blind).run("pair")
    parent = rundir.manifest("ar")
    module.contract.nlakit.parent = f"ar:{parent.identity()}" if parent else None
    module.contract.nlakit.scores = {"held_out_av_texts": summary["last"]}
    copy_half(rundir.need("av"), adapted / "av")
    decoding_contract(config, rundir).write(adapted / "av" / FILE)
    (adapted / "ar").mkdir(exist_ok=True)
    copy_mean(rundir, adapted / "ar")
    module.save(adapted / "ar")
