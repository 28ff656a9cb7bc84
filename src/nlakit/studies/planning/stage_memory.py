"""The peak memory of each stage, part by part, from the settings and a model's numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nlakit.config.sections import RLConfig, RunConfig, TrainConfig
from nlakit.core import memory
from nlakit.core.batches import labels_beside, padded
from nlakit.core.memory import Block, Model, Precision
from nlakit.models.lora import TARGETS
from nlakit.models.precision import settled
from nlakit.models.subject import blocks_of, decoder_of

# Tensors of a step differ in size and life, so what one leaves free fits the next badly: glibc, as
# measured, holds 1.65 (AV) and 1.85 times (AR) a long training's largest batch. It keeps freed
# blocks of up to 32 MiB; giving them back at once doubled the time of a step.
SCATTER, LARGE = 1.75, 32 << 20
LINEAR = ("Linear", "Conv1D", "Linear4bit")
COUNTED_LOW = ("gemma2", "gemma3n", "gpt2", "phi")  # their blocks keep two to three times as much
TOKENS = 2048  # in a batch of Verbalizer.label_loss and of Reconstructor.reconstruct


def model_of(model: Any) -> Model:
    """The numbers of a causal LM that has no adapters; it may lie on the meta device."""
    decoder, settings = decoder_of(model), model.config.get_text_config()
    blocks = blocks_of(decoder)
    names = [name for name, module in decoder.named_modules() if module is blocks]
    inside = {id(p) for p in blocks.parameters()}
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    tables = [
        p for n, p in decoder.named_parameters() if n.endswith("embed_tokens_per_layer.weight")
    ]
    apart = inside | {id(embedding), id(head)} | {id(p) for p in tables}
    outer = {id(m.weight): _weights(m) for m in decoder.modules() if _is_linear(m)}
    outer = {key: count for key, count in outer.items() if key not in apart}
    left = [p for p in model.parameters() if id(p) not in apart and id(p) not in outer]
    return Model(
        d_model=embedding.shape[1],
        vocabulary=embedding.shape[0],
        tied=head is embedding,
        blocks=tuple(
            _block_of(block, f"{names[0]}.{index}", settings, embedding.shape[1])
            for index, block in enumerate(blocks)
        ),
        tables=sum(p.numel() for p in tables),
        outer=tuple(outer.values()),
        other=sum(p.numel() for p in left),
        softcap=bool(getattr(settings, "final_logit_softcapping", None)),
    )


def _linear_weights(block: Block) -> int:
    return sum(block.linears)


def _is_linear(module: Any) -> bool:
    return type(module).__name__ in LINEAR


def _widths(module: Any) -> tuple[int, int]:
    """(in, out) of a linear layer."""
    if type(module).__name__ == "Conv1D":
        return module.weight.shape[0], module.weight.shape[1]
    return module.in_features, module.out_features


def _weights(module: Any) -> int:
    inside, outside = _widths(module)
    return inside * outside


def _block_of(block: Any, path: str, settings: Any, d_model: int) -> Block:
    linears = {name: module for name, module in block.named_modules() if _is_linear(module)}
    adapted = {n: _widths(m) for n, m in linears.items() if re.fullmatch(TARGETS, f"{path}.{n}")}
    mlp = [pair for name, pair in adapted.items() if ".mlp." in f".{name}"]
    inner = mlp[-1][0] if mlp else 0  # the last projection leads back
    up = sum(outside for _, outside in mlp[:-1])
    attention = [pair for name, pair in adapted.items() if ".mlp." not in f".{name}"]
    queries = attention[-1][0] if attention else d_model
    keys = [pair[1] for name, pair in adapted.items() if name.endswith("k_proj")]
    fused = any(pair[1] >= 3 * queries for pair in attention)
    norms = [n for n, m in block.named_modules() if "norm" in type(m).__name__.lower()]
    heads = {"q_norm": queries, "k_norm": sum(keys), "v_norm": sum(keys)}
    inside = [heads.get(name.split(".")[-1], 0) for name in norms if "." in name]
    whole = sum("." not in name for name in norms)
    own = {id(m.weight) for m in linears.values()}
    small = sum(p.numel() for p in block.parameters() if id(p) not in own)
    return Block(
        linears=tuple(_weights(module) for module in linears.values()),
        adapted=tuple(adapted.values()),
        other=small,
        queries=queries,
        keys=sum(keys) or (queries if fused else 0),
        up=up,
        gated=up == 2 * inner,
        normed=whole * d_model + sum(inside),
        extra=getattr(settings, "hidden_size_per_layer_input", None) or 0,
    )


@dataclass(frozen=True)
class Lengths:
    """Longest inputs in tokens: a document, an AR prompt with its text, the AV's prompt, and a
    label with its closing tag."""

    document: int
    ar_text: int
    av_prompt: int
    response: int


@dataclass(frozen=True)
class Budget:
    """What a stage holds on the device at its peak, part by part; `doing` names the moment.
    `held` stays from batch to batch, `work` comes and goes with each."""

    doing: str
    held: Mapping[str, float]
    work: Mapping[str, float] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, float]:
        return {**self.held, **self.work}

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def precision_of(config: RunConfig) -> Precision:
    subject = settled(config.subject)
    return Precision.of(subject.dtype, subject.quantisation, subject.ple_on_cpu)


class Budgets:
    """Budgets of the stages that load the subject."""

    def __init__(self, config: RunConfig, model: Model, lengths: Lengths) -> None:
        self.config, self.model, self.lengths = config, model, lengths
        self.precision = precision_of(config)
        self.weights = memory.weight_bytes(model, self.precision)
        self.depth = config.ar.blocks or config.subject.layer + 1

    def moments(self) -> dict[str, list[Budget]]:
        """What each stage does one after the other, by stage."""
        return {
            "activations": self.reading(),
            "tables": [Budget("loaded", self.weights)],
            "ar": self.training_ar(self.config.ar),
            "av": self.training_av(),
            "pair": [
                *self.writing(self.config.pair.generate_batch),
                *self.training_ar(self.config.pair),
                *(self.joint(self.config.rl) if self.config.rl else ()),
            ],
            "eval": self.evaluating(),
        }

    def untouched(self, stage: str) -> float:
        """Bytes of weights that a stage never uses: pages of a mapped file that stay on the disk.
        Without the vocabulary head, texts use about a third of the pages of the embeddings."""
        blocks = self.weights["blocks"]
        if stage == "tables":  # looks at embeddings all over the table
            return blocks
        if stage == "ar":
            share = sum(map(_linear_weights, self.model.blocks[self.depth :])) / sum(
                map(_linear_weights, self.model.blocks)
            )
            return blocks * share + self.weights["embeddings"] * 2 / 3
        return 0.0

    def reading(self) -> list[Budget]:
        """A batch of documents through the blocks, and the head at the drawn positions."""
        settings, model, precision = self.config.activations, self.model, self.precision
        tokens = max(settings.tokens_per_batch, self.lengths.document)
        last = max(self.config.subject.layer, *settings.extra_layers, 0) + 1
        blocks = len(model.blocks) if settings.expected_tokens else last
        layers = len({self.config.subject.layer, *settings.extra_layers})
        kept = {"captured": layers * tokens * precision.stream * model.d_model}
        moments = [
            Budget(
                "reading",
                self.weights,
                kept | memory.forward_activations(model, precision, 0, blocks, tokens),
            )
        ]
        if settings.expected_tokens:
            rows = settings.positions_per_document * max(1, tokens // self.lengths.document)
            made = memory.logits(model, precision, rows, chances=True)
            moments.append(Budget("expecting", self.weights, kept | {"logits": made}))
        return moments

    def training_ar(self, settings: TrainConfig) -> list[Budget]:
        """A micro-batch of the longest texts, and a measure on held-out rows."""
        rank = self.config.ar.rank
        tokens = settings.batch_rows * padded(min(self.lengths.ar_text, settings.max_tokens))
        trained = memory.training_bytes(
            self.model, self.precision, rank, self.depth, settings.optimizer, ar=True
        )
        held, checkpointing = self.weights | trained, settings.gradient_checkpointing
        work = memory.training_activations(
            self.model, self.precision, rank, self.depth, tokens, checkpointing=checkpointing
        )
        measure = self.reading_texts(settings.measure_rows)
        return [
            Budget("training", held, work),
            updating(held, trained),
            Budget("measuring", held, measure),
        ]

    def training_av(self) -> list[Budget]:
        """A micro-batch of the longest labels, the vocabulary head, and a measure."""
        settings, blocks = self.config.av, len(self.model.blocks)
        rank = settings.rank
        prompt = self.lengths.av_prompt
        response = min(self.lengths.response, settings.max_tokens - prompt)
        trained = memory.training_bytes(
            self.model, self.precision, rank, blocks, settings.optimizer, ar=False
        )
        held, rows = self.weights | trained, settings.batch_rows
        work = memory.training_activations(
            self.model, self.precision, rank, blocks, rows * padded(prompt + response),
            checkpointing=settings.gradient_checkpointing,
        )  # fmt: skip
        kept = {"kept for backward": work["kept for backward"]}
        head = {"vocabulary head": memory.tiled_head(self.model, self.precision, rows * response)}
        if settings.gradient_checkpointing:  # no block is run again while the head works
            inputs = rows * padded(prompt + response) * (blocks + 1) * self.model.d_model
            kept = {"kept for backward": self.precision.stream * inputs}
        return [
            Budget("training", held, work),
            Budget("training, at the head", held, kept | head),
            updating(held, trained),
            *self.label_loss(held, settings.measure_rows, prompt + response),
        ]

    def label_loss(self, held: Mapping[str, float], rows: int, tokens: int) -> list[Budget]:
        """The loss of labels without gradients, a batch at a time: the blocks, then the head."""
        tokens, rank = min(rows * tokens, max(TOKENS, tokens)), self.config.av.rank
        blocks = len(self.model.blocks)
        made = memory.forward_activations(self.model, self.precision, rank, blocks, tokens)
        head = memory.tiled_head(self.model, self.precision, tokens)
        return [
            Budget("reading labels", held, made),
            Budget("losses of labels", held, {"vocabulary head": head}),
        ]

    def reading_texts(self, rows: int) -> dict[str, float]:
        """What reconstructing `rows` texts adds, a batch at a time."""
        tokens = min(rows * self.lengths.ar_text, max(TOKENS, self.lengths.ar_text))
        rank = self.config.ar.rank
        return memory.forward_activations(self.model, self.precision, rank, self.depth, tokens)

    def half(self, *, ar: bool) -> dict[str, float]:
        """A trained half that is only used, beside the frozen model."""
        settings, blocks = (
            (self.config.ar, self.depth) if ar else (self.config.av, len(self.model.blocks))
        )
        rank = settings.rank
        made = memory.training_bytes(
            self.model, self.precision, rank, blocks, settings.optimizer, ar=ar
        )
        return {"AR" if ar else "AV": made["trained weights"]}

    def joint(self, settings: RLConfig) -> list[Budget]:
        """Joint RL: both halves in training and as they were; texts are drawn, read and learnt on,
        and measured. A drawn text may run to its budget."""
        model, precision, blocks = self.model, self.precision, len(self.model.blocks)
        ranks, depths = (self.config.av.rank, self.config.ar.rank), (blocks, self.depth)
        av, ar = (
            memory.training_bytes(model, precision, rank, depth, settings.optimizer, ar=ar)
            for rank, depth, ar in zip(ranks, depths, (False, True), strict=True)
        )
        held = self.weights | {f"AV, {key}": value for key, value in av.items()}
        held |= {f"AR, {key}": value for key, value in ar.items()}
        held["as they were"] = av["trained weights"] + ar["trained weights"]
        merged = sum(inside * out for block in model.blocks for inside, out in block.adapted)
        dense = settings.merge_adapters and ranks[0] and not precision.nf4
        limit = settings.max_new_tokens or self.config.decoding.max_new_tokens
        samples, count = settings.samples, settings.batch_rows
        vectors = min(max(settings.texts_at_once // samples, 1), count)
        drawing = held | {"merged weights": merged * precision.weight if dense else 0}
        share, texts = settings.gold_share, settings.texts_per_pass
        read = count + labels_beside(count, share)

        def learning(which: int, tokens: int) -> dict[str, float]:
            return memory.training_activations(
                model, precision, ranks[which], depths[which], tokens,
                checkpointing=settings.gradient_checkpointing,
            )  # fmt: skip

        tokens = texts * padded(self.lengths.av_prompt + limit)
        work = learning(0, tokens)
        kept = {"kept for backward": work["kept for backward"]}
        beside = memory.forward_activations(model, precision, ranks[0], blocks, tokens)
        head = {"vocabulary head": memory.tiled_head(model, precision, texts * limit)}
        longest = padded(min(self.lengths.ar_text, settings.max_tokens))
        rows = max(count * samples, settings.measure_rows)
        return [
            *self.writing(min(vectors * samples, settings.texts_at_once), drawing, vectors, limit),
            *self.writing(min(settings.texts_at_once, settings.measure_rows), held),
            Budget("reading texts", held, self.reading_texts(rows)),
            Budget("training the AV", held, work),
            Budget("training the AV, at the head", held, kept | head),
            Budget("training the AV, beside the frozen one", held, kept | beside),
            Budget("training the AR", held, learning(1, read * longest)),
            updating(held, av),
        ]

    def writing(
        self,
        rows: int,
        held: Mapping[str, float] | None = None,
        prompts: int | None = None,
        new: int | None = None,
    ) -> list[Budget]:
        """`rows` texts at once: the prompts, one a text unless given, then a token a step."""
        prompt, new = self.lengths.av_prompt, new or self.config.decoding.max_new_tokens
        held = self.weights | self.half(ar=False) if held is None else held
        rank, blocks = self.config.av.rank, len(self.model.blocks)
        fill = memory.forward_activations(
            self.model, self.precision, rank, blocks, (prompts or rows) * prompt
        )  # fmt: skip
        step = memory.forward_activations(self.model, self.precision, rank, blocks, rows)
        full = {
            "cache": memory.cache(self.model, self.precision, rows, prompt + new),
            "logits": memory.logits(self.model, self.precision, rows, chances=False),
        }
        return [Budget("reading prompts", held, fill), Budget("writing", held, step | full)]

    def evaluating(self) -> list[Budget]:
        """The AV writes and gives losses; then the AR is loaded besides and reads."""
        settings = self.config.eval
        av = self.weights | self.half(ar=False)
        longest = self.lengths.av_prompt + self.lengths.response
        losses = self.label_loss(av, settings.rows, longest)
        both, texts = av | self.half(ar=True), self.reading_texts(settings.rows)
        written = self.writing(min(settings.generate_batch, settings.rows))
        return [*written, *losses, Budget("reconstructing", both, texts)]


def updating(held: Mapping[str, float], trained: Mapping[str, float]) -> Budget:
    """The optimizer's step: gradients give way to float32 ones."""
    return Budget("training, updating", held, {"float32 gradients": trained["float32 copies"] / 2})


def stage_memory(budgets: Budgets, base: float, *, mapped: bool) -> dict[str, tuple[str, float]]:
    """The moment of each stage's peak and its bytes, where `base` are held with all of the subject
    loaded. With `mapped` they are resident bytes of a process, else of tensors on a device."""
    found = {}
    frozen = sum(budgets.weights.values())
    for stage, moments in budgets.moments().items():
        peak = max(moments, key=lambda one: one.total)
        held = sum(peak.held.values()) - frozen
        work = sum(peak.work.values())
        if mapped:
            held -= budgets.untouched(stage)
            work = _resident_work(moments)
        found[stage] = (peak.doing, base + held + work)
    return found


def _resident_work(moments: list[Budget]) -> float:
    """What a process holds of its batches: for each kind of work, SCATTER times the largest, since
    none fits well into what others leave free. Logits are too large to stay when they are freed."""
    largest: dict[str, float] = {}
    for one in moments:
        logits = one.work.get("logits", 0)
        large = logits if logits > LARGE else 0
        work = SCATTER * (sum(one.work.values()) - large) + large
        kind = one.doing.split(",")[0]
        largest[kind] = max(work, largest.get(kind, 0))
    return sum(largest.values())
