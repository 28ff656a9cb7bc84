"""Speeds and sizes on this machine, from one batch of each kind of work on the run's documents."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch

from nlakit.config.sections import RunConfig
from nlakit.core import flops
from nlakit.core.flops import Shape
from nlakit.core.memory import Model
from nlakit.core.metrics import mean_unit
from nlakit.data import activations, tables
from nlakit.data.labels.label import requests_of
from nlakit.data.labels.labeler import LabelRequest
from nlakit.data.labels.offline import Background, OfflineLabeler
from nlakit.data.positions import Reading, prepare
from nlakit.errors import DataError
from nlakit.evaluate.embedding import embedder
from nlakit.files.parquet import matrix, write_table
from nlakit.files.rows import TableRows
from nlakit.models.decode import Decoding, decode
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.studies.planning.stage_memory import COUNTED_LOW, Lengths, model_of
from nlakit.train import ar, av
from nlakit.train.optimizer import MasterAdamW

BATCH_SECONDS = 5.0  # a batch that would take longer is cut
USUAL_SHARE = 0.2  # share of the matmul speed by which a batch's time is guessed
DECODE_STEPS = 8
OBJECTS = 500  # bytes of a row's Python objects


@dataclass(frozen=True)
class Sizes:
    """Means over a sample: of documents, and of the rows made from some of them."""

    sampled: int
    positions: float
    tokens: float
    labelled: int
    ar_text: float
    ar_empty: float
    av_prompt: int
    response: float
    long_response: float  # the 95th percentile
    row_bytes: dict[str, float]
    label_seconds: float
    row_memory: float  # bytes of a row in a stage that has read its table


@dataclass(frozen=True)
class Calibration:
    """`speeds` in FLOP a second are of read, ar, av and decode. `base_memory` is what the process
    (the device, if it is not the CPU) holds with all of the subject loaded; `mapped` tells that
    this is resident memory, into which weights come from their file on first use.
    `embedding_memory` is what the evaluation's sentence embedding adds."""

    shape: Shape
    model: Model
    lengths: Lengths
    sizes: Sizes
    speeds: dict[str, float]
    matmul: float
    load_seconds: float
    base_memory: int
    mapped: bool
    embedding_memory: int = 0
    notes: tuple[str, ...] = ()


def shape_of(model: Any) -> Shape:
    """The numbers of a causal LM that has no adapters."""
    found = model_of(model)
    blocks = len(found.blocks)
    return Shape(
        block_weights=sum(sum(block.linears) for block in found.blocks) // blocks,
        blocks=blocks,
        d_attention=found.blocks[0].queries,
        d_model=found.d_model,
        vocabulary=found.vocabulary,
        lora_unit=sum(block.lora_unit for block in found.blocks) // blocks,
    )


def matmul_speed(device: torch.device, dtype: torch.dtype, repeats: int = 5) -> float:
    """FLOP/s of a 2048-wide square matmul, the best of `repeats`."""
    n, times = 2048, []
    left = torch.ones(n, n, device=device, dtype=dtype)
    for _ in range(repeats + 1):
        started = time.perf_counter()
        # Reading one number back waits for the device, whichever kind it is.
        (left @ left)[0, 0].item()
        times.append(time.perf_counter() - started)
    return 2 * n**3 / min(times)


def last_block(config: RunConfig) -> int | None:
    """The deepest block that reading runs; None if it runs all of them and the head."""
    settings = config.activations
    return (
        None if settings.expected_tokens else max(config.subject.layer, *settings.extra_layers, 0)
    )


def calibrate(config: RunConfig, documents: pa.Table, texts: list[str]) -> Calibration:
    """Measure on `documents`, a fair sample; `texts` are the labeler's background.

    Raises DataError if no document is long enough, and what the stages raise.
    """
    work = Work(config)
    readings = work.prepare(documents)
    made = work.read(documents, readings)
    labeler = OfflineLabeler(Background(texts))
    rows, row_bytes, label_seconds = work.label(made, labeler)
    texts_task, vectors_task = work.train_ar(rows), work.train_av(rows)
    work.decode(vectors_task)
    bare = work.bare_labels(readings, labeler)
    responses = [len(response) for response in vectors_task.responses]
    sizes = Sizes(
        sampled=documents.num_rows,
        positions=sum(len(r.positions) for r in readings) / documents.num_rows,
        tokens=sum(len(r.ids) for r in readings) / documents.num_rows,
        labelled=len(rows),
        ar_text=float(np.mean(texts_task.lengths())),
        ar_empty=len(texts_task.module.encode("", config.ar.max_tokens)),
        av_prompt=len(vectors_task.module.prompt),
        response=float(np.mean(responses)),
        long_response=float(np.quantile(responses, 0.95)),
        row_bytes=row_bytes,
        label_seconds=label_seconds,
        row_memory=memory_a_row(rows),
    )
    lengths = Lengths(
        document=max(len(reading.ids) for reading in readings),
        ar_text=longest(bare, rows, lambda t: texts_task.module.encode(t, config.ar.max_tokens)),
        av_prompt=sizes.av_prompt,
        response=longest(
            bare, rows, lambda t: vectors_task.module.response_ids(t, config.av.max_tokens)
        ),
    )
    return Calibration(
        work.shape,
        work.model,
        lengths,
        sizes,
        work.speeds,
        work.matmul,
        work.loading,
        work.base,
        work.subject.device.type == "cpu",
        embedding_memory(config, work.subject.device, rows.texts),
        tuple(work.notes),
    )


class Work:
    """Each kind of work once, on batches cut to what BATCH_SECONDS are likely to hold."""

    def __init__(self, config: RunConfig) -> None:
        self.config, started = config, time.perf_counter()
        self.subject = load_subject(config.subject)
        self.loading, self.shape = time.perf_counter() - started, shape_of(self.subject.model)
        self.model = model_of(self.subject.model)
        for parameter in self.subject.model.parameters():
            parameter.sum()  # weights of a mapped file become resident on first use
        self.base = held_memory(self.subject.device)
        self.matmul = matmul_speed(self.subject.device, getattr(torch, self.subject.config.dtype))
        self.speeds: dict[str, float] = {}
        kind = self.subject.model.config.get_text_config().model_type.removesuffix("_text")
        low = f"memory: activations of {kind} are counted two to three times too low"
        self.notes: list[str] = [low] if kind in COUNTED_LOW else []

    def measure(self, kind: str, work: Callable[[], float]) -> None:
        """`work` returns the FLOP of what it did; a first run pays for allocation and paging."""
        work()
        self.wait()
        started = time.perf_counter()
        done = work()
        self.wait()
        self.speeds[kind] = done / (time.perf_counter() - started)

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.subject.device.type == "cuda":
            torch.cuda.synchronize(self.subject.device)

    def fitting(self, kind: str, wanted: int, one: float) -> int:
        """How many of `wanted` items of about `one` FLOP to calibrate on."""
        count = max(1, min(wanted, int(BATCH_SECONDS * USUAL_SHARE * self.matmul / one)))
        if count < wanted:
            self.notes.append(f"{kind}: speed of a batch of {count}, not {wanted}")
        return count

    def prepare(self, documents: pa.Table) -> list[Reading]:
        settings = self.config.activations
        found = prepare(self.subject.tokenizer, documents, self.config)
        if not found:
            raise DataError(
                "no document of the sample is long enough",
                found=f"none of {documents.num_rows} has more than {settings.skip_first} tokens",
                do="use longer documents or lower activations.skip_first",
            )
        return found

    def read(self, documents: pa.Table, readings: list[Reading]) -> pa.Table:
        """The activations stage's table of about one batch of documents."""
        settings = self.config.activations
        layers = sorted({self.config.subject.layer, *settings.extra_layers})
        reader = activations.Reader(self.subject, layers, settings.expected_tokens)
        mean = float(np.mean([len(reading.ids) for reading in readings]))
        wanted = min(max(int(settings.tokens_per_batch / mean), 1), len(readings))
        last = last_block(self.config)
        one = flops.reading(self.shape, last, [mean], settings.positions_per_document)
        chosen = readings[: self.fitting("read", wanted, one)]
        names = {reading.doc_id for reading in chosen}
        piece = documents.filter(pa.array([d in names for d in documents["doc_id"].to_pylist()]))
        lengths = [float(len(reading.ids)) for reading in chosen]
        positions = sum(len(reading.positions) for reading in chosen)
        made: list[pa.Table] = []

        def work() -> float:
            made.append(activations.read_chunk(reader, piece, self.config))
            return flops.reading(self.shape, last, lengths, positions)

        self.measure("read", work)
        return made[-1]

    def label(
        self, made: pa.Table, labeler: OfflineLabeler
    ) -> tuple[TableRows, dict[str, float], float]:
        """The rows with labels, bytes a row of each table, seconds a label."""
        requests = requests_of(made)
        started = time.perf_counter()
        labels = [label.explanation or "" for label in labeler.label(requests)]
        seconds = (time.perf_counter() - started) / len(labels)
        seen = [*made["detokenized_text_truncated"].to_pylist(), *labels]
        marker = tables.chosen_marker(self.config, self.subject, seen)
        made = made.append_column("api_explanation", pa.array(labels, pa.string()))
        made = tables.without_marker(made, self.subject, marker)
        labels = made["api_explanation"].to_pylist()
        vectors = matrix(made)
        self.mean = mean_unit(vectors)
        norms = tables.measured_norms(vectors, self.subject)
        self.contract = tables.base_contract(
            self.config, self.subject, self.mean, vectors, norms, marker
        )
        named = ["api_explanation", "labeler_model"]
        joined = made
        for name, values in (("labeler_model", [labeler.name] * len(labels)), ("part", labels)):
            joined = joined.append_column(name, pa.array(values, pa.string()))
        shaped = {part: tables.shape(joined, part, self.contract) for part in ("ar", "av")}
        sizes = {part: bytes_a_row(table, shuffled=True) for part, table in shaped.items()}
        sizes["activations"] = bytes_a_row(made.drop_columns(["api_explanation"]))
        sizes["labels"] = bytes_a_row(joined.select(["row_id", *named]))
        rows = TableRows(
            row_ids=made["row_id"].to_pylist(),
            doc_ids=made["doc_id"].to_pylist(),
            texts=labels,
            sources=made["detokenized_text_truncated"].to_pylist(),
            families=made["source_family"].to_pylist(),
            tokens=made["token"].to_pylist(),
            positions=made["position"].to_pylist(),
            vectors=vectors,
        )
        return rows, sizes, seconds

    def bare_labels(self, readings: list[Reading], labeler: OfflineLabeler) -> dict[str, str]:
        """Row → label of all positions of the sample, but for the tokens that the subject expects
        next: these would cost a forward pass."""
        requests = [
            LabelRequest(*reading.shown(self.subject.tokenizer, position))
            for reading in readings
            for position in reading.positions
        ]
        return {label.row_id: label.explanation or "" for label in labeler.label(requests)}

    def train_ar(self, rows: TableRows) -> ar.ARTask:
        settings = self.config.ar
        contract = ar.prepared_contract(self.contract, self.config)
        module = Reconstructor(self.subject, contract, settings.lora, self.config.seed)
        if settings.gradient_checkpointing:
            ar.enable_checkpointing(module.decoder)
        task = ar.ARTask(module, rows.texts, rows.vectors, rows, self.mean, settings)

        def cost(batch: list[int]) -> float:
            lengths = [float(task.lengths()[row]) for row in batch]
            return flops.lora_step(self.shape, contract.ar_blocks, lengths, settings.rank)

        self.train("ar", task, len(rows), cost)
        return task

    def train_av(self, rows: TableRows) -> av.AVTask:
        settings = self.config.av
        module = av.build(self.config, self.contract, self.subject, self.mean)
        task = av.AVTask(module, rows, rows, settings)

        def cost(batch: list[int]) -> float:
            responses = [len(task.responses[row]) for row in batch]
            lengths = [float(len(module.prompt) + count) for count in responses]
            blocks = flops.lora_step(self.shape, self.shape.blocks, lengths, settings.rank)
            return blocks + flops.head(self.shape, sum(responses), backward=True)

        self.train("av", task, len(rows), cost)
        return task

    def train(
        self, kind: str, task: ar.ARTask | av.AVTask, rows: int, cost: Callable[[Any], float]
    ) -> None:
        """Training steps, optimizer included; a small sample gives its rows more than once."""
        settings = task.config
        batch = [row % rows for row in range(settings.batch_rows)]
        batch = batch[: self.fitting(kind, len(batch), cost(batch) / len(batch))]
        trained = [p for p in task.module.parameters() if p.requires_grad]
        optimizer = MasterAdamW(trained, settings.weight_decay, settings.optimizer_bits)
        task.module.train()

        def work() -> float:
            task.loss(batch)[0].backward()
            optimizer.step(0.0, settings.clip_norm)
            return cost(batch)

        self.measure(kind, work)

    def decode(self, task: av.AVTask) -> None:
        """A few decode steps at the full batch, their prefill included."""
        module, rank, prompt = task.module, self.config.av.rank, len(task.module.prompt)
        one = flops.decoding(self.shape, 1, prompt, DECODE_STEPS, rank)
        count = self.fitting("decode", self.config.pair.generate_batch, one)
        vectors = task.injected[[row % len(task.injected) for row in range(count)]]
        ids = torch.tensor([module.prompt] * count, device=module.device)
        module.eval()

        @torch.no_grad()
        def work() -> float:
            with module.injecting(vectors):
                found = decode(module.model, module.decoder, ids, [], Decoding(DECODE_STEPS))
            made = max(sum(map(len, found)) / count, 1)
            return flops.decoding(self.shape, count, prompt, made, rank)

        self.measure("decode", work)


def longest(
    bare: Mapping[str, str], rows: TableRows, tokens_of: Callable[[str], Sequence[int]]
) -> int:
    """Tokens of the longest label of the sample: of the longest `bare` one, and what the expected
    tokens add to the labels of `rows` at most."""
    whole = zip(rows.row_ids, rows.texts, strict=True)
    added = max(len(tokens_of(text)) - len(tokens_of(bare[row])) for row, text in whole)
    return max(len(tokens_of(text)) for text in bare.values()) + max(added, 0)


def embedding_memory(config: RunConfig, device: torch.device, texts: list[str]) -> int:
    """Bytes that the evaluation's sentence embedding takes; 0 where none is installed."""
    before, embed = held_memory(device), embedder(config.eval.embedding)
    if embed is not None:
        embed(texts)
    return max(held_memory(device) - before, 0)


def held_memory(device: torch.device) -> int:
    """Bytes that tensors hold on a CUDA device, or resident bytes of the process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss


def memory_a_row(rows: TableRows) -> float:
    """Bytes of a row's vector and texts in a stage: as Arrow read them, and as arrays and lists."""
    texts = sum(len(text.encode()) for text in (*rows.texts, *rows.sources)) / len(rows)
    return 2 * (rows.vectors.nbytes / len(rows) + texts) + OBJECTS


def bytes_a_row(table: pa.Table, *, shuffled: bool = False) -> float:
    """In the Parquet file that a stage would write: what the second half of the rows adds.

    Shuffled rows stand far from others of their document and compress less; the file's headers,
    left out otherwise, make up for it.
    """
    half, sizes = 0 if shuffled else table.num_rows // 2, [0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.parquet"
        for piece in (table.slice(0, half), table)[shuffled:]:
            write_table(path, piece)
            sizes.append(path.stat().st_size)
    return (sizes[-1] - sizes[-2]) / (table.num_rows - half)
