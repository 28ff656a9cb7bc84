"""Does the AV read its vector? What it writes for vectors that say nothing of the row, and what
another row's vector does to the loss of the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.core.prompts import holds_marker
from nlakit.core.statistics import derangement
from nlakit.evaluate.bench import Bench, Measured, Part, Values
from nlakit.evaluate.conditions import of_partners, random_directions
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.progress import ticker

SCORED = ("fve", "centred_cosine")
FLOOR = "random_direction"


def measure(bench: Bench) -> Part:
    """On the first `control_rows` rows, texts against the row's own vector: `fve` and
    `centred_cosine` of `real`, `other_row`, `random_direction`, `zero`, `mean_vector` and
    `no_injection`; `same_text`: 1 where a control's text is the row's real text. On rows with a
    label (of the same first ones in the profile `quick`), nats a token: `nll` of `right_vector`
    and `other_vector`, and their `gap`, of `labels`.
    """
    part = Part("av_reading")
    if bench.av is None:
        part.notes.append("no AV: whether it reads its vector cannot be measured")
        return part
    count = min(bench.settings.control_rows, len(bench))
    real: list[str | None] = list(bench.texts[:count])
    controls = control_texts(bench, bench.av, count)
    for name, texts in {"real": real, **controls}.items():
        add_texts(part, bench, name, texts, FLOOR if name == "real" else None)
    for name, texts in controls.items():
        same = [np.nan if a is None else float(a == b) for a, b in zip(texts, real, strict=True)]
        part.measured.append(Measured("same_text", name, over_rows(same, len(bench))))
        known = [text for text in texts if text is not None]
        if known:
            part.detail.setdefault("controls", {})[name] = {
                "texts": len(set(known)),
                "example": known[0],
            }
    part.detail["injection"] = injection_norms(bench, bench.av)
    if bench.ar is None:
        part.notes.append("no AR: the controls' texts are compared, not scored")
    if bench.av.contract.nlakit.centring != "none":
        part.notes.append(
            "the AV's vectors are centred, which turns the mean vector itself into zero (control "
            "`zero`): `mean_vector` is its direction at the norm of the others"
        )
    label_gap(part, bench, bench.av)
    return part


def control_texts(bench: Bench, av: Verbalizer, count: int) -> dict[str, list[str | None]]:
    """Control → text for each of the first `count` rows; None where there is no other document.

    The text of another row's vector is already there: it is that row's explanation. A zero vector,
    the mean direction and no injection give one text whatever the row.
    """
    real = av.scaled(bench.rows.vectors[:count])
    norms = real.norm(dim=-1, keepdim=True)
    drawn = torch.as_tensor(random_directions((count, real.shape[1]), 1.0, bench.seed))
    mean = torch.as_tensor(np.asarray(bench.mean), dtype=torch.float32, device=real.device)
    mean = torch.nn.functional.normalize(mean, dim=-1) * norms.mean()
    batch, decoding = bench.settings.generate_batch, av.decoding()
    with ticker("AV controls", count + 2) as progress:
        constant = torch.stack([torch.zeros_like(mean), mean])
        vectors = torch.cat([drawn.to(real.device) * norms, constant])
        *random, zero, along_mean = av.write(vectors, count + 2, batch, decoding, progress.advance)
    partners = derangement(bench.documents, bench.seed)[:count]
    return {
        "other_row": of_partners(bench.texts, partners),
        FLOOR: list(random),
        "zero": [zero] * count,
        "mean_vector": [along_mean] * count,
        "no_injection": [bench.uninjected] * count,
    }


def injection_norms(bench: Bench, av: Verbalizer) -> dict[str, float | None]:
    """Norm at which the rows are injected, and its ratio to the subject's norms; None where the
    contract does not say."""
    norm = float(av.scaled(bench.rows.vectors).norm(dim=-1).mean())
    embedding = av.contract.nlakit.embedding_norm
    activation = float(np.linalg.norm(bench.rows.vectors.astype(np.float64), axis=1).mean())
    return {
        "norm": norm,
        "to_embedding_norm": norm / embedding if embedding else None,
        "to_activation_norm": norm / activation,
    }


def label_gap(part: Part, bench: Bench, av: Verbalizer) -> None:
    """Loss of each label with the right vector and with another document's: an AV that ignores its
    vector has a gap of 0 whatever it writes and whatever the AR makes of it."""
    rows, partners = bench.rows, derangement(bench.documents, bench.seed)
    marker = av.contract.tokens.injection_char
    quick = bench.settings.profile == "quick"
    count = min(bench.settings.control_rows, len(rows)) if quick else len(rows)
    usable = np.flatnonzero(
        [
            bool(text.strip()) and partner >= 0 and not holds_marker(av.tokenizer, marker, text)
            for text, partner in zip(rows.texts[:count], partners[:count], strict=True)
        ]
    )
    if len(usable) < count:
        part.notes.append(
            f"{count - len(usable)} of {count} rows have no usable label or no row of "
            "another document, and so no loss"
        )
    if not len(usable):
        return
    texts = [rows.texts[i] for i in usable]
    injected = av.scaled(rows.vectors)
    right, other = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    right[usable] = av.label_loss(injected[usable], texts)
    other[usable] = av.label_loss(injected[partners[usable]], texts)
    part.measured += [
        Measured("nll", "right_vector", right),
        Measured("nll", "other_vector", other),
        Measured("gap", "labels", other - right),
    ]


def add_texts(
    part: Part,
    bench: Bench,
    condition: str,
    texts: Sequence[str | None],
    floor: str | None = None,
) -> None:
    """Keep the texts of the first rows and, with an AR, their scores against the rows' vectors."""
    part.texts[condition] = list(texts)
    if bench.ar is not None:
        scores = bench.score(texts)
        part.add(condition, {name: scores[name] for name in SCORED}, floor)


def over_rows(values: Sequence[float] | NDArray[Any], n: int) -> Values:
    """Values of the first rows as values of all n `(n,)`: the others have none."""
    spread = np.full(n, np.nan)
    spread[: len(values)] = values
    return spread
