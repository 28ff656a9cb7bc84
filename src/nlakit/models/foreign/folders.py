"""Where the halves of a pair lie, and in whose format."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Literal

import torch

from nlakit.core.contract import FILE, FOREIGN, Contract, read_contract
from nlakit.errors import ContractError, first_line, network_error
from nlakit.models.lora import read_tensors

Kind = Literal["nlakit", "kitft", "peft"]
ROLES = {"av": ("av", "actor"), "ar": ("ar", "critic")}
EASYNLA_AR = "ar_lora_value_head.safetensors"
SETTINGS = ("adapter_config.json", "config.json")
# A repository of a hub, and perhaps a folder in it.
HUB_PATH = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)((?:/[\w-][\w.-]*)*)")
SHOWN = 12
# Weights come as safetensors. The one pickle is the head of PEFT folders, read with weights_only.
PATTERNS = ("*.safetensors", "*.json", "*.yaml", "*.jinja", "*.txt", "*.model", "linear_head.pt")


def find_halves(where: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Folders of the halves, by role: in a run, pair or half folder, a hub repository
    (`owner/name`) or a folder of one (`owner/name/some/folder`), or several of these. `demo` is the
    pair in the box.

    Raises ContractError if there is none, or one role twice.
    """
    if isinstance(where, str | Path):
        return _halves_at(where)
    found: dict[str, Path] = {}
    for place in where:
        for role, folder in _halves_at(place).items():
            if role in found:
                raise ContractError(
                    f"two folders hold an {role.upper()}",
                    found=f"{found[role]} and {folder}",
                    do="give one of the two, and the folder of the other half",
                )
            found[role] = folder
    return found


def _halves_at(path: str | Path) -> dict[str, Path]:
    root = Path(path)
    if not root.exists():
        if str(path) == "demo":
            root = Path(str(files("nlakit") / "box"))
        # A mistyped folder below one that is here is no repository.
        elif (found := HUB_PATH.fullmatch(str(path))) and not Path(found[1]).exists():
            root = download(found[1], found[2].strip("/"))
    places = _half_places(lambda name: (root / name / FILE).exists())
    if not places:
        raise ContractError(
            f"no trained pair or half in {path}",
            found="no nla_meta.yaml" if root.exists() else "no such folder",
            do="give a run folder, a folder with av/ and ar/, a hub id, or `demo`",
        )
    halves = {role: root / name for role, name in places.items()}
    if "" in halves:
        return {role_of(halves[""], read_contract(halves[""])): halves[""]}
    return halves


def _half_places(holds: Callable[[str], bool]) -> dict[str, str]:
    """Where below a folder the halves lie, by role; by "" the one half whose files say its role.
    holds: whether the folder of a name has a sidecar. Empty if there is none."""
    for prefix in ("08_pair/", ""):
        halves = {
            role: prefix + name
            for role, names in ROLES.items()
            for name in reversed(names)
            if holds(prefix + name)
        }
        if halves:
            return halves
    return next(({"": name} for name in ("", "07_av", "06_ar") if holds(name)), {})


def download(name: str, folder: str) -> Path:
    """Local copy of the halves in a hub repository, or in a folder of it: weights, settings,
    tokenizer and sidecar, nothing else. The files are listed before any is fetched; without a hub
    what the cache holds is taken.

    Raises ContractError if the hub has no such repository, no half lies there, or it cannot be had.
    """
    from huggingface_hub import HfApi, snapshot_download

    # Named, since the library reads the variable once, when it is imported.
    endpoint = os.environ.get("HF_ENDPOINT")
    where = f"{name}/{folder}".rstrip("/")
    try:
        listed = HfApi(endpoint=endpoint).list_repo_files(name)
    except (OSError, ValueError, network_error()) as error:
        try:
            cached = snapshot_download(name, allow_patterns=[], local_files_only=True)
        except (OSError, ValueError):
            raise _not_had(where, error) from error
        return Path(cached) / folder
    wanted = [glob.escape(file) for file in _of_halves(name, folder, listed)]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, endpoint=endpoint)) / folder
    except (OSError, ValueError, network_error()) as error:
        raise _not_had(where, error) from error


def _not_had(where: str, error: Exception) -> ContractError:
    return ContractError(
        f"{where} is no local folder and cannot be had from the hub",
        found=first_line(error),
        do="check the name and the network; gated repositories need `hf auth login`",
    )


def _of_halves(name: str, folder: str, listed: Sequence[str]) -> list[str]:
    """Of a repository's files those of the halves in one folder of it ("": at its top).

    Raises ContractError, with the folders that hold a half, if there are none.
    """
    with_half = {at for file in listed for at, _, last in [file.rpartition("/")] if last == FILE}
    at = f"{folder}/" if folder else ""
    places = _half_places(lambda below: (at + below).rstrip("/") in with_half)
    if not places:
        exists = not folder or any(file.startswith(at) for file in listed)
        others = [f"{name}/{other}".rstrip("/") for other in sorted(with_half)]
        more = [f"{len(others) - SHOWN} more"] if len(others) > SHOWN else []
        known = f"halves in {', '.join(others[:SHOWN] + more)}"
        raise ContractError(
            f"no trained pair or half in {f'{name}/{folder}'.rstrip('/')}"
            if exists
            else f"{name} has no folder {folder}",
            found=known if others else f"no {FILE} in the repository",
            do="give one of these" if others else "check the name",
        )
    folders = {(at + place).rstrip("/") for place in places.values()}
    split = [(file, *file.rpartition("/")) for file in listed]
    return [
        file
        for file, above, _, last in split
        if above in folders and any(fnmatchcase(last, pattern) for pattern in PATTERNS)
    ]


def role_of(folder: Path, contract: Contract) -> str:
    """av or ar: what the sidecar says, or what the files are. ContractError for a table."""
    named = getattr(contract, "role", None) or contract.nlakit.role
    named = FOREIGN.get(str(named), str(named))
    if named in ROLES:
        return named
    # Some projects leave the sidecar of the data set beside the weights.
    weights = (*SETTINGS, EASYNLA_AR)
    if contract.kind == "nla_dataset" and not any((folder / name).exists() for name in weights):
        raise ContractError(
            f"{folder} is the sidecar of a table, not of a half",
            do="give the folder of a trained half; --data takes tables",
        )
    heads = ("value_head.safetensors", "linear_head.pt", EASYNLA_AR)
    return "ar" if any((folder / head).exists() for head in heads) else "av"


def kind_of(folder: Path, contract: Contract) -> Kind:
    """Whose format a half's folder is in. ContractError if no weights lie there."""
    files = ("head.safetensors", "weights.safetensors")
    own = "{marker}" in contract.prompt_templates.av or any((folder / f).exists() for f in files)
    if own and contract.nlakit.role in ROLES:
        return "nlakit"
    if (folder / "adapter_config.json").exists():
        return "peft"
    if (folder / "config.json").exists():
        return "kitft"
    if (folder / EASYNLA_AR).exists():
        raise ContractError(
            f"the AR in {folder} is adapters whose scale no file records",
            found=f"{EASYNLA_AR}, as EasyNLA keeps it while it trains",
            do="merge it into a model with EasyNLA and use that folder",
        )
    raise ContractError(
        f"no weights beside the sidecar in {folder}",
        found="neither config.json nor adapter_config.json",
        do="copy the whole folder",
    )


def inside(folder: Path, name: str) -> Path:
    """A file of a folder by its bare name; ContractError for a name that could lead out of it."""
    if not name or name in (".", "..") or re.search(r"[/\\:\x00]", name):
        raise ContractError(
            f"a file name in {folder} leads out of the folder",
            found=repr(name),
            do="do not use this checkpoint unless you trust who made it",
        )
    return folder / name


def read_json(file: Path) -> dict[str, object]:
    """A JSON mapping; ContractError if it is missing or something else."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ContractError(
            f"cannot read {file}",
            found=str(error),
            do="copy the file again from where the half was made",
        ) from error
    if not isinstance(data, dict):
        raise ContractError(
            f"{file} is no mapping",
            found=type(data).__name__,
            do="copy the file again from where the half was made",
        )
    return data


def read_weights(folder: Path) -> Mapping[str, torch.Tensor]:
    """All tensors of a Hugging Face model folder, in one file or in shards.

    Raises ContractError if a file is missing or damaged, or the index and the shards differ.
    """
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_tensors(folder / "model.safetensors")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict):
        raise ContractError(
            f"{index} has no weight_map", do="copy the file again from where the half was made"
        )
    found: dict[str, torch.Tensor] = {}
    for shard in sorted(set(map(str, places.values()))):
        found |= read_tensors(inside(folder, shard))
    if differing := sorted(found.keys() ^ places.keys()):
        raise ContractError(
            f"the shards in {folder} do not hold what their index says",
            found=f"{len(differing)} tensors differ, first {differing[0]}",
            do="copy the whole folder again",
        )
    return found
