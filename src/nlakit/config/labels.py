"""Labelling settings: who labels, with which prompts, and how services are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from nlakit.config.base import Count, Measure, Positive, Section, Share, Weight
from nlakit.core.text.lint import Limits


class ServiceConfig(Section):
    """A language model that writes or audits labels. Its key comes from the environment only."""

    kind: Literal["anthropic", "openai", "google", "compatible", "tool"] = Field(
        description="whose API; compatible: any server that speaks OpenAI's; tool: a command"
    )
    model: str = Field(default="", description="the service's name for the model")
    base_url: str | None = Field(default=None, description="address of a compatible server")
    key_variable: str | None = Field(
        default=None, description="environment variable that holds the key, if not the usual one"
    )
    command: tuple[str, ...] = Field(
        default=(), description="the tool and its options; the prompt goes to its standard input"
    )
    temperature: float | None = Field(
        default=None, ge=0, le=100, description="the service's own if null"
    )
    max_tokens: Positive = Field(default=600, description="longest answer")
    token_limit_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        default=None,
        description="what a server calls max_tokens; of kind openai the second if null, else the "
        "first",
    )
    options: dict[str, JsonValue] = Field(
        default_factory=dict, description="more settings of the model, as pydantic-ai names them"
    )

    @model_validator(mode="after")
    def _complete(self) -> ServiceConfig:
        needs = {"compatible": "base_url", "tool": "command"}.get(self.kind, "model")
        if not getattr(self, needs):
            raise ValueError(f"a service of kind {self.kind} needs {needs}")
        taken = {"max_tokens", "temperature", "timeout", "max_retries"} & set(self.options)
        if self.token_limit_field and self.kind not in ("openai", "compatible"):
            raise ValueError(f"a service of kind {self.kind} has no token_limit_field")
        if taken:
            raise ValueError(f"options cannot set {', '.join(sorted(taken))}: nlakit does")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Unset, the field is left out: answers and labels made before it existed stay good."""
        data = dump(self)
        if self.token_limit_field is None:
            data.pop("token_limit_field", None)
        return data

    @property
    def name(self) -> str:
        """What provenance and prices call it."""
        if self.kind == "tool":
            return f"tool:{self.model or Path(self.command[0]).stem}"
        return f"{self.kind}:{self.model or 'default'}"

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides an answer, which the key does not."""
        return self.model_dump(mode="json", exclude={"key_variable"})


class PromptsConfig(Section):
    """Files that replace nlakit's own prompts."""

    labeler: str | None = Field(default=None, description="file with {text}; nlakit's own if null")
    auditor: str | None = Field(default=None, description="file with {text} and {label}")
    rubric: str | None = Field(default=None, description="what both are told a good label is")


class LabelFileConfig(Section):
    """Labels that somebody made before: Parquet, JSONL or CSV."""

    path: str
    columns: dict[str, str] = Field(
        default_factory=dict, description="nlakit's column: the file's, where they differ"
    )


class LabelsConfig(Section):
    labeler: Literal["offline", "services", "file"] = Field(
        default="offline", description="offline needs no key; file: labels made before"
    )
    services: tuple[ServiceConfig, ...] = Field(
        default=(), description="the labeler, then those that take over where it fails a row"
    )
    auditor: ServiceConfig | None = Field(
        default=None, description="set as a service is; no audit if null"
    )
    prompts: PromptsConfig = PromptsConfig()
    file: LabelFileConfig | None = Field(
        default=None, description="path, and columns: {nlakit's: the file's}"
    )
    max_characters: Positive = Field(
        default=6000, description="of a text that a service is shown: its end"
    )
    min_words: Positive = Field(default=6, description="shorter labels are refused")
    max_words: Positive = Field(default=220, description="longer labels are refused")
    max_copied_words: Positive = Field(default=12, description="source words in a row")
    max_duplicate_share: Share = Field(
        default=0.05, description="labelling fails above this share of labels equal to another's"
    )
    rows_per_chunk: Positive = 2000

    @model_validator(mode="after")
    def _complete(self) -> LabelsConfig:
        needs = {"services": self.services, "file": self.file, "offline": True}
        if not needs[self.labeler]:
            raise ValueError(f"labeler: {self.labeler} needs labels.{self.labeler}")
        return self

    @property
    def personas(self) -> tuple[ServiceConfig, ...]:
        """All services that are asked."""
        return (*self.services, *((self.auditor,) if self.auditor else ()))

    @property
    def limits(self) -> Limits:
        """What the linter allows."""
        return Limits(self.min_words, self.max_words, self.max_copied_words)


class RequestsConfig(Section):
    """How services are asked, and how much may be spent. Nothing here changes a label."""

    store: str | None = Field(
        default=None,
        description="every answer ever paid for; answers.sqlite beside the run folder if null",
    )
    prices: str | None = Field(default=None, description="a price table of your own")
    max_cost: Weight | None = Field(
        default=None, description="US dollars that this run may spend, restarts included"
    )
    max_requests: Count | None = Field(default=None, description="requests, restarts included")
    max_rows: Positive | None = Field(default=None, description="rows labelled in one sitting")
    concurrency: int = Field(default=16, gt=0, le=10_000, description="requests in flight at most")
    attempts: Positive = Field(default=6, description="useless answers until a row is given up")
    timeout: Measure = Field(default=120.0, description="seconds a request may take")
    patience: Measure = Field(
        default=120.0, description="seconds without any answer until a service counts as dead"
    )
    wait_for_quota: bool = Field(
        default=True, description="sleep until a daily quota is back; else stop"
    )
    quota_reset_hour: float | None = Field(
        default=None, ge=0, lt=24, description="UTC; used where the service does not say"
    )
