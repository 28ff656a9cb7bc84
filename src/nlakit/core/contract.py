"""nla_meta.yaml: the sidecar that lies beside every table and checkpoint.

The schema is that of the reference implementation plus an `nlakit` block. `av`/`ar` are
written; the `actor`/`critic` spelling of foreign files is read too.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from nlakit.core.injection import Injection
from nlakit.core.prompts import marker_neighbours, suffix_ids
from nlakit.core.scaling import Scaling
from nlakit.errors import ContractError

FILE = "nla_meta.yaml"
FOREIGN = {"actor": "av", "critic": "ar"}
UNKNOWN_INJECTION = "unknown"
Norm = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Part(BaseModel):
    """Foreign sidecars carry keys of their own: they are kept, not refused."""

    model_config = ConfigDict(extra="allow")


class Extraction(Part):
    base_model: str
    layer_index: int = Field(ge=0)
    norm: str = "none"
    injection_scale: Norm | Literal["sqrt_d_model"] | None = "sqrt_d_model"
    mse_scale: Norm | Literal["sqrt_d_model"] | None = "sqrt_d_model"

    @field_validator("injection_scale", "mse_scale", mode="before")
    @classmethod
    def _raw(cls, value: Any) -> Any:
        return None if value in ("raw", "none") else value


class Tokens(Part):
    """Ids are -1 where a foreign sidecar leaves them out (that of an AR, say)."""

    injection_char: str = ""
    injection_token_id: int = -1
    injection_left_neighbor_id: int = -1
    injection_right_neighbor_id: int = -1
    critic_suffix_ids: list[int] = Field(default_factory=list)

    @field_validator("critic_suffix_ids", mode="before")
    @classmethod
    def _absent(cls, value: Any) -> Any:
        return [] if value is None else value


class Templates(Part):
    av: str = ""
    ar: str = ""

    @model_validator(mode="before")
    @classmethod
    def _spelling(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {FOREIGN.get(key, key): value or "" for key, value in data.items()}
        return data


class Provenance(Part):
    """The nlakit block: what else must be known to use or judge the file.

    injection: how the vector enters the AV; None is the reference's way, in place of the marker's
    embedding. injection_source: where an imported half's comes from. ar_bos: whether the AR's
    prompt begins with what the tokenizer puts in front.
    """

    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str | None = None
    config_hash: str | None = None
    data_sha256: str | None = None
    subject_sha256: str | None = None
    subject_precision: str = "bfloat16"
    role: Literal["av", "ar", "table"] = "table"
    centring: Literal["none", "mean_unit"] = "none"
    ar_blocks: int | None = None
    ar_bos: bool = True
    av_open: str = ""
    av_close: str = ""
    centred_scale: Norm | None = None
    injection: Injection | None = None
    injection_source: str | None = None
    ple_on_cpu: bool = False
    revision: str | None = None
    bos: Literal["add", "tokenizer"] = "tokenizer"
    special_tokens: Literal["text", "parse"] = "text"
    chat_template: Literal["plain"] | None = None
    max_tokens: int = 256
    max_new_tokens: int = 96
    no_repeat_ngram: int = 0
    repetition_penalty: float = 1.0
    embedding_norm: float | None = None
    activation_norm: float | None = None
    mean_unit_file: str | None = None
    baseline: float | None = None
    baseline_source: str | None = None
    parent: str | None = None
    scores: dict[str, Any] = Field(default_factory=dict)


class Contract(Part):
    """The whole sidecar."""

    kind: Literal["nla_dataset", "nla_model"]
    d_model: int = Field(gt=0)
    extraction: Extraction
    tokens: Tokens = Field(default_factory=Tokens)
    prompt_templates: Templates = Field(default_factory=Templates)
    ar: dict[str, Any] = Field(default_factory=dict)
    nlakit: Provenance = Field(default_factory=Provenance)

    @model_validator(mode="before")
    @classmethod
    def _spelling(cls, data: Any) -> Any:
        """Foreign files say `critic` for `ar`, and put width, layer and base model elsewhere."""
        if not isinstance(data, dict) or not isinstance(data.get("extraction", {}), dict):
            return data
        data = dict(data)
        ar = data.pop("critic", None) or data.get("ar")
        data["ar"] = ar if isinstance(ar, dict) else {}
        extraction = dict(data.get("extraction", {}))
        for name, other in (
            ("base_model", data.get("base_model")),
            ("layer_index", extraction.get("layer")),
            ("layer_index", data.get("extraction_layer_index")),
            ("layer_index", data["ar"].get("num_hidden_layers")),
        ):
            if extraction.get(name) is None and other is not None:
                extraction[name] = other
        if data.get("d_model") is None and extraction.get("d_model") is not None:
            data["d_model"] = extraction["d_model"]
        return data | {"extraction": extraction}

    @property
    def layer(self) -> int:
        return self.extraction.layer_index

    @property
    def ar_blocks(self) -> int:
        """Blocks of the AR: what nlakit recorded, or K + 1."""
        return self.nlakit.ar_blocks or self.layer + 1

    @property
    def scaling(self) -> Scaling:
        scale = self.extraction.injection_scale
        if scale == "sqrt_d_model":
            scale = math.sqrt(self.d_model)
        return Scaling(scale, self.nlakit.centring == "mean_unit")

    @property
    def injection(self) -> Injection:
        return self.nlakit.injection or Injection()

    def difference(
        self, other: Contract, base_model: str | None = None
    ) -> tuple[str, Any, Any] | None:
        """The first of subject, layer, width and BOS in which the activations of two contracts
        differ, with both values. A `base_model` stands for the subjects that they name."""
        pairs = {
            "subject": [base_model or c.extraction.base_model for c in (self, other)],
            "layer": [self.layer, other.layer],
            "width": [self.d_model, other.d_model],
            "bos": [self.nlakit.bos, other.nlakit.bos],
        }
        return next(((name, *two) for name, two in pairs.items() if two[0] != two[1]), None)

    def av_prompt(self) -> str:
        """The AV prompt with the marker in place."""
        return self.prompt_templates.av.replace("{marker}", self.tokens.injection_char)

    def ar_prompt(self, explanation: str) -> str:
        """The AR prompt of one explanation."""
        return self.prompt_templates.ar.replace("{explanation}", explanation)

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Raise ContractError if the live tokenizer disagrees with what is recorded."""
        tokens = self.tokens
        live: tuple[Any, ...] = ()
        if self.prompt_templates.av:
            live = marker_neighbours(tokenizer, self.prompt_templates.av, tokens.injection_char)
            saved = (
                tokens.injection_left_neighbor_id,
                tokens.injection_token_id,
                tokens.injection_right_neighbor_id,
            )
            if live != saved:
                raise ContractError(
                    "the tokenizer disagrees with nla_meta.yaml on the marker",
                    found=f"live ids {list(live)}, recorded {list(saved)}",
                    do="load the tokenizer the checkpoint was trained with",
                )
        if self.prompt_templates.ar and tokens.critic_suffix_ids:
            suffix = suffix_ids(tokenizer, self.prompt_templates.ar)
            recorded = tokens.critic_suffix_ids
            shared = min(len(suffix), len(recorded))
            if not shared or suffix[-shared:] != recorded[-shared:]:
                raise ContractError(
                    "the tokenizer disagrees with nla_meta.yaml on the AR's suffix",
                    found=f"live ids {suffix}, recorded {recorded}",
                    do="load the tokenizer the checkpoint was trained with",
                )

    def check_bos(self, bos: str) -> None:
        """Raise ContractError unless texts begin as recorded; `bos` is the subject's setting."""
        if bos != self.nlakit.bos:
            raise ContractError(
                "the subject's texts begin otherwise than the contract says",
                found=f"subject.bos {bos}, recorded {self.nlakit.bos}",
                do=f"set subject.bos: {self.nlakit.bos}",
            )

    def check_width(self, width: int, where: str) -> None:
        """Raise ContractError unless `width` is d_model."""
        if width != self.d_model:
            raise ContractError(
                f"{where} has another width than the contract",
                found=f"{width} instead of {self.d_model}",
                do="use vectors of the subject and layer named in nla_meta.yaml",
            )

    def write(self, path: Path) -> None:
        """Write the sidecar; `path` is the file itself."""
        data = self.model_dump(mode="json", exclude_none=False)
        if self.nlakit.injection_source == UNKNOWN_INJECTION:
            del data["extraction"]["injection_scale"]  # nobody has said it
        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def table_sidecar(table: Path) -> Path:
    """`{parquet}.nla_meta.yaml`, the sidecar of a table."""
    return table.with_name(f"{table.name}.{FILE}")


def read_contract(path: Path) -> Contract:
    """Read a sidecar (its file, or the checkpoint folder that holds it).

    Raises ContractError if it is missing, is not YAML, or does not follow the schema.
    """
    file = path / FILE if path.is_dir() else path
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        return Contract.model_validate(data)
    except OSError as error:
        raise ContractError(
            f"no sidecar {file}",
            found=error.strerror,
            do="give the folder of a trained half, or of a run",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ContractError(
            f"{file} is not YAML",
            found=str(error).replace("\n", " "),
            do="copy the file again from where the half was made",
        ) from error
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ContractError(
            f"{file} does not follow the schema",
            found=problems,
            do="mend these keys, or copy the file again from where the half was made",
        ) from error
