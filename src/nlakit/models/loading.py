"""Load a pair, or one half of it: which files, over which subject, in which number format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from nlakit.config.sections import SubjectConfig, precision_settings
from nlakit.core.contract import Contract, Provenance, read_contract
from nlakit.errors import ConfigError, ContractError
from nlakit.models.foreign import kitft, peft_pair
from nlakit.models.foreign.folders import find_halves, inside, kind_of
from nlakit.models.foreign.injection import settle_injection
from nlakit.models.foreign.turn import Stated, check_stated, own_tokenizer, settle_prompt
from nlakit.models.lora import read_tensors
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, load_subject, load_tokenizer
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.progress import say

MEAN_FILE = "mean_unit.safetensors"


@dataclass(frozen=True)
class Halves:
    """Loaded halves over one subject; `measured` is the record of the half whose ū is `mean`."""

    subject: Subject
    av: Verbalizer | None
    ar: Reconstructor | None
    mean: NDArray[np.float32] | None
    measured: Provenance


@dataclass(frozen=True)
class Found:
    """Halves by role as their files describe them: folder, contract, format, and the precision they
    were made in; and the subject that is to be loaded under them."""

    folders: dict[str, Path]
    contracts: dict[str, Contract]
    kinds: dict[str, str]
    recorded: dict[str, str]
    subject: SubjectConfig


def load_halves(
    path: str | Path | Sequence[str | Path],
    device: str,
    base_model: str | None,
    precision: str | None,
    stated: Stated,
) -> Halves:
    """What `NLA.load` loads; arguments and errors as there."""
    found = checked_halves(path, device, base_model, precision, stated)
    folders, contracts, recorded = found.folders, found.contracts, found.recorded
    subject = load_subject(found.subject)
    if len(set(recorded.values())) > 1:
        said = ", ".join(f"the {role.upper()} {made_in}" for role, made_in in recorded.items())
        say(f"recorded precision: {said}; both run in {subject.config.precision}")
    means = {role: _read_mean(folders[role], contracts[role]) for role in folders}
    made = {
        role: _load_half(subject, kind, role, contracts[role], means[role], folders[role], stated)
        for role, kind in found.kinds.items()
    }
    return _together(subject, made, means)


def checked_halves(
    path: str | Path | Sequence[str | Path],
    device: str,
    base_model: str | None,
    precision: str | None,
    stated: Stated,
) -> Found:
    """The halves that `load_halves` would load, with whatever can be said against them before a
    model is loaded; arguments and errors as of `NLA.load`."""
    check_stated(stated.chat, stated.ar_bos)
    folders = find_halves(path)
    contracts = {role: read_contract(folder) for role, folder in folders.items()}
    if stated.ar_blocks is not None and "ar" in contracts:
        contracts["ar"].nlakit.ar_blocks = stated.ar_blocks
    one = next(iter(contracts.values()))
    for other in contracts.values():
        if found := one.difference(other, base_model):
            raise ContractError(
                f"the halves differ in their {found[0]}",
                found=f"{found[1]} and {found[2]}",
                do="load two halves made for the same activations",
            )
    kinds: dict[str, str] = {role: kind_of(folders[role], contracts[role]) for role in folders}
    for role, kind in kinds.items():
        ours = kind == "nlakit"
        settle_injection(contracts[role], role, folders[role], stated.injection, ours)
    recorded = {
        role: kitft.precision_of(folders[role])
        if kind == "kitft"
        else contracts[role].nlakit.subject_precision
        for role, kind in kinds.items()
    }
    subject = subject_of(one, next(iter(recorded.values())), base_model, precision, device)
    for role, kind in kinds.items():
        if kind != "nlakit":
            tokenizer = own_tokenizer(folders[role], load_tokenizer(subject))
            own = contracts[role].model_copy(deep=True)
            settle_prompt(own, folders[role], role, tokenizer, stated, reference=kind == "kitft")
    return Found(folders, contracts, kinds, recorded, subject)


def _load_half(
    subject: Subject,
    kind: str,
    role: str,
    contract: Contract,
    mean: NDArray[np.float32] | None,
    folder: Path,
    stated: Stated,
) -> Any:
    if kind == "kitft":
        return kitft.read(subject, contract, folder, role, mean, stated)
    if kind == "peft":
        return peft_pair.read(subject, contract, folder, role, mean, stated)
    if role == "av":
        return Verbalizer.load(subject, contract, mean, folder)
    return Reconstructor.load(subject, contract, folder)


def _together(
    subject: Subject, made: Mapping[str, Any], means: Mapping[str, NDArray[np.float32] | None]
) -> Halves:
    """The halves with one ū: the AR's first, and one that has a baseline before one without."""
    known = [role for role in ("ar", "av") if means.get(role) is not None]
    known.sort(key=lambda role: made[role].contract.nlakit.baseline is None)
    scorer = made[known[0]] if known else made.get("ar") or made["av"]
    mean = means[known[0]] if known else None
    return Halves(subject, made.get("av"), made.get("ar"), mean, scorer.contract.nlakit)


def subject_of(
    contract: Contract, recorded: str, base_model: str | None, precision: str | None, device: str
) -> SubjectConfig:
    """The subject that a contract names, with what the caller asks for in place of what is
    recorded.

    Raises ConfigError for an unknown precision, ContractError if the contract names no subject.
    """
    record = contract.nlakit
    chosen = {
        "model": base_model or contract.extraction.base_model,
        "layer": contract.layer,
        "revision": None if base_model else record.revision,
        "ple_on_cpu": record.ple_on_cpu,
        "bos": record.bos,
    }
    settings = precision_settings(precision or recorded) | {"device": device}
    if precision is None and settings["dtype"] == "bfloat16":
        settings["dtype"] = "auto"  # a device without bfloat16 units takes what it has
    try:
        return SubjectConfig.model_validate(chosen | settings)
    except ValidationError as error:
        problem = error.errors()[0]
        if precision and problem["loc"][0] in ("dtype", "quantisation"):
            raise ConfigError(
                "unknown --precision",
                found=precision,
                do="float32, bfloat16, float16, or nf4+ before one of these",
            ) from error
        raise ContractError(
            "the contract names a subject that cannot be loaded",
            found=f"{'.'.join(map(str, problem['loc']))}: {problem['input']!r}",
            do="give the subject with --base-model, or mend nla_meta.yaml",
        ) from error


def _read_mean(folder: Path, contract: Contract) -> NDArray[np.float32] | None:
    """ū beside a half; None where none is named and none lies there."""
    named = contract.nlakit.mean_unit_file
    file = inside(folder, named or MEAN_FILE)
    if named is None and not file.exists():
        return None
    found = read_tensors(file).get("mean_unit")
    if found is None:
        raise ContractError(f"{file} holds no mean_unit", do="copy it from the run")
    contract.check_width(len(found), "the mean unit vector")
    return found.float().numpy()
