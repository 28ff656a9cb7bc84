"""Does the subject go on as before, with a reconstruction in the place of its activation?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import cosine
from nlakit.core.prompts import document_ids
from nlakit.core.statistics import derangement, ratio_rows
from nlakit.evaluate.bench import Bench, Part, Values
from nlakit.evaluate.conditions import of_partners
from nlakit.evaluate.parts.readouts import holds_subject
from nlakit.evaluate.parts.recurrence import SAME, picked
from nlakit.models.steering.patch import Patcher
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.progress import ticker

# What is put back without having read a text of the row, or its vector.
FLOORS = ("mean", "empty", "other_row", "other_vector")
Vectors = dict[str, list[NDArray[np.float32] | None]]


def measure(bench: Bench) -> Part:
    """The part `functional`, on twice `control_rows` rows, of as many documents as there are. A
    vector replaces the output of block K at the row's token, at the norm of the row's activation;
    then the subject's next token is compared with that of the untouched run.

    Measures: `kl`, KL(untouched ‖ patched) in nats; `top1_kept`, whether the likeliest token stays;
    `kl_removed`, 1 − ΣKL / ΣKL(`mean`), by values a row whose mean it is. Conditions: `real` and
    `label`, what the AR makes of the AV's text and of the label; the floors `mean` (ū), `empty`
    (what the AR makes of the empty text), `other_row` (of another document's text) and
    `other_vector` (that document's activation); the control `own`, the row's own activation.
    """
    part = Part("functional")
    if bench.av is None or not holds_subject(bench.av):
        why = "no AV" if bench.av is None else "all weights of the AV are trained"
        part.notes.append(f"{why}: the subject, which would have to go on, is not at hand")
        return part
    if bench.ar is None:
        part.notes.append("no AR: there is no reconstruction to put back")
        return part
    rows = picked(bench, written=False)
    if not rows:
        part.notes.append("no row has a source: the subject has no text to go on with")
        return part
    given = put_back(bench, rows)
    found = effects(part, bench, bench.av, rows, given)
    if not np.nansum(found["kl"]["mean"]) > 0:
        part.notes.append("nothing to measure: no row is left, or patched ū changes nothing")
        return part
    found["kl_removed"] = removed(found["kl"])
    for name, values in found.items():
        floor = best_floor(name, values)
        for condition in values:
            part.add(
                condition,
                {name: values[condition]},
                floor if condition in ("real", "label") else None,
            )
    part.detail = {
        "rows": int((~np.isnan(found["kl"]["mean"])).sum()),
        "layer": bench.av.contract.layer,
    }
    return part


def put_back(bench: Bench, rows: list[int]) -> Vectors:
    """Condition → vector `(d,)` of each of the rows; None where the row has none."""
    texts, labels = bench.texts, bench.rows.known_texts
    partners = derangement([bench.documents[row] for row in rows], bench.seed)
    real = [texts[row] for row in rows]
    read = {
        "real": real,
        "label": [labels[row] for row in rows],
        "empty": [""] * len(rows),
        "other_row": of_partners(real, partners),
    }
    wanted = [text for texts in read.values() for text in texts if text is not None]
    made = dict(zip(wanted, bench.reconstruct(wanted), strict=True))
    own = [bench.rows.vectors[row] for row in rows]
    return {
        **{
            name: [None if text is None else made[text] for text in texts]
            for name, texts in read.items()
        },
        "mean": [bench.mean.astype(np.float32)] * len(rows),
        "other_vector": [own[i] if i >= 0 else None for i in partners.tolist()],
        "own": [*own],
    }


def effects(
    part: Part, bench: Bench, av: Verbalizer, rows: list[int], given: Vectors
) -> dict[str, dict[str, Values]]:
    """`kl` and `top1_kept` → condition → value a row `(n,)`; NaN for what a row lacks, and for rows
    whose source, read again, does not end in the row's own activation."""
    contract = av.contract
    special = contract.nlakit.special_tokens
    read = [document_ids(av.tokenizer, bench.rows.sources[row], special) for row in rows]
    places = [at for at, ids in enumerate(read) if not av.positions or len(ids) <= av.positions]
    here = [
        {name: v for name, some in given.items() if (v := some[at]) is not None} for at in places
    ]
    with ticker("functional", len(places), "rows") as progress:
        found = Patcher(av.model, av.decoder, contract.layer).effects(
            [read[at] for at in places],
            [np.stack([*one.values()]) for one in here],
            progress.advance,
        )
    kl, kept = ({name: np.full(len(bench), np.nan) for name in given} for _ in range(2))
    missing = len(rows) - len(places)
    for at, names, effect in zip(places, here, found, strict=True):
        row = rows[at]
        if cosine(bench.rows.vectors[row][None], effect.own[None])[0] < SAME:
            missing += 1
            continue
        for name, moved, stays in zip(names, effect.kl, effect.kept, strict=True):
            kl[name][row], kept[name][row] = moved, stays
    if missing:
        part.notes.append(
            f"{missing} of {len(rows)} rows are left out: their source, read again, does not end in"
            " the row's own activation"
        )
    return {"kl": kl, "top1_kept": kept}


def removed(kl: Mapping[str, Values]) -> dict[str, Values]:
    """1 − ΣKL / ΣKL(`mean`) of each condition, over the rows that have it, as values a row."""
    made = {}
    for name, values in kl.items():
        known = ~np.isnan(values)
        made[name] = np.full(len(values), np.nan)
        if known.any():
            whole = kl["mean"][known]
            made[name][known] = ratio_rows(whole - values[known], whole)
    return made


def best_floor(measure: str, values: Mapping[str, Values]) -> str:
    """The floor with the best mean: the smallest divergence, the most that is kept or removed."""
    sign = -1.0 if measure == "kl" else 1.0
    floors = [name for name in FLOORS if not np.isnan(values[name]).all()]
    return max(floors, key=lambda name: sign * float(np.nanmean(values[name])))
