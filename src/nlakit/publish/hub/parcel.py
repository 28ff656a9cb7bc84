"""What a push sends: which files, under which names, without a path of this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, cast, get_args

import yaml

from nlakit.core.contract import FILE, Contract, read_contract
from nlakit.errors import ConfigError, ContractError, DataError, RunError
from nlakit.files.text import as_json
from nlakit.models.gguf import NAMES as EMBEDDED
from nlakit.publish.hub.contents import cleaned_page
from nlakit.publish.hub.places import inside, visible_files
from nlakit.run.folder import FOLDERS, RunDir, read_exact

What = Literal["pair", "av", "ar", "tables", "trajectory"]
ENDINGS = frozenset(
    ".safetensors .json .yaml .md .parquet .jsonl .txt .png .html .model .jinja".split()
)
BARE = frozenset({"NOTICE", "LICENSE"})
PICKLES = frozenset(".bin .pt .pth .pkl .pickle .ckpt .joblib".split())
# A stage's own bookkeeping, which stays in the run.
BOOKKEEPING = frozenset("manifest.json begin.json training.json metrics.jsonl checkpoints".split())
RECORDS = ("results.json", "config.json", "adapter_config.json", "tokenizer_config.json")
STAGES = ("ar", "av", "pair")


@dataclass
class Parcel:
    """Files by the name they get, and what a person should know of the others."""

    what: What
    files: dict[str, Path]
    left_out: list[str]
    rewritten: list[str]

    @property
    def contracts(self) -> dict[str, Contract]:
        """By file name."""
        names = [name for name in sorted(self.files) if name.endswith(FILE)]
        return {name: read_contract(self.files[name]) for name in names}

    @property
    def results(self) -> dict[str, Any] | None:
        """results.json of the evaluation; None if there is none."""
        file = self.files.get("results.json")
        return json.loads(file.read_text(encoding="utf-8")) if file else None


def is_sent(name: str) -> bool:
    """Whether files of this name are sent and fetched."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") for part in path.parts)
    return not hidden and (path.suffix.lower() in ENDINGS or path.name in BARE)


def pack(source: str, what: What | None, base_model: str | None, scratch: Path) -> Parcel:
    """Gather, clean and check the files of a run, pair, half or table folder (or `demo`).

    base_model replaces the subject's name in what is sent; files that have to be made are written
    to `scratch`. Raises ConfigError or ContractError if there is no such thing in the source,
    DataError for a pickle, a key, a damaged file or a link out of the folder.
    """
    root = Path(source).expanduser()
    if source == "demo" and not root.exists():
        root = Path(str(files("nlakit") / "box"))
    if not root.exists():
        raise ConfigError(f"there is no {root}", do="give a run, a pair, a half, tables, or `demo`")
    halves = _halves(root, what)
    what = what or cast(What, "pair" if len(halves) == 2 else next(iter(halves), "tables"))
    if what == "tables":
        found = _tables(root)
    elif what == "trajectory":
        found = _trajectory(root, scratch)
    else:
        found = _half_files(root, halves, what)
    parcel = Parcel(what, {}, [], [])
    for name, file in found.items():
        if PurePosixPath(name).suffix.lower() in PICKLES:
            raise DataError(
                f"{file} is a pickle, which can run any code where it is read",
                do="send safetensors: nlakit reads and writes them (nlakit import, nlakit export)",
            )
        if is_sent(name):
            parcel.files[name] = file
        else:
            parcel.left_out.append(f"{name} (no kind of file that is sent)")
    _make_public(parcel, base_model, scratch)
    return parcel


def _halves(root: Path, what: What | None) -> dict[str, Path]:
    from nlakit.models.foreign.folders import find_halves

    try:
        halves = find_halves(root)
    except ContractError:
        if what in ("pair", "av", "ar"):
            raise
        return {}
    if what in ("av", "ar", "pair"):
        needed = ("av", "ar") if what == "pair" else (what,)
        if missing := [role for role in needed if role not in halves]:
            raise ContractError(
                f"{root} holds no {' and no '.join(role.upper() for role in missing)}",
                found=", ".join(halves).upper(),
                do=f"send what is there: --what {next(iter(halves))}",
            )
    return halves


def _half_files(root: Path, halves: Mapping[str, Path], what: What) -> dict[str, Path]:
    """The halves' own files (a single half at the top), and what says what they are worth."""
    found = _evidence(root)
    for role, folder in halves.items():
        prefix = f"{role}/" if what == "pair" else ""
        if what in ("pair", role):
            for name, file in visible_files(folder):
                if name.split("/")[0] not in BOOKKEEPING:
                    found[prefix + name] = file
    return found


def _evidence(root: Path) -> dict[str, Path]:
    """Evaluation, report, settings and terms. An evaluation of other weights is an error."""
    names = ("results.json", "report.html", "config.yaml", "README.md", *BARE)
    found = {name: root / name for name in names}
    if (root / "results").is_dir():  # what the numbers of a card rest on
        found |= {f"results/{name}": file for name, file in visible_files(root / "results")}
    if (root / "run.json").exists():
        run = RunDir(root)
        pair, evaluated, reported = (run.manifest(stage) for stage in ("pair", "eval", "report"))
        if evaluated:
            if not pair or evaluated.parents.get("pair") != pair.identity():
                raise RunError(
                    f"the evaluation in {root} is of another pair", do="redo it with --redo eval"
                )
            found["results.json"] = run.folder("eval") / "results.json"
            if reported and reported.parents.get("eval") == evaluated.identity():
                found["report.html"] = run.folder("report") / "report.html"
    return _present(root, found)


def _present(root: Path, found: Mapping[str, Path]) -> dict[str, Path]:
    """Those of some paths below a folder that are files; DataError for a link out of it."""
    paths = {name: inside(root, file.relative_to(root).as_posix()) for name, file in found.items()}
    return {name: path for name, path in paths.items() if path.is_file()}


def _tables(root: Path) -> dict[str, Path]:
    """Tables with their sidecars: of a run, of a folder, or one file of exported labels."""
    if root.is_file():
        beside = [root, root.with_name(f"{root.name}.{FILE}"), root.with_name("README.md")]
        found = _present(root.parent, {file.name: file for file in beside})
    elif (root / "run.json").exists():
        found = _present(root, {"config.yaml": root / "config.yaml"})
        tables = visible_files(RunDir(root).need("tables"))
        found |= {name: file for name, file in tables if name not in BOOKKEEPING}
    else:
        found = {name: file for name, file in visible_files(root) if "/" not in name}
    if not any(name.endswith((".parquet", ".jsonl")) for name in found):
        raise ConfigError(
            f"nothing to send in {root}",
            found="no trained half, no table",
            do=f"give a run, a pair, a half or tables; --what: {', '.join(get_args(What))}",
        )
    if "README.md" not in found and not any(name.endswith(FILE) for name in found):
        raise ContractError(
            f"{root} says nothing of where its rows come from",
            found="neither a sidecar nor a card",
            do="send what nlakit export-labels writes, or a run with --what tables",
        )
    return found


def _trajectory(root: Path, scratch: Path) -> dict[str, Path]:
    """Metrics, and the trainable weights of every kept checkpoint, by training stage."""
    stages = {f"{name}/": root / FOLDERS[name] for name in STAGES}
    found, states = {"config.yaml": root / "config.yaml"}, dict[str, Path]()
    for prefix, folder in {**stages, "": root}.items():
        if not (folder / "metrics.jsonl").exists():
            continue
        for pattern in ("metrics.jsonl", "training.json", FILE, "adapter_config.json"):
            places = (pattern, f"a?/{pattern}", f"rl/{pattern}")
            for file in (one for place in places for one in folder.glob(place)):
                found[prefix + file.relative_to(folder).as_posix()] = file
        for state in sorted(folder.glob("checkpoints/step-*/state.pt")):
            states[f"{prefix}{state.parent.name}/weights.safetensors"] = state
    if len(found) == 1:
        raise ConfigError(f"{root} holds no training", do="give a run, or its folder of a stage")
    found, states = _present(root, found), _present(root, states)
    if not any(name.endswith(FILE) for name in found):
        raise ConfigError(
            f"{root} has no contract yet",
            found="a stage that is still training",
            do="send it when its first trained stage is finished",
        )
    for name, state in states.items():
        found[name] = scratch / name
        write_weights(state, scratch / name)
    return found


def write_weights(state: Path, target: Path) -> None:
    """The trainable tensors of a checkpoint, float32, by the names of the module's parameters.

    Raises DataError if the file is no checkpoint of nlakit.
    """
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        saved = torch.load(state, weights_only=True, map_location="cpu")
        masters = zip(saved["names"], saved["optimizer"]["masters"], strict=True)
        tensors = {name: tensor.detach().contiguous() for name, tensor in masters}
        step = str(int(saved["step"]))
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"{state} is no checkpoint of nlakit",
            found=(str(error).splitlines() or [type(error).__name__])[0],
            do="delete its folder, or redo the stage",
        ) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target, metadata={"step": step})


def is_local(text: str) -> bool:
    """Whether a whole string is a path of one machine."""
    absolute = PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return "\n" not in text and (absolute or text.startswith(("~/", "~\\", "file:")))


class _Public:
    """Gives local paths their last part, and the subject the name that others load it by."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names, self.used = dict(names), dict[str, str]()

    def __call__(self, found: Any) -> Any:
        if isinstance(found, dict):
            # Examples are texts of the corpus, whatever they look like.
            return {k: v if k == "examples" else self(v) for k, v in found.items()}
        if isinstance(found, list):
            return [self(item) for item in found]
        if not isinstance(found, str) or not (found in self.names or is_local(found)):
            return found
        self.used[found] = self.names.get(found) or PureWindowsPath(found).name
        return self.used[found]


def _make_public(parcel: Parcel, base_model: str | None, scratch: Path) -> None:
    """Rewrite records that name this machine; a report that cannot be cleaned is left out."""
    public = _Public(_subject_names(parcel.contracts, base_model))
    # Reports come last: they show the settings that are cleaned before.
    for name in sorted(parcel.files, key=lambda name: (name.endswith(".html"), name)):
        file = parcel.files[name]
        if name.endswith(".html"):
            page = cleaned_page(file, public.used)
            if page is None:
                parcel.left_out.append(f"{name} (it names {Path.home()})")
                del parcel.files[name]
                continue
        elif name.endswith(".yaml") or file.name in RECORDS:
            page = _rewritten(file, public)
        else:
            continue
        parcel.files[name] = scratch / "public" / name
        parcel.files[name].parent.mkdir(parents=True, exist_ok=True)
        parcel.files[name].write_text(page, encoding="utf-8", newline="\n")
    parcel.rewritten += [f"{local} -> {shown}" for local, shown in public.used.items()]


def _rewritten(file: Path, public: _Public) -> str:
    """The text of a YAML or JSON file, made anew only if it has local names."""
    try:
        text = read_exact(file)
        data = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(
            f"{file} cannot be read",
            found=str(error).splitlines()[0],
            do="make it again, or copy it from where it was made",
        ) from error
    cleaned = public(data)
    if cleaned == data:
        return text
    if file.suffix == ".json":
        return as_json(cleaned, indent=1) + "\n"
    return yaml.safe_dump(cleaned, sort_keys=False, allow_unicode=True)


def _subject_names(contracts: Mapping[str, Contract], given: str | None) -> dict[str, str]:
    """Recorded name of the subject → the one to send; ContractError if it is a local folder."""
    if given and is_local(given):
        raise ConfigError(
            "--base-model is a folder of this machine",
            found=given,
            do="name the subject as others find it, OWNER/NAME",
        )
    recorded = {contract.extraction.base_model for contract in contracts.values()}
    if given:
        return dict.fromkeys(recorded, given)
    for name in recorded - set(EMBEDDED):
        if is_local(name) or Path(name).expanduser().exists():
            raise ContractError(
                "the contract names a folder of this machine as the subject",
                found=name,
                do="give the name that others load it by: --base-model OWNER/NAME",
            )
    return {}
