"""Put directions into words: those of an SAE's decoder, beside random ones.

A direction is no activation. Activations of a layer share most of their direction, ū; what tells
them apart is u − ū, and a decoder direction is a direction of that kind: it is added to what all
have in common. So it enters a centred AV as it is, in the place of the centred vector, and a
reconstruction û is compared with it as û − ū. Its length says nothing to an AV.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.core.metrics import unit
from nlakit.core.scaling import Scaling
from nlakit.errors import ContractError
from nlakit.evaluate.conditions import random_directions
from nlakit.models.nla import NLA

RANDOM = 8


def explain_directions(
    nla: NLA,
    directions: NDArray[Any],
    features: Sequence[int],
    *,
    random: int = RANDOM,
    seed: int = 0,
    batch: int = 32,
) -> list[dict[str, Any]]:
    """A record for each direction `(n, d)`, and for `random` random ones.

    `score` is cos(û − ū, v) for the reconstruction û from the explanation and the direction v
    (cos(û, v) where the pair stores no ū); `floor` is that of the empty text, `other` the mean over
    the explanations of the other directions. A direction of length zero has no explanation.

    Raises ContractError without an AV, for another width, or where the AV takes vectors at their
    own norm and the pair records none.
    """
    if nla.av is None:
        raise ContractError("this folder holds no AV", do="load a pair, or the AV's folder")
    nla.contract.check_width(directions.shape[1], "the SAE")
    drawn = random_directions((random, directions.shape[1]), 1.0, seed)
    every = np.concatenate([np.asarray(directions, dtype=np.float32), drawn])
    norms = np.linalg.norm(every, axis=1)
    known = np.flatnonzero(norms > 0)
    vectors = unit(every[known])
    injected = _injected(nla, torch.tensor(vectors, dtype=torch.float32, device=nla.av.device))
    texts = nla.av.write(injected, len(known), batch, nla.av.decoding())
    names: list[tuple[str, int | None]] = [(f"feature {one}", one) for one in features]
    names += [(f"random {one}", None) for one in range(random)]
    records: list[dict[str, Any]] = [
        {"direction": name, "feature": feature, "l2_norm": float(norm), "explanation": None}
        for (name, feature), norm in zip(names, norms, strict=True)
    ]
    scores = _scores(nla, texts, vectors) if nla.ar is not None else {}
    for record in records:
        record |= dict.fromkeys(scores)
    for at, row in enumerate(known):
        records[row] |= {"explanation": texts[at]}
        records[row] |= {name: float(values[at]) for name, values in scores.items()}
    return records


def summary(records: Sequence[dict[str, Any]]) -> str:
    """Mean scores of features and random directions beside their floors, in a line; empty where
    nothing was scored."""
    lines = []
    for kind in ("feature", "random"):
        known = [one for one in records if one["direction"].startswith(kind)]
        known = [one for one in known if one.get("score") is not None]
        if known:
            means = {n: np.mean([one[n] for one in known]) for n in ("score", "floor", "other")}
            lines.append(
                f"{len(known)} {kind} directions: score {means['score']:.3f}, "
                f"empty text {means['floor']:.3f}, another's text {means['other']:.3f}"
            )
    return "; ".join(lines)


def _injected(nla: NLA, vectors: torch.Tensor) -> torch.Tensor:
    """Unit directions `(n, d)` at the norm at which the AV takes in vectors."""
    assert nla.av is not None
    scale = nla.contract.scaling.scale or nla.contract.nlakit.activation_norm
    if scale is None:
        raise ContractError(
            "the AV takes in activations at their own norm, and a direction has none",
            do="use a pair whose nla_meta.yaml records injection_scale or activation_norm",
        )
    return Scaling(scale, centred=False).apply(vectors, nla.av.mean)


def _scores(
    nla: NLA, texts: Sequence[str], vectors: NDArray[Any]
) -> dict[str, NDArray[np.floating]]:
    mean = 0.0 if nla.mean is None else nla.mean
    moved = unit(nla.reconstruct(["", *texts])) - mean
    with np.errstate(invalid="ignore"):  # a reconstruction that is ū says nothing: 0
        made = np.nan_to_num(moved / np.linalg.norm(moved, axis=1, keepdims=True))
    found = made @ vectors.T
    own, others = np.diagonal(found[1:]), max(len(texts) - 1, 1)
    return {"score": own, "floor": found[0], "other": (found[1:].sum(axis=0) - own) / others}
