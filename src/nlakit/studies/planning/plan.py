"""Predict what a run takes, before it runs: rows, tokens, operations, disk, memory and time.

Operations are counted (core/flops.py). Time is their number over the speed that the same code
reaches here, on small batches of the run's own documents (calibrate.py).
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
from rich.markup import escape
from rich.table import Table

from nlakit.config.sections import PairConfig, RunConfig, SourceConfig
from nlakit.core import flops
from nlakit.core.memory import tensors_trained
from nlakit.core.shown import counted, plain_table
from nlakit.data import corpus
from nlakit.data.dedup import groups_of_near_duplicates
from nlakit.data.labels.services import estimate
from nlakit.data.sources import read_source
from nlakit.data.split import GROUP_SHARE, normalised_shares
from nlakit.errors import ConfigError
from nlakit.files.parquet import read_table
from nlakit.models.families import check_lengths
from nlakit.models.precision import settled
from nlakit.run.folder import RunDir
from nlakit.run.stage import stage_state
from nlakit.studies.planning.calibrate import Calibration, calibrate, last_block
from nlakit.studies.planning.stage_memory import SCATTER, Budgets, stage_memory
from nlakit.studies.planning.training import (
    ar_training,
    decoding,
    joint_rl,
    label_loss,
    measures,
    stored_bytes,
)

MOST_DOCUMENTS = 4000  # read from the sources
SAMPLE_DOCUMENTS = 300  # tokenised
AR_CONDITIONS = 9  # texts a row that the AR reads in the evaluation, and the floors of a measure
TABLE_COPIES = 2  # of all rows, while tables are joined
CAPTION = """\
rows and tokens rest on: {source}; {sampled} documents tokenised; {labelled} rows labelled
FLOP: counted, without padding
disk: bytes a row of {labelled} rows as the stages write them; adapters; checkpoints
memory: {base:.2f} GiB with the subject loaded, and at the peak of each stage as counted: {peaks}; \
on a CPU with {scatter} times a batch, which the heap of a long training was measured to hold
time: FLOP over the speed that one batch of each kind reaches, which is the last column's share \
of the {matmul:.0f} GFLOP/s of a square {dtype} matmul; decoded texts as long as the longest 5% \
of labels; loading, labelling, reading and grouping documents timed; the report left out"""


@dataclass(frozen=True)
class Survey:
    """`texts` are the documents at hand; `documents`, `bytes` and seconds are of the whole."""

    sample: pa.Table
    texts: list[str]
    documents: int
    bytes: float
    seconds: float
    grouping_seconds: float
    source: str


@dataclass(frozen=True)
class StagePlan:
    """What one stage takes; `speed` is the FLOP/s its time assumes, 0 where none is counted."""

    stage: str
    rows: int
    tokens: float = 0
    flops: float = 0
    disk: float = 0
    memory: float = 0
    seconds: float = 0
    speed: float = 0


@dataclass(frozen=True)
class Plan:
    name: str
    stages: list[StagePlan]
    matmul: float
    notes: str


def predict(config: RunConfig, rundir: RunDir) -> Plan:
    """Predict a run in about 20 seconds; nothing is written into the run folder.

    Raises what the stages raise for documents, a subject or settings that cannot be used.
    """
    if config.tables.source:
        raise ConfigError(
            "plan predicts runs from documents, not over imported tables",
            found=f"tables.source: {config.tables.source}",
            do="leave tables.source out to see what the stages after it cost",
        )
    survey = survey_documents(config, rundir)
    check_lengths(config)
    measured = calibrate(config, survey.sample, survey.texts)
    memory = _memory(config, measured)
    caption = CAPTION.format(
        base=measured.base_memory / 2**30,
        scatter=SCATTER,
        peaks=", ".join(f"{stage} {doing}" for stage, (doing, _) in memory.items()),
        source=survey.source,
        sampled=measured.sizes.sampled,
        labelled=measured.sizes.labelled,
        matmul=measured.matmul / 1e9,
        dtype=settled(config.subject).dtype,
    )
    stages = predict_stages(config, survey, measured)
    small = [
        f"{part}: {rows} rows are fewer than a batch; training will refuse"
        for part, rows, batch in _batches(config, survey.documents * measured.sizes.positions)
        if rows < batch
    ]
    notes = (caption, *measured.notes, *_price(config, measured, stages), *small)
    return Plan(config.name, stages, measured.matmul, "\n".join(notes))


def _price(config: RunConfig, measured: Calibration, stages: list[StagePlan]) -> list[str]:
    """What the labelling services will cost."""
    if config.labels.labeler != "services":
        return []
    rows = next(stage.rows for stage in stages if stage.stage == "labels")
    text = (config.activations.skip_first + measured.sizes.tokens) / 2  # positions are uniform
    return [estimate.line(config.labels, config.requests, rows, text)]


def survey_documents(config: RunConfig, rundir: RunDir) -> Survey:
    """The finished corpus, or one made of the first thousands of documents of the sources."""
    if stage_state(corpus.run, config, rundir)[0] == "done":
        return _survey(config, rundir, 1.0, "the finished corpus stage")
    sources = config.corpus.sources
    limit = max(MOST_DOCUMENTS // len(sources), 1)
    counts = [documents_in(source, limit) for source in sources]
    read, whole = sum(n for n, _ in counts), sum(n for _, n in counts)
    words = f"extrapolated from {read} documents" if whole > read else "all documents read"
    bounded = tuple(
        source.model_copy(update={"limit": n})
        for source, (n, _) in zip(sources, counts, strict=True)
    )
    section = config.corpus.model_copy(update={"sources": bounded})
    part = config.model_copy(update={"corpus": section})
    with tempfile.TemporaryDirectory(prefix="nlakit-plan-") as scratch:
        made = RunDir.create(Path(scratch) / "run", part)
        corpus.run(part, made)
        return _survey(config, made, whole / read, words)


def documents_in(source: SourceConfig, limit: int) -> tuple[int, float]:
    """Documents of a source that are read, and how many it is estimated to have."""
    size, read = 0, 0
    for document in islice(read_source(source), limit + 1):
        size, read = size + len(document.text.encode()), read + 1
    if read <= limit:
        return read, read
    if source.limit or source.path == "demo":
        return limit, source.limit or read
    path = Path(source.path).expanduser()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    on_disk = sum(file.stat().st_size for file in files)
    return limit, max(on_disk / size * read, read)


def _survey(config: RunConfig, rundir: RunDir, scale: float, source: str) -> Survey:
    manifest = rundir.manifest("corpus")
    assert manifest is not None
    table = read_table(rundir.need("corpus") / "corpus.parquet")
    rows = manifest.rows
    usable = round((rows.kept + rows.dropped.get("over_max_documents", 0)) * scale)
    documents = min(usable, config.corpus.max_documents or usable)
    share = documents / rows.kept
    started = time.perf_counter()
    groups_of_near_duplicates(table["text"].to_pylist(), GROUP_SHARE)
    return Survey(
        sample=table.slice(0, SAMPLE_DOCUMENTS),
        texts=table["text"].to_pylist(),
        documents=documents,
        bytes=sum(record.bytes for record in manifest.files.values()) * share,
        seconds=manifest.seconds * scale,
        grouping_seconds=(time.perf_counter() - started) * share,
        source=source,
    )


def _part_rows(config: RunConfig, rows: float) -> dict[str, int]:
    shares = normalised_shares(config.split)
    return {part: round(rows * shares.get(part, 0)) for part in ("av", "ar", "rl", "test")}


def _batches(config: RunConfig, rows: float) -> list[tuple[str, int, int]]:
    """Each part that is trained on, its rows, and how many one step takes."""
    parts = _part_rows(config, rows)
    found = [(part, parts[part], getattr(config, part).batch_rows) for part in ("ar", "av")]
    if config.rl:
        learnt = parts["rl"] - min(config.rl.measure_rows, parts["rl"] // 2) + parts["ar"]
        found.append(("rl", min(learnt, config.rl.rows or learnt), config.rl.batch_rows))
    return found


def predict_stages(config: RunConfig, survey: Survey, measured: Calibration) -> list[StagePlan]:
    """The arithmetic: counts of the survey times sizes and over speeds of the calibration."""
    data = _data_stages(config, survey, measured)
    rows = data[1].rows
    halves = [f(config, measured, rows) for f in (_ar_stage, _av_stage, _pair_stage, _eval_stage)]
    return [*data, *halves, StagePlan("report", config.report.rows)]


def _data_stages(config: RunConfig, survey: Survey, measured: Calibration) -> list[StagePlan]:
    sizes, documents = measured.sizes, survey.documents
    rows, speed = round(documents * sizes.positions), measured.speeds["read"]
    cost = documents * flops.reading(
        measured.shape, last_block(config), [sizes.tokens], sizes.positions
    )
    labels, disk = sizes.response * rows, sizes.row_bytes
    memory = _memory(config, measured)
    parts = _part_rows(config, rows)
    joined = disk["ar"] * parts["ar"] + disk["av"] * (rows - parts["ar"])
    loading = measured.load_seconds
    # No calibration tells how long services take.
    label_seconds = sizes.label_seconds * rows if config.labels.labeler == "offline" else 0.0
    return [
        StagePlan("corpus", documents, disk=survey.bytes, seconds=survey.seconds),
        StagePlan(
            "activations",
            rows,
            documents * sizes.tokens,
            cost,
            disk["activations"] * rows,
            memory["activations"][1],
            loading + cost / speed,
            speed,
        ),
        StagePlan("split", documents, seconds=survey.grouping_seconds),
        StagePlan("labels", rows, labels, 0, disk["labels"] * rows, 0, label_seconds),
        StagePlan(
            "tables",
            rows,
            0,
            0,
            joined,
            _loaded(config, measured, "tables", TABLE_COPIES * rows),
            loading,
        ),
    ]


def _memory(config: RunConfig, measured: Calibration) -> dict[str, tuple[str, float]]:
    """The moment of each stage's peak and its bytes, without the run's rows."""
    budgets = Budgets(config, measured.model, measured.lengths)
    return stage_memory(budgets, measured.base_memory, mapped=measured.mapped)


def _loaded(config: RunConfig, measured: Calibration, stage: str, rows: float) -> float:
    """Peak bytes of a stage that has read so many rows of a table."""
    return _memory(config, measured)[stage][1] + measured.sizes.row_memory * rows


def _ar_stage(config: RunConfig, measured: Calibration, rows: int) -> StagePlan:
    speed, parts, settings = measured.speeds["ar"], _part_rows(config, rows), config.ar
    held_out = min(settings.measure_rows, parts["rl"])
    tokens, cost, stored = ar_training(config, settings, measured, held_out)
    memory = _loaded(config, measured, "ar", parts["ar"] + parts["rl"])
    seconds = measured.load_seconds + cost / speed
    return StagePlan("ar", parts["ar"], tokens, cost, stored, memory, seconds, speed)


def _av_stage(config: RunConfig, measured: Calibration, rows: int) -> StagePlan:
    speed, parts, settings = measured.speeds["av"], _part_rows(config, rows), config.av
    shape, sizes, rank = measured.shape, measured.sizes, settings.rank
    texts = settings.steps * settings.accumulation * settings.batch_rows
    length = sizes.av_prompt + sizes.response
    one = flops.lora_step(shape, shape.blocks, [length], rank)
    cost = texts * (one + flops.head(shape, sizes.response, backward=True))
    held_out = min(settings.measure_rows, parts["rl"])
    cost += measures(settings) * label_loss(config, measured, 2 * held_out)
    trained = tensors_trained(measured.model, rank, shape.blocks, ar=False)
    stored = stored_bytes(settings, sum(trained), 0)
    memory = _loaded(config, measured, "av", parts["av"] + parts["rl"])
    seconds = measured.load_seconds + cost / speed
    return StagePlan("av", parts["av"], texts * length, cost, stored, memory, seconds, speed)


def _pair_stage(config: RunConfig, measured: Calibration, rows: int) -> StagePlan:
    settings: PairConfig = config.pair
    parts = _part_rows(config, rows)
    held_out = min(settings.measure_rows, parts["rl"] // 2)
    written = held_out + min(settings.rows, parts["rl"] - held_out + parts["ar"])
    made, writing, seconds = decoding(config, measured, written)
    tokens, training, stored = ar_training(config, settings, measured, held_out)
    seconds += 2 * measured.load_seconds + training / measured.speeds["ar"]
    shape, rank = measured.shape, config.av.rank
    copied = 2.0 * sum(tensors_trained(measured.model, rank, shape.blocks, ar=False))
    made, total, disk = made + tokens, writing + training, stored + copied
    if config.rl:
        joint = joint_rl(config, config.rl, measured, parts["rl"], parts["ar"])
        made, total = made + joint.tokens, total + joint.flops
        seconds, disk = seconds + joint.seconds, disk + joint.disk
    memory = _loaded(config, measured, "pair", parts["ar"] + parts["rl"])
    return StagePlan("pair", written, made, total, disk, memory, seconds, total / seconds)


def _eval_stage(config: RunConfig, measured: Calibration, rows: int) -> StagePlan:
    parts, settings = _part_rows(config, rows), config.eval
    shape, sizes = measured.shape, measured.sizes
    texts = min(settings.rows, parts["test"])
    made, cost, seconds = decoding(config, measured, texts + min(settings.control_rows, texts) + 2)
    depth = config.ar.blocks or config.subject.layer + 1
    rest = AR_CONDITIONS * texts * flops.forward(shape, depth, [sizes.ar_text], config.ar.rank)
    rest += label_loss(config, measured, 2 * texts)
    seconds += measured.load_seconds + rest / measured.speeds["av"]
    disk = AR_CONDITIONS * sizes.row_bytes["labels"] * texts
    memory = _loaded(config, measured, "eval", parts["test"]) + measured.embedding_memory
    total = cost + rest
    return StagePlan("eval", texts, made, total, disk, memory, seconds, total / seconds)


def table_of(plan: Plan) -> Table:
    """One line a stage, the totals, and what every column rests on."""
    columns = ("stage", "rows", "tokens", "TFLOP", "disk", "memory", "time", "of matmul")
    table = plain_table(columns, title=escape(f"plan of {plan.name}"), caption=escape(plan.notes))
    for stage in plan.stages:
        share = f"{stage.speed / plan.matmul:.0%}" if stage.speed else ""
        table.add_row(stage.stage, f"{stage.rows}", *_cells(stage), share)
    stages = plan.stages
    total = StagePlan(
        "total",
        0,
        sum(stage.tokens for stage in stages),
        sum(stage.flops for stage in stages),
        sum(stage.disk for stage in stages),
        max(stage.memory for stage in stages),
        sum(stage.seconds for stage in stages),
    )
    table.add_section()
    table.add_row("total", "", *_cells(total), "")
    return table


def _cells(stage: StagePlan) -> list[str]:
    minutes, seconds = divmod(round(stage.seconds), 60)
    return [
        counted(stage.tokens) if stage.tokens else "",
        counted(stage.flops / 1e12, 1) if stage.flops else "",
        _size(stage.disk) if stage.disk else "",
        f"{stage.memory / 2**30:.2f} GiB" if stage.memory else "",
        f"{minutes}:{seconds:02d}" if stage.stage != "report" else "",
    ]


def _size(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e10 else f"{size / 1e9:,.1f} GB"
