"""One frozen pydantic model a stage; YAML plus `--set a.b=c`; unknown keys are errors."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from nlakit.config_base import Count, Positive, Section, Share
from nlakit.config_labels import LabelsConfig, RequestsConfig, ServiceConfig
from nlakit.errors import ConfigError


class SubjectConfig(Section):
    """The model whose activations are read."""

    model: str = Field(default="gemma-3-270m", description="embedded name, local folder or hub id")
    revision: str | None = Field(default=None, description="hub revision")
    layer: Count = Field(default=12, description="K, 0-based block; reads the output of block K")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto: bfloat16 where the device multiplies it fast"
    )
    quantisation: Literal["nf4"] | None = Field(
        default=None, description="4-bit weights of the blocks; dtype is what they compute in"
    )
    ple_on_cpu: bool = Field(
        default=False, description="keep Gemma's per-layer embeddings in main memory"
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
        default="demo", description="'demo', a .txt/.jsonl/.csv/.parquet file, a folder"
    )
    dataset: str | None = Field(default=None, description="Hugging Face dataset name, streamed")
    subset: str | None = None
    dataset_split: str = "train"
    text_column: str = "text"
    id_column: str | None = None
    family: str | None = Field(
        default=None, description="source_family of all documents of the source"
    )
    family_column: str | None = None
    weight: float = Field(
        default=1.0, gt=0, description="share in the mix, relative to other sources"
    )
    limit: Positive | None = Field(
        default=None, description="documents read from this source at most"
    )


class CorpusConfig(Section):
    sources: tuple[SourceConfig, ...] = (SourceConfig(),)
    max_documents: Positive | None = None
    min_characters: Count = 400
    near_duplicate_share: Share = Field(
        default=0.5,
        description="drop a document sharing this much of its 8-word shingles with another",
    )


class ActivationsConfig(Section):
    positions_per_document: Positive = 8
    skip_first: Count = Field(default=50, description="tokens of a document that are never sampled")
    max_tokens: Positive = Field(default=256, description="tokens of a document that are read")
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
    lr: float = Field(gt=0, allow_inf_nan=False)
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    warmup: Count = 10
    end_factor: Share = Field(default=0.1, description="learning rate at the end, as a share of lr")


class LoraConfig(Section):
    r: Positive = 32
    alpha: float = Field(default=64.0, gt=0)


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
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
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
    phases: tuple[Phase, ...] = Field(default=(Phase(steps=250, lr=3e-4),), min_length=1)
    blocks: Positive | None = Field(default=None, description="AR depth; K + 1 unless given")
    contrastive_weight: float = Field(default=0.1, ge=0)
    contrastive_temperature: float = Field(default=0.1, gt=0)


class AVConfig(TrainConfig):
    phases: tuple[Phase, ...] = Field(default=(Phase(steps=160, lr=3e-4),), min_length=1)
    centring: bool = Field(default=True, description="inject u - mean unit vector instead of u")
    scale: Literal["embedding"] | float = Field(
        default="embedding",
        description="norm of the injected vector: the token embeddings', or a number",
    )
    allow_any_scale: bool = Field(default=False, description="skip the scale gate")


class DecodingConfig(Section):
    """How the pair's texts are drawn (greedily); recorded in the AV's contract."""

    max_new_tokens: Positive = 96
    no_repeat_ngram: Count = Field(
        default=3, description="no token n-gram twice in a text; 0 is off"
    )


class PairConfig(TrainConfig):
    """Adaptation of the AR to the AV's own texts for training rows."""

    phases: tuple[Phase, ...] = Field(default=(Phase(steps=60, lr=1e-4),), min_length=1)
    rows: Positive = Field(default=480, description="training rows whose AV text is generated")
    label_share: Share = Field(
        default=0.25, description="share of each batch that keeps teacher labels"
    )
    generate_batch: Positive = 48
    contrastive_weight: float = Field(default=0.1, ge=0)
    contrastive_temperature: float = Field(default=0.1, gt=0)


class EvalConfig(Section):
    profile: Literal["quick", "full"] = Field(
        default="quick", description="quick: minutes; full: everything that needs no service"
    )
    rows: Positive = 96
    control_rows: Positive = Field(
        default=24, description="rows of every part that decodes or reads many texts a row"
    )
    samples: Positive = Field(default=4, description="sampled texts a row (full)")
    temperature: float = Field(default=1.0, gt=0, description="of the sampled texts")
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


class ReportConfig(Section):
    rows: Positive = Field(default=20, description="rows shown in full")


class StartConfig(Section):
    """Halves whose training goes on here with other settings; the new one names its parent."""

    ar: str | None = Field(default=None, description="folder of a trained AR")
    av: str | None = Field(default=None, description="folder of a trained AV")


class RunConfig(Section):
    """Everything that decides what a run computes."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(default=0, strict=True)
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
    eval: EvalConfig = EvalConfig()
    report: ReportConfig = ReportConfig()
    start: StartConfig | None = Field(default=None, description="halves to go on from")

    @model_validator(mode="after")
    def _positions_exist(self) -> RunConfig:
        if self.activations.max_tokens <= self.activations.skip_first:
            raise ValueError("activations.max_tokens must exceed activations.skip_first")
        return self


def config_hash(config: RunConfig, sections: Sequence[str]) -> str:
    """SHA-256 of the named sections: what a stage's result depends on besides its parents."""
    data = config.model_dump(mode="json")
    picked = {name: data[name] for name in sections if data[name] is not None}
    return hashlib.sha256(json.dumps(picked, sort_keys=True).encode()).hexdigest()


class _UniqueKeys(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; a setting given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in own]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(
                "a setting is given twice",
                found=f"{', '.join(twice)} near line {node.start_mark.line + 1}",
                do="keep one",
            )
        return super().construct_mapping(node, deep)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML configuration and apply `a.b=c` overrides (values are parsed as YAML).

    Raises ConfigError for a missing file, broken YAML, an unknown key or a bad value.
    """
    path = Path(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the configuration {path}",
            found=str(error),
            do="give the path of a YAML file; examples/ has some",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML", found=str(error).replace("\n", " ")) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a mapping of settings", found=type(data).__name__)
    with_overrides(data, overrides)
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "run")
    return parse_config(data, where=str(path))


def with_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with `a.b=c` settings in it; ConfigError for one that is none."""
    for override in overrides:
        _apply_override(data, override)
    return data


def parse_config(data: dict[str, Any], where: str = "configuration") -> RunConfig:
    """Validate a mapping; every problem goes into one ConfigError."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc']) or 'top level'}: {item['msg']}"
            + (f" (got {item['input']!r})" if not isinstance(item["input"], dict) else "")
            for item in error.errors()
        ]
        raise ConfigError(
            f"{where} has {len(problems)} bad setting(s)",
            found=" | ".join(problems),
            do="`nlakit config` prints every setting with its meaning and default",
        ) from error


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError("--set takes a.b=value", found=override)
    *parents, leaf = key.split(".")
    node: Any = data
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {part} is not a section", found=override)
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not YAML", found=value) from error


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
