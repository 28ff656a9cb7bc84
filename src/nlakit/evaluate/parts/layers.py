"""Over which layers does the pair still read? The same tokens at other layers of the subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.metrics import unit
from nlakit.core.statistics import derangement
from nlakit.evaluate.bench import AtLayers, Bench, Part, Values
from nlakit.evaluate.conditions import of_partners
from nlakit.evaluate.findings import finding
from nlakit.evaluate.scoring import score_all
from nlakit.evaluate.verdict import BLIND_GAIN
from nlakit.run.progress import ticker

OF_OWN = ("fve", "centred_cosine")  # against the layer's own vectors; with _k those of layer K
FLOORS = ("mean", "empty", "other_row")


def measure(bench: Bench) -> Part:
    """The part `layers`, of each layer of the settings and of layer K, the pair's own. The AV is
    given the layer's vectors as if they were layer K's; the AR's reading of what it writes is
    scored against the layer's own vectors, centred with the layer's own mean (`fve`,
    `centred_cosine`, `top1`), and against layer K's of the same tokens (`fve_k`,
    `centred_cosine_k`, `top1_k`).

    Condition `layer_L`; its floor is the best of `layer_L_mean`, `layer_L_empty` and
    `layer_L_other_row`, as in the round trip. `alike`: cosine of the two layers' vectors of a
    token, each less its mean, with another row's as floor. `unique`: 1 / rows with the same text.
    """
    part = Part("layers")
    if bench.av is None or bench.ar is None or bench.at_layers is None:
        part.notes.append("no AV, no AR or no subject: other layers cannot be tried")
        return part
    found, own = bench.at_layers(), bench.av.contract.layer
    part.notes += found.notes
    rows = bench.rows.take(found.kept)
    if len(set(rows.doc_ids)) < 2:
        part.notes.append("too few rows could be read at other layers: floors need other documents")
        return part
    part.detail = {"own": own, "rows": len(rows), "norms": {}}
    partners = derangement(rows.doc_ids, bench.seed)
    layers = sorted({*found.vectors, own})
    with ticker("other layers", len(found.vectors) * len(rows), "texts") as progress:
        for layer in layers:
            vectors, mean, texts = rows.vectors, bench.mean, [bench.texts[i] for i in found.kept]
            if layer != own:
                vectors, mean = found.vectors[layer], found.means[layer]
                texts = bench.av.write(
                    bench.av.scaled(vectors, mean), len(rows), bench.settings.generate_batch,
                    bench.av.decoding(), progress.advance,
                )  # fmt: skip
            part.detail["norms"][str(layer)] = float(np.linalg.norm(vectors, axis=1).mean())
            other = of_partners(texts, partners)
            inputs = {"real": texts, "empty": [""] * len(rows), "other_row": other}
            for ending, target, centre in (("", vectors, mean), ("_k", rows.vectors, bench.mean)):
                scores = score_all(bench, replace(rows, vectors=target), inputs, centre)
                _add(part, f"layer_{layer}", ending, scores.values, found.kept, len(bench))
            _add_alike(part, layer, bench, found, vectors, mean, partners)
            copies = Counter(texts)
            unique = np.array([1 / copies[text] for text in texts])
            part.add(f"layer_{layer}", {"unique": _spread(unique, found.kept, len(bench))})
            part.texts[f"layer_{layer}"] = _texts(texts, found.kept, len(bench))
    return part


def _add(
    part: Part, name: str, ending: str, scores: dict[str, dict[str, Values]], kept: Sequence[int],
    n: int,
) -> None:  # fmt: skip
    """The scores of one layer's texts against one set of vectors, with their floors."""
    floors = [floor for floor in FLOORS if floor in scores]
    for measure in OF_OWN:
        best = max(floors, key=lambda floor: float(np.nanmean(scores[floor][measure])))
        for condition in ("real", *floors):
            place = name if condition == "real" else f"{name}_{condition}"
            values = {f"{measure}{ending}": _spread(scores[condition][measure], kept, n)}
            part.add(place, values, f"{name}_{best}" if condition == "real" else None)
    if "rank" in scores["real"] and "rank" in scores.get("other_row", {}):
        for condition, place, floor in (
            ("real", name, f"{name}_other_row"),
            ("other_row", f"{name}_other_row", None),
        ):
            first = (scores[condition]["rank"] == 0).astype(float)
            part.add(place, {f"top1{ending}": _spread(first, kept, n)}, floor)


def _add_alike(
    part: Part, layer: int, bench: Bench, found: AtLayers, vectors: NDArray[Any],
    mean: NDArray[Any], partners: NDArray[np.int64],
) -> None:  # fmt: skip
    here = unit(unit(vectors) - mean)
    there = unit(unit(bench.rows.vectors[found.kept]) - bench.mean)
    floor = np.where(partners >= 0, np.sum(here[partners] * there, axis=1), np.nan)
    name = f"layer_{layer}"
    for condition, values, under in (
        (name, np.sum(here * there, axis=1), f"{name}_other_row"),
        (f"{name}_other_row", floor, None),
    ):
        part.add(condition, {"alike": _spread(values, found.kept, len(bench))}, under)


def _spread(values: Values, kept: Sequence[int], n: int) -> Values:
    """Values of the rows that were read in the places of all `(n,)`; NaN for the others."""
    spread = np.full(n, np.nan)
    spread[list(kept)] = values
    return spread


def _texts(texts: Sequence[str], kept: Sequence[int], n: int) -> list[str | None]:
    spread: list[str | None] = [None] * n
    for row, text in zip(kept, texts, strict=True):
        spread[row] = text
    return spread


def summary(part: Part, documents: Sequence[str]) -> list[dict[str, Any]]:
    """A record a layer, by measure: mean with its interval, the floor's mean, and the gain over the
    floor. `reads`: whether the gain in centred cosine with the layer's own vectors is what a pair
    that is not content-blind has."""
    places = {(one.measure, one.condition): one for one in part.measured}
    records = []
    for layer in (int(name) for name in part.detail.get("norms", {})):
        name = f"layer_{layer}"
        record: dict[str, Any] = {"layer": layer, "own": layer == part.detail["own"]}
        for (measure, condition), one in places.items():
            if condition != name:
                continue
            floor = places[measure, one.floor].values if one.floor else None
            made = finding(part.name, one, floor, documents)
            under = None if floor is None else float(np.nanmean(floor))
            kept = ("mean", "low", "high", "floor", "gain", "gain_low", "gain_high")
            record[measure] = {key: made[key] for key in kept} | {"floor_mean": under}
        gain = record["centred_cosine"]
        record["reads"] = gain["gain"] >= BLIND_GAIN and (gain["gain_low"] or 0) > 0
        records.append(record)
    return records
