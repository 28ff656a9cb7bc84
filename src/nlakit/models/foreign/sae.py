"""Decoder directions of sparse autoencoders that others trained, and what they were trained on.

Three layouts are read: that of SAELens (`cfg.json`, `sae_weights.safetensors`), with the names that
its versions give to things; Gemma Scope 2 (`config.json`, `params.safetensors`); and Gemma Scope
(`params.npz`, whose files name neither model nor layer).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.contract import Contract
from nlakit.errors import ConfigError, ContractError, first_line
from nlakit.models.foreign.folders import read_json
from nlakit.models.lora import read_rows, tensor_shapes

# Weights file → the settings beside it, and the decoder's name.
LAYOUTS = {
    "sae_weights.safetensors": ("cfg.json", "W_dec"),
    "params.safetensors": ("config.json", "w_dec"),
    "params.npz": (None, "W_dec"),
}
# Where an SAE reads → how many blocks before the one whose output that is.
RESIDUAL = {
    re.compile(r"blocks\.(\d+)\.hook_resid_post"): 0,
    re.compile(r"blocks\.(\d+)\.hook_resid_pre"): 1,
    re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)(?:\.output)?"): 0,
}
SAME_MODEL = {"gpt2-small": "gpt2"}
STATE = "if it reads the pair's activations, say so: --sae-of NAME:LAYER"


@dataclass(frozen=True)
class Sae:
    """An SAE's decoder `(m, d)`, and the model and block whose output it was trained on; None
    where neither its files nor the user say so."""

    weights: Path
    decoder: str
    features: int
    width: int
    subject: str | None
    layer: int | None

    def directions(self, features: Sequence[int]) -> NDArray[np.float32]:
        """Decoder rows `(n, d)` of some features.

        Raises ConfigError for a feature that is not there, ContractError for rows that are not
        finite.
        """
        if beyond := [feature for feature in features if feature >= self.features]:
            raise ConfigError(
                f"the SAE has no feature {beyond[0]}",
                found=f"{self.features} features",
                do=f"give 0 to {self.features - 1}",
            )
        if self.weights.suffix == ".npz":
            found = _array(self.weights, self.decoder)[list(features)].astype(np.float32)
        else:
            found = read_rows(self.weights, self.decoder, features)
        if not np.isfinite(found).all():
            raise ContractError(
                f"{self.weights} has decoder rows that are not finite", do="leave them out"
            )
        return found

    def check(self, contract: Contract) -> None:
        """Raise ContractError unless the SAE reads what the pair reads: subject, layer, width."""
        pairs = {
            "width": (self.width, contract.d_model),
            "layer": (self.layer, contract.layer),
            "subject": (self.subject, contract.extraction.base_model),
        }
        for name, (own, wanted) in pairs.items():
            if own is None:
                raise ContractError(f"{self.weights.parent} does not say its {name}", do=STATE)
            if own == wanted or (name == "subject" and model_key(own) == model_key(wanted)):
                continue
            raise ContractError(
                f"the SAE has another {name} than the pair",
                found=f"{own}, and {wanted} of the pair",
                do=STATE if name == "subject" else "take the SAE of the pair's subject and layer",
            )


def open_sae(path: Path, trained_on: str | None = None) -> Sae:
    """The SAE in a folder, or of a weights file in one; `trained_on` (`NAME:LAYER`, the block whose
    output it reads) stands for what its files say or leave open.

    Raises ContractError if no SAE lies there, a file is damaged, or it reads or writes elsewhere
    than the residual stream behind a block; ConfigError for another form of `trained_on`.
    """
    weights = _weights_at(path)
    settings, decoder = LAYOUTS[weights.name]
    shape = _shape(weights, decoder)
    if len(shape) != 2:
        raise ContractError(
            f"{decoder} in {weights} is no matrix", found=f"shape {shape}", do="give one SAE's file"
        )
    subject = layer = None
    if trained_on is not None:
        subject, layer = _stated(trained_on)
    elif settings is not None:
        subject, layer = _read(weights.parent, read_json(weights.parent / settings))
    return Sae(weights, decoder, *shape, subject, layer)


def model_key(name: str) -> str:
    """A model's name without its owner, in the spelling that all have in common: libraries of SAEs
    name models without their owners, and Gemma's with or without `-pt`."""
    last = re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower().removesuffix("-pt")
    return SAME_MODEL.get(last, last)


def parse_features(text: str) -> list[int]:
    """Features of `0-99`, `3,17` or both, in their order, each once.

    Raises ConfigError for another form.
    """
    found: dict[int, None] = {}
    for part in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ConfigError(
                "--features takes numbers and ranges", found=text, do="for example 0-99 or 3,17"
            )
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def _weights_at(path: Path) -> Path:
    if path.name in LAYOUTS and path.is_file():
        return path
    found = next((path / name for name in LAYOUTS if (path / name).is_file()), None)
    if found is None:
        raise ContractError(
            f"no SAE in {path}",
            found="no such folder" if not path.exists() else "none of its files",
            do=f"give a folder with one of {', '.join(LAYOUTS)}",
        )
    return found


def _stated(trained_on: str) -> tuple[str, int]:
    name, _, layer = trained_on.rpartition(":")
    if not name or not re.fullmatch(r"\d{1,4}", layer, re.ASCII):
        raise ConfigError(
            "--sae-of takes the model and the layer",
            found=trained_on,
            do="for example google/gemma-2-2b:20",
        )
    return name, int(layer)


def _read(folder: Path, given: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Subject and layer as settings name them: SAELens keeps them in `metadata` since version 6."""
    inner = given.get("metadata")
    known = {**given, **(inner if isinstance(inner, dict) else {})}
    hook = known.get("hook_name") or known.get("hook_point") or known.get("hf_hook_point_in")
    out = known.get("hook_name_out") or known.get("hf_hook_point_out") or hook
    kind = str(known.get("architecture") or "")
    if "transcoder" in kind or out != hook:
        raise ContractError(
            f"{folder} holds a transcoder: its directions are not those of what it reads",
            found=f"{hook} to {out}" if out != hook else kind,
            do="give an SAE of the residual stream",
        )
    name = known.get("model_name")
    return (str(name) if name else None), None if hook is None else _layer(folder, str(hook))


def _layer(folder: Path, hook: str) -> int:
    for pattern, before in RESIDUAL.items():
        match = pattern.fullmatch(hook)
        if match and (layer := int(match[1]) - before) >= 0:
            return layer
    raise ContractError(
        f"the SAE in {folder} does not read the output of a block",
        found=hook,
        do="give an SAE of the residual stream behind the pair's layer",
    )


def _shape(weights: Path, decoder: str) -> tuple[int, ...]:
    shapes = (
        {decoder: _array(weights, decoder).shape}
        if weights.suffix == ".npz"
        else tensor_shapes(weights)
    )
    if decoder not in shapes:
        raise ContractError(
            f"{weights} has no {decoder}", found=", ".join(shapes), do="give the whole SAE"
        )
    return shapes[decoder]


def _array(weights: Path, name: str) -> NDArray[Any]:
    try:
        with np.load(weights, allow_pickle=False) as found:
            if name not in found.files:
                raise ContractError(
                    f"{weights} has no {name}",
                    found=", ".join(found.files),
                    do="give the whole SAE",
                )
            return found[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ContractError(
            f"{weights} is damaged", found=first_line(error), do="copy it again"
        ) from error
