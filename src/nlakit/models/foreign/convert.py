"""Pairs from other formats into ours, and ours into theirs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from nlakit.core.metrics import baseline, mean_unit
from nlakit.errors import ContractError, DataError
from nlakit.models.foreign import kitft, peft_pair
from nlakit.models.nla import MEAN_FILE, NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer

Format = Literal["kitft", "peft"]
WRITERS = {"kitft": kitft.write, "peft": peft_pair.write}


def import_pair(
    sources: Sequence[str | Path],
    target: Path,
    vectors: NDArray[Any] | None = None,
    source_of_vectors: str = "",
    **options: Any,
) -> list[str]:
    """Store a pair of any format as ours in `target/av` and `target/ar`; options are `NLA.load`'s.

    vectors: raw activations `(n, d)` of the layer; ū, the FVE baseline and the mean norm are
    computed from them. Raises DataError if the target is not empty, ContractError as `NLA.load`.
    """
    check_new(target)
    nla = NLA.load(sources, **options)
    mean, base = nla.mean, nla.contract.nlakit.baseline
    origin = nla.contract.nlakit.baseline_source
    norm = nla.contract.nlakit.activation_norm
    if vectors is not None:
        nla.contract.check_width(vectors.shape[1], "the vectors")
        mean = mean_unit(vectors)
        base, origin = baseline(vectors, mean), f"{len(vectors)} rows of {source_of_vectors}"
        norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).mean())
    if vectors is not None and nla.av is not None and nla.av.contract.nlakit.centring != "none":
        raise ContractError(
            "a centred AV keeps the mean it was trained with", do="leave out --vectors"
        )
    said = []
    for role, half in (("av", nla.av), ("ar", nla.ar)):
        if half is None:
            continue
        record = half.contract.nlakit
        record.baseline, record.baseline_source, record.activation_norm = base, origin, norm
        record.mean_unit_file = None if mean is None else MEAN_FILE
        record.embedding_norm = nla.subject.embedding_norm()
        record.subject_precision = nla.subject.config.precision
        half.contract.extraction.base_model = nla.subject.config.model
        with removed_on_error(target):
            if isinstance(half, Reconstructor):
                half.save(target / role, head_dtype=torch.float32)
            else:
                half.save(target / role)
            if mean is not None:
                save_file({"mean_unit": np.asarray(mean, np.float32)}, target / role / MEAN_FILE)
        said.append(f"{role.upper()} in {target / role}")
    if mean is None:
        said.append("no mean unit vector: FVE and centred cosine need --vectors")
    return said


def export_pair(nla: NLA, target: Path, form: Format, allow_centring: bool = False) -> list[str]:
    """Write a pair in another format to `target/av` and `target/ar`; returns lines that say what
    was written.

    Raises ContractError for a centred AV unless allowed: those formats have no word for centring,
    and a reader that ignores our block would feed the AV other vectors.
    """
    check_new(target)
    if nla.av is not None and nla.av.contract.nlakit.centring != "none" and not allow_centring:
        raise ContractError(
            "the AV reads centred vectors, and other tools do not centre",
            found="nlakit.centring: mean_unit; it is no affine map of the activation, so it cannot "
            "be folded into the weights",
            do="train with av.centring: false, or give --allow-centring: injection_scale is then "
            "left empty, so that the reference's code stops, and nlakit reads it as before",
        )
    with removed_on_error(target):
        return [
            _write(nla, role, half, target / role, form)
            for role, half in (("av", nla.av), ("ar", nla.ar))
            if half is not None
        ]


def _write(
    nla: NLA, role: str, half: Verbalizer | Reconstructor, folder: Path, form: Format
) -> str:
    if nla.mean is not None:
        half.contract.nlakit.mean_unit_file = MEAN_FILE
    dtype = WRITERS[form](nla.subject, half, folder)
    if nla.mean is not None:
        save_file({"mean_unit": np.asarray(nla.mean, np.float32)}, folder / MEAN_FILE)
    return f"{role.upper()} in {folder}, {dtype}"


@contextmanager
def removed_on_error(target: Path) -> Iterator[None]:
    """Leave no half-filled `target` behind if the body fails."""
    try:
        yield
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def check_new(target: Path) -> None:
    """Raise DataError unless `target` is a new or empty folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(
            f"{target} is not empty", found="files in it", do="name a new folder, or remove it"
        )
