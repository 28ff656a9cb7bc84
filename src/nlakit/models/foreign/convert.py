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

from nlakit.core.injection import NORM_MATCHED, Injection
from nlakit.core.metrics import baseline, mean_unit
from nlakit.errors import ContractError, DataError
from nlakit.models.foreign import kitft, peft_pair
from nlakit.models.loading import MEAN_FILE
from nlakit.models.nla import NLA
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
    computed from them. Raises DataError if the target is not empty or vectors have no spread,
    ContractError as `NLA.load`.
    """
    check_new(target)
    nla = NLA.load(sources, **options)
    if vectors is not None:
        nla.contract.check_width(vectors.shape[1], "the vectors")
        _measure(nla, vectors, source_of_vectors)
        if nla.av is not None and nla.av.contract.nlakit.centring != "none":
            raise ContractError(
                "a centred AV keeps the mean it was trained with", do="leave out --vectors"
            )
    said = []
    for role, half in (("av", nla.av), ("ar", nla.ar)):
        if half is None:
            continue
        record, mean = half.contract.nlakit, _own_mean(nla, half)
        record.embedding_norm = nla.subject.embedding_norm()
        record.subject_precision = nla.subject.config.precision
        with removed_on_error(target):
            if isinstance(half, Reconstructor):
                half.save(target / role, head_dtype=torch.float32)
            else:
                half.save(target / role)
            _save_mean(mean, target / role)
        said.append(f"{role.upper()} in {target / role}")
    if nla.mean is None:
        said.append("no mean unit vector: FVE and centred cosine need --vectors")
    return said


def _measure(nla: NLA, vectors: NDArray[Any], source: str) -> None:
    """Set the pair's ū, baseline and mean norm to those of raw activations."""
    mean = mean_unit(vectors) if len(vectors) else None
    base = 0.0 if mean is None else baseline(vectors, mean)
    if not base > 0:
        raise DataError(
            "no FVE baseline can be taken from these vectors",
            found=f"{len(vectors)} rows" + (" of one direction" if len(vectors) > 1 else ""),
            do="give raw activations of some hundred rows",
        )
    nla.mean, record = np.asarray(mean, dtype=np.float64), nla.measured
    record.baseline, record.baseline_source = base, f"{len(vectors)} rows of {source}"
    record.activation_norm = float(np.linalg.norm(vectors.astype(np.float64), axis=1).mean())


def _own_mean(nla: NLA, half: Verbalizer | Reconstructor) -> NDArray[Any] | None:
    """ū to store beside a half, whose record is made to fit it and the loaded subject: a centred
    AV keeps what it was trained with; any other half gets the pair's, with its baseline."""
    record, known = half.contract.nlakit, nla.measured
    half.contract.extraction.base_model = nla.subject.config.model
    record.revision = nla.subject.config.revision
    if isinstance(half, Verbalizer) and record.centring != "none":
        mean: Any = half.mean.cpu().numpy()
    else:
        mean = nla.mean
        record.baseline, record.baseline_source = known.baseline, known.baseline_source
        record.activation_norm = known.activation_norm
    record.mean_unit_file = None if mean is None else MEAN_FILE
    return mean


def _save_mean(mean: NDArray[Any] | None, folder: Path) -> None:
    if mean is not None:
        save_file({"mean_unit": np.asarray(mean, np.float32)}, folder / MEAN_FILE)


def export_pair(nla: NLA, target: Path, form: Format, allow_centring: bool = False) -> list[str]:
    """Write a pair in another format to `target/av` and `target/ar`; returns lines that say what
    was written.

    Raises ContractError for an AV whose vector enters where readers of the format do not put it,
    and for a centred one unless allowed: a reader that ignores our block would feed the AV other
    vectors.
    """
    check_new(target)
    if nla.av is not None:
        _check_injection(nla.av.contract.injection, form)
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


def _check_injection(injection: Injection, form: Format) -> None:
    """Readers of adapters know two ways in, the reference's folders one."""
    added = injection == NORM_MATCHED
    if injection.plain or (added and form == "peft"):
        return
    raise ContractError(
        "the AV takes its vector in where other tools do not put it",
        found=injection.described(),
        do=("export it with --format peft, whose sidecar says so; " if added else "")
        + "share the pair in nlakit's own format, or train with av.injection: reference",
    )


def _write(
    nla: NLA, role: str, half: Verbalizer | Reconstructor, folder: Path, form: Format
) -> str:
    mean = _own_mean(nla, half)
    dtype = WRITERS[form](nla.subject, half, folder)
    _save_mean(mean, folder)
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
