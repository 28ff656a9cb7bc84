"""One frozen pydantic model a stage; unknown keys are errors."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from nlakit.config.base import (
    Count,
    Measure,
    Positive,
    Section,
    Share,
    Temperature,
    Weight,
)
from nlakit.config.labels import LabelsConfig, RequestsConfig, ServiceConfig
from nlakit.config.rl import RLSettings


def left_out(value: object) -> bool:
    """Whether a setting is as good as absent: then no hash has it, and finished runs stay fresh."""
    return value is None


class SubjectConfig(Section):
    """The model whose activations are read."""

    model: str = Field(
        default="gemma-3-270m", description="embedded name, folder, GGUF file or hub id"
    )
    revision: str | None = Field(default=None, description="hub revision")
    layer: Count = Field(
        default=12,
        description="K, 0-based block; reads the output of block K. Left out: at two thirds of the "
        "model's depth",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto: bfloat16 where the device multiplies it fast"
    )
    quantisation: Literal["nf4"] | None = Field(
        default=None, description="4-bit weights of the blocks; dtype is what they compute in"
    )
    ple_on_cpu: bool = Field(
        default=False, description="keep Gemma's per-layer embeddings in main memory"
    )
    bos: Literal["auto", "add", "tokenizer"] = Field(
        default="auto",
        description="the token that begins a text: put there by nlakit, left to the tokenizer, or "
        "added where the tokenizer leaves out one that the model needs",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:0, mps")
    trust_remote_code: bool = Field(
        default=False, description="run Python code that comes with the model: it can do anything"
    )

    @property
    def precision(self) -> str:
        """What the contract records: `bfloat16`, or `nf4+bfloat16` if quantised."""
        return f"{self.quantisation}+{self.dtype}" if self.quantisation else self.dtype


def precision_settings(precision: str) -> dict[str, str | None]:
    """The settings that a recorded precision stands for."""
    quantisation, _, dtype = precision.rpartition("+")
    return {"quantisation": quantisation or None, "dtype": dtype}


class SourceConfig(Section):
    """One source of documents: the embedded demo corpus, a file or a Hugging Face dataset."""

    path: str = Field(
        default="demo",
        description="'demo', a folder, or .txt, .jsonl, .json, .csv (also .gz, .zst), .parquet",
    )
    dataset: str | None = Field(default=None, description="Hugging Face dataset name, streamed")
    subset: str | None = None
    dataset_split: str = "train"
    text_column: str = "text"
    messages_column: str | None = Field(
        default=None,
        description="column of conversations, lists of {role, content}, in place of texts",
        exclude_if=left_out,
    )
    id_column: str | None = None
    family: str | None = Field(
        default=None, description="source_family of all documents of the source"
    )
    family_column: str | None = None
    weight: Measure = Field(default=1.0, description="share in the mix, relative to other sources")
    limit: Positive | None = Field(
        default=None, description="documents read from this source at most"
    )


class CorpusConfig(Section):
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    max_documents: Positive | None = None
    min_characters: Count = 400
    special_tokens: Literal["text", "parse"] = Field(
        default="text",
        description="what a `<eos>` or `<start_of_turn>` written in a document is: letters, or "
        "that token (ready-made chats)",
    )
    chat_template: Literal["plain"] | None = Field(
        default=None,
        description="plain: a transcript in plain words, where the subject has no chat template",
        exclude_if=left_out,
    )
    near_duplicate_share: Share = Field(
        default=0.5,
        description="drop a document sharing this much of its 8-word shingles with another",
    )

    @property
    def holds_conversations(self) -> bool:
        return any(source.messages_column for source in self.sources)


class ActivationsConfig(Section):
    positions_per_document: Positive = 8
    skip_first: Count = Field(default=50, description="tokens of a document that are never sampled")
    max_tokens: Positive = Field(default=256, description="tokens of a document that are read")
    roles: tuple[str, ...] | None = Field(
        default=None,
        description="whose words of a conversation are read: roles, `thinking`, `template`; the "
        "assistant's unless given",
        exclude_if=left_out,
    )
    extra_layers: tuple[Count, ...] = Field(
        default=(), description="more layers taken in the same pass"
    )
    expected_tokens: Count = Field(
        default=5,
        description="the subject's likeliest next tokens kept a row; 0 skips blocks above K",
    )
    tokens_per_batch: Positive = 2048
    documents_per_chunk: Positive = 128


class SplitConfig(Section):
    """Shares of the documents; they are normalised to sum to one."""

    av: Share = 0.40
    ar: Share = 0.40
    rl: Share = 0.08
    test: Share = 0.12

    @model_validator(mode="after")
    def _some(self) -> SplitConfig:
        if not self.av + self.ar + self.rl + self.test > 0:
            raise ValueError("the shares of the split sum to zero: give at least one part a share")
        return self


class TablesConfig(Section):
    source: str | None = Field(
        default=None, description="folder of `nlakit import`ed tables, in place of own rows"
    )
    marker: str | None = Field(
        default=None, description="marker character; found by search if not given"
    )
    av_template: str = "<concept>{marker}</concept> <explanation>"
    av_close: str = "</explanation>"
    ar_template: str = "Summary of the following text: <text>{explanation}</text> <summary>"


class Phase(Section):
    """A stretch of training with one learning-rate schedule."""

    steps: Positive
    lr: float = Field(default=5e-4, gt=0, le=1.0, description="left out: by the model's width")
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    warmup: Count | None = Field(default=None, description="a twentieth of the steps unless given")
    end_factor: Share = Field(default=0.1, description="learning rate at the end, as a share of lr")


class LoraConfig(Section):
    r: Positive = 32
    alpha: Measure = 64.0


class TrainConfig(Section):
    """What every training stage shares."""

    phases: tuple[Phase, ...] = Field(min_length=1)
    batch_rows: Positive = 16
    accumulation: Positive = 1
    max_tokens: Positive = Field(default=256, description="longer texts are cut")
    lora: LoraConfig | None = Field(
        default=LoraConfig(), description="adapters; null trains all weights of the half"
    )
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        default="adamw", description="adamw8bit: states of 8 bits, by bitsandbytes"
    )
    weight_decay: Weight = 0.0
    clip_norm: Measure = 1.0
    gradient_checkpointing: bool = False
    checkpoint_every: Positive = 50
    measure_every: Positive = 50
    measure_rows: Positive = 64
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    @property
    def rank(self) -> int:
        """Rank of the adapters; 0 where all weights are trained."""
        return self.lora.r if self.lora else 0

    @property
    def optimizer_bits(self) -> int:
        """Of the optimizer's states."""
        return 8 if self.optimizer == "adamw8bit" else 32


class ARConfig(TrainConfig):
    phases: tuple[Phase, ...] = Field(default=(Phase(steps=250),), min_length=1)
    blocks: Positive | None = Field(default=None, description="AR depth; K + 1 unless given")
    contrastive_weight: Weight = 0.1
    contrastive_temperature: Temperature = 0.1


class AVConfig(TrainConfig):
    phases: tuple[Phase, ...] = Field(default=(Phase(steps=160),), min_length=1)
    injection: Literal["blocks", "reference", "add"] = Field(
        default="blocks",
        description="where the vector enters, at the marker: in place of its embedding and of its "
        "row behind each block up to K (blocks); of its embedding alone, as the reference's client "
        "feeds it (reference); added at the row's norm behind block 1 (add)",
    )
    injection_blocks: tuple[Count, ...] | None = Field(
        default=None, min_length=1, description="behind which blocks instead (blocks, add)"
    )
    centring: bool = Field(default=False, description="inject u - mean unit vector instead of u")
    scale: Literal["embedding"] | Measure = Field(
        default="embedding",
        description="norm of the injected vector: the token embeddings', or a number",
    )
    allow_any_scale: bool = Field(default=False, description="skip the scale gate")

    @model_validator(mode="after")
    def _blocks_have_a_use(self) -> AVConfig:
        if self.injection_blocks is not None and self.injection == "reference":
            raise ValueError("injection_blocks are not used by injection: reference")
        return self


class DecodingConfig(Section):
    """How the pair's texts are drawn (greedily); recorded in the AV's contract."""

    max_new_tokens: Positive = 96
    no_repeat_ngram: Count = Field(
        default=3, description="no token n-gram twice in a text; 0 is off"
    )
    repetition_penalty: float = Field(
        default=1.2, ge=1, le=2, description="of a word that the text has said; 1 is off"
    )


class PairConfig(TrainConfig):
    """Adaptation of the AR to the AV's own texts for training rows."""

    phases: tuple[Phase, ...] = Field(default=(Phase(steps=60),), min_length=1)
    rows: Positive = Field(default=480, description="training rows whose AV text is generated")
    label_share: Share = Field(
        default=0.25, description="share of each batch that keeps teacher labels"
    )
    generate_batch: Positive = 48
    contrastive_weight: Weight = 0.1
    contrastive_temperature: Temperature = 0.1


class RLConfig(TrainConfig, RLSettings):
    """Joint RL of both halves, behind the adaptation of the AR; batch_rows are vectors a step."""

    phases: tuple[Phase, ...] = Field(
        default=(Phase(steps=200, schedule="constant"),), min_length=1
    )
    checkpoint_every: Positive = 10
    measure_every: Positive = 20

    @model_validator(mode="after")
    def _one_batch_a_step(self) -> RLConfig:
        if self.accumulation != 1:
            raise ValueError("accumulation has no use in RL: texts_per_pass bounds a pass")
        return self


class EvalConfig(Section):
    profile: Literal["quick", "full"] = Field(
        default="quick", description="quick: minutes; full: everything that needs no service"
    )
    rows: Positive = 96
    control_rows: Positive = Field(
        default=24, description="rows of every part that decodes or reads many texts a row"
    )
    samples: Positive = Field(default=4, description="sampled texts a row (full)")
    temperature: Temperature = Field(default=1.0, description="of the sampled texts")
    embedding: str | None = Field(
        default=None,
        description="sentence embedding model: folder or hub id; the packaged MiniLM if installed",
    )
    judge: ServiceConfig | None = Field(
        default=None, description="language-model service for claims, rewrites and judgements"
    )
    judge_rows: Positive = Field(default=20, description="rows that the judge sees")
    generate_batch: Positive = 96
    permutations: Positive = 1000
    layers: tuple[Count, ...] = Field(
        default=(), description="other layers of the subject at which the pair is tried too"
    )

    @model_serializer(mode="wrap")
    def _as_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `layers` where there are none: what was evaluated before is not stale."""
        found = handler(self)
        return found if self.layers else {k: v for k, v in found.items() if k != "layers"}


class ReportConfig(Section):
    rows: Positive = Field(default=20, description="rows shown in full")


class WatchConfig(Section):
    """What is done about a training while it runs; no stage's result depends on it."""

    stop_if_blind: bool = Field(
        default=False, description="end a training of which two measurements show nothing read"
    )


class StartConfig(Section):
    """Halves whose training goes on here with other settings; the new one names its parent."""

    ar: str | None = Field(default=None, description="folder of a trained AR")
    av: str | None = Field(default=None, description="folder of a trained AV")


class RunConfig(Section):
    """Everything that decides what a run computes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, ge=0, lt=2**63, strict=True)
    subject: SubjectConfig = SubjectConfig()
    corpus: CorpusConfig = CorpusConfig()
    activations: ActivationsConfig = ActivationsConfig()
    split: SplitConfig = SplitConfig()
    labels: LabelsConfig = LabelsConfig()
    requests: RequestsConfig = RequestsConfig()
    tables: TablesConfig = TablesConfig()
    ar: ARConfig = ARConfig()
    av: AVConfig = AVConfig()
    decoding: DecodingConfig = DecodingConfig()
    pair: PairConfig = PairConfig()
    rl: RLConfig | None = Field(default=None, description="joint RL, in stage pair, if given")
    eval: EvalConfig = EvalConfig()
    report: ReportConfig = ReportConfig()
    watch: WatchConfig = WatchConfig()
    start: StartConfig | None = Field(default=None, description="halves to go on from")

    @model_validator(mode="after")
    def _positions_exist(self) -> RunConfig:
        if self.activations.max_tokens <= self.activations.skip_first:
            raise ValueError("activations.max_tokens must exceed activations.skip_first")
        return self
