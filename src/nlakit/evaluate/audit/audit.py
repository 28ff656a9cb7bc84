"""What can be said of a table of rows that somebody else made, and what cannot.

Measures are values a row, as everywhere in the evaluation; means, intervals and gains come from
`findings`. The rows judged are those of the variant `real`, of the test part where the table has
both parts; other variants are aligned with them by row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit import __version__
from nlakit.core.statistics import paired_difference
from nlakit.evaluate.audit.rows import ALL_FLOORS, AuditRows, audited_rows
from nlakit.evaluate.audit.table import AuditTable
from nlakit.evaluate.audit.texts import (
    label_parts,
    source_parts,
    split_parts,
    texts_part,
    token_parts,
)
from nlakit.evaluate.audit.vectors import measure_vectors
from nlakit.evaluate.bench import Measured, Part, Values
from nlakit.evaluate.conditions import FLOORS
from nlakit.evaluate.findings import finding
from nlakit.evaluate.parts.roundtrip import NOISE_FLOOR, card_block
from nlakit.evaluate.verdict import BLIND_GAIN, judge
from nlakit.run.folder import git_commit

STORED = ("fve", "centred_cosine", "cosine", "mse")
FLOOR_SHARE = 0.5  # share of the real rows that a floor must stand beside
BLIND_SHARE = 0.05  # least share of the floor's squared error that a text removes if it is read
STORED_OFF = 0.01  # above what half precision does to a cosine
BASELINE_OFF = 0.10  # relative; ū of the rows at hand is not quite that of the training rows
GROUPED = {("cosine", "real"), ("centred_cosine", "real"), ("unique", "explanation")}
GROUP_KINDS, MAX_GROUPS = ("source_family", "labeler_model"), 20
GATE = frozenset(
    {"collapsed", "content-blind", "contaminated-split", "truncated-texts", "cut-table"}
)


def audit(table: AuditTable, seed: int = 0) -> dict[str, Any]:
    """Everything that the columns of a table allow, as JSON: `warnings` (code, message, evidence),
    `verdict` (None without what it needs), tidy `findings`, `detail` a part, `notes`, `unsaid`
    (measure, missing column) and `provenance`.
    """
    rows = audited_rows(table, seed)
    if "doc_id" not in table:
        rows.cannot("intervals over documents; each row stands for its own", "doc_id")
    if "explanation" in table:
        rows.parts.append(texts_part(rows))
    else:
        rows.cannot("collapse of the texts", "explanation")
    rows.parts += score_parts(rows)
    verdict = _verdict(rows)
    for make in (source_parts, token_parts, label_parts, split_parts):
        rows.parts += make(rows)
    return {
        "kind": "nlakit_audit",
        "rows": {"judged": len(rows), "documents": len(set(rows.documents)), "table": table.rows},
        "warnings": rows.warnings,
        "verdict": verdict,
        "findings": _records(rows),
        "detail": {part.name: part.detail for part in rows.parts if part.detail},
        "notes": rows.notes + [note for part in rows.parts for note in part.notes],
        "unsaid": rows.unsaid,
        "provenance": {
            "file": table.path.name,
            "sha256": table.sha256,
            "rows": table.rows,
            "columns": table.read_as,
            "ignored": table.ignored,
            "nlakit": __version__,
            "git_commit": git_commit(),
            "seed": seed,
        },
    }


def _records(rows: AuditRows) -> list[dict[str, Any]]:
    """Findings of every part, and of cosines and unique texts by family and labeler."""
    found = []
    for part in rows.parts:
        for one in part.measured:
            floor = part.of(one.measure, one.floor) if one.floor else None
            groups: dict[str, NDArray[np.bool_] | None] = {"all": None}
            if (one.measure, one.condition) in GROUPED:
                groups |= _groups(rows)
            for group, picked in groups.items():
                record = finding(part.name, one, floor, rows.documents, picked, group)
                found.append({k: _finite(v) for k, v in record.items()})
    return found


def _finite(value: Any) -> Any:
    """An interval without bounds as null, which JSON has."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _groups(rows: AuditRows) -> dict[str, NDArray[np.bool_] | None]:
    made: dict[str, NDArray[np.bool_] | None] = {}
    for kind in GROUP_KINDS:
        if kind in rows.table:
            values = np.array([str(name) for name in rows.names(kind)])
            names = np.unique(values).tolist()
            if 1 < len(names) <= MAX_GROUPS:
                made |= {f"{kind}={name}": values == name for name in names}
    return made


def score_parts(rows: AuditRows) -> list[Part]:
    """Scores as stored, and computed again where there are vectors: then these are `roundtrip`."""
    stored = stored_part(rows)
    vectors = None
    if "activation_vector" in rows.table and "reconstruction" in rows.table:
        vectors = measure_vectors(rows)
    else:
        rows.cannot("FVE under its three baselines, centred cosine, rank of the own vector",
                    "activation_vector and reconstruction")  # fmt: skip
    parts = [part for part in (vectors, stored) if part is not None]
    if not parts:
        rows.cannot("any score", "cosine, mse, fve or centred_cosine")
        return []
    for part, name in zip(parts, ("roundtrip", "stored"), strict=False):
        part.name = name
        _set_floors(part)
    _add_card(rows, parts[0])
    check_baseline(rows, vectors, stored)
    if vectors is not None and stored is not None:
        check_stored(rows, vectors, stored)
    return parts


def stored_part(rows: AuditRows) -> Part | None:
    """Stored scores by variant."""
    part = Part("stored")
    for measure in (name for name in STORED if name in rows.table):
        for variant in rows.aligned:
            values = rows.values(measure, variant)
            if measure.endswith("cosine") and (bad := np.abs(values) > 1.001).any():
                rows.warn("impossible-score", f"{bad.sum()} values of {measure} are beyond ±1; "
                          "they are left out", values=int(bad.sum()))  # fmt: skip
                values[bad] = np.nan
            if not np.isnan(values).all():
                part.measured.append(Measured(measure, variant, values))
    real = {one.measure: one.values for one in part.measured if one.condition == "real"}
    for measure, values in real.items():
        if lost := int(np.isnan(values).sum()):
            part.notes.append(f"{measure}: {lost} of {len(rows)} attempted rows were not "
                              "evaluated, and the mean leaves them out")  # fmt: skip
    return part if part.measured else None


def _add_card(rows: AuditRows, part: Part) -> None:
    """The block of the Gemma-4-E2B card, and the share of cosines above its noise floor."""
    cosines = _under(part, "cosine").get("real")
    if cosines is None:
        return
    known = np.flatnonzero(~np.isnan(cosines))
    texts = rows.names("explanation") if "explanation" in rows.table else ["-"] * len(rows)
    block = card_block(cosines[known], [texts[i] for i in known])
    part.detail["card"] = block | {"attempted": len(rows)}
    above = np.where(np.isnan(cosines), np.nan, cosines > NOISE_FLOOR)
    part.measured.append(Measured("above_0_30", "real", above))


def _set_floors(part: Part) -> None:
    """Give each score of `real` the floor over which it gains least, of those that stand beside at
    least half of its rows: a floor of a few rows says nothing of the others."""
    for i, one in enumerate(part.measured):
        if one.condition != "real" or one.floor is not None:
            continue
        sign, rows = (-1 if one.measure == "mse" else 1), (~np.isnan(one.values)).sum()
        gains = {
            name: sign * (one.values - values)
            for name, values in _under(part, one.measure).items()
            if name in ALL_FLOORS
        }
        least = {
            name: float(np.nanmean(gain))
            for name, gain in gains.items()
            if rows and (~np.isnan(gain)).sum() >= FLOOR_SHARE * rows
        }
        if least:
            best = min(least, key=lambda name: least[name])
            part.measured[i] = Measured(one.measure, "real", one.values, best)


def _under(part: Part, measure: str) -> dict[str, Values]:
    """Condition → values of one measure."""
    return {one.condition: one.values for one in part.measured if one.measure == measure}


def check_stored(rows: AuditRows, vectors: Part, stored: Part) -> None:
    """Warn where a stored cosine or MSE is not that of the vectors: neither depends on ū."""
    for measure in ("cosine", "mse"):
        if (claimed := _under(stored, measure).get("real")) is not None:
            apart = np.abs(claimed - vectors.of(measure, "real"))
            if not np.isnan(apart).all() and (off := float(np.nanmedian(apart))) > STORED_OFF:
                rows.warn(
                    "wrong-score",
                    f"the stored {measure} is not that of the vectors, by {off:.3f} at the median",
                    measure=measure, median_difference=off,
                )  # fmt: skip


def check_baseline(rows: AuditRows, vectors: Part | None, stored: Part | None) -> None:
    """Warn where a stored FVE cannot have the baseline E‖u − ū‖², and name the one that it fits.

    FVE = 1 − E mse / base, so base = E mse / (1 − E FVE) over the rows that have both.
    """
    claimed = _under(stored, "fve").get("real") if stored else None
    scores = {one.measure: one.values for part in (stored, vectors) if part
              for one in part.measured if one.condition == "real"}  # fmt: skip
    mse = scores.get("mse")
    if mse is None and "cosine" in scores:
        mse = 2 * (1 - scores["cosine"])
    implied: dict[str, float] = {}
    if claimed is not None and mse is not None:
        both = ~np.isnan(claimed) & ~np.isnan(mse)
        if both.any() and (left := 1 - float(claimed[both].mean())) > 0:
            implied["stored fve"] = float(mse[both].mean()) / left
    if "baseline" in rows.table and (~np.isnan(rows.values("baseline"))).any():
        implied["stored baseline"] = float(np.nanmean(rows.values("baseline")))
    bases = vectors.detail["baselines"] if vectors else {}
    for name, base in implied.items():
        if vectors is not None and abs(base / bases["fve"] - 1) > BASELINE_OFF:
            fits = min(bases, key=lambda other: abs(bases[other] - base))
            near = f", near {fits}" if abs(bases[fits] / base - 1) < BASELINE_OFF else ""
            message = f"of these vectors it is {bases['fve']:.4f}"
        elif vectors is None and base > 1.02:
            near, message = "", "no mean unit vector leaves more than 1 of unit vectors"
        else:
            continue
        rows.warn("wrong-baseline", f"the {name} means a baseline of {base:.4f}{near}; {message}: "
                  "the FVE does not compare", implied=base, **bases)  # fmt: skip


def _verdict(rows: AuditRows) -> dict[str, Any] | None:
    """The verdict where centred cosine, FVE, a floor and texts are there; else whether the scores
    gain on a floor at all, from what is there."""
    part = next((part for part in rows.parts if part.name == "roundtrip"), None)
    if part is None:
        return None
    centred, fve = _under(part, "centred_cosine"), _under(part, "fve").get("real")
    if "real" in centred:
        centred.setdefault("mean", np.where(np.isnan(centred["real"]), np.nan, 0.0))
    if "real" not in centred or fve is None or "explanation" not in rows.table:
        rows.cannot("the verdict", "explanation, and centred_cosine with fve, or both vectors")
        _gain_of_text(rows, part)
        return None
    usable = {k: v[rows.sample] for k, v in centred.items() if k in (*FLOORS, "real")}
    usable = {
        k: v for k, v in usable.items() if np.mean(~np.isnan(v)) >= FLOOR_SHARE or k == "real"
    }
    kept = rows.sample[np.all(~np.isnan([*usable.values(), fve[rows.sample]]), axis=0)]
    if len({rows.documents[i] for i in kept}) < 2:
        rows.cannot("the verdict", "scores of two documents")
        return None
    texts = rows.names("explanation")
    some = {k: centred[k][kept] for k in (*usable, "same_document") if k in centred}
    found = judge(
        [texts[i] for i in kept], some, fve[kept], [rows.documents[i] for i in kept],
        seed=rows.seed,
    )  # fmt: skip
    if found.word in GATE:
        rows.warn(found.word, "; ".join(found.reasons))
    evidence = {
        k: {a: _finite(b) for a, b in v.items()} if isinstance(v, dict) else v
        for k, v in found.evidence.items()
    }
    return {"word": found.word, "reasons": found.reasons, "evidence": evidence, "rows": len(kept)}


def _gain_of_text(rows: AuditRows, part: Part) -> None:
    """Warn `content-blind` if the best floor comes near the real texts.

    By centred cosine the gain is that of the verdict. By raw cosine or squared error it is the
    share of the floor's error that the texts remove, (cos − floor) / (1 − floor): 0.04 is little at
    0.4 and much at 0.95.
    """
    for name in ("centred_cosine", "cosine", "mse"):
        one = next((m for m in part.measured if (m.measure, m.condition) == (name, "real")), None)
        if one is None or one.floor is None:
            continue
        floor = part.of(name, one.floor)
        both = ~np.isnan(one.values) & ~np.isnan(floor)
        pair = (floor, one.values) if name == "mse" else (one.values, floor)
        documents = [rows.documents[i] for i in np.flatnonzero(both)]
        gain = paired_difference(pair[0][both], pair[1][both], documents)
        room = floor[both].mean() if name == "mse" else 1 - floor[both].mean()
        share, least = gain.mean / room, BLIND_SHARE
        if name == "centred_cosine":
            share, least = gain.mean, BLIND_GAIN
        removed = "" if name == "centred_cosine" else f", {share:.1%} of the error it leaves"
        span = f"{gain.mean:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
        said = f"{name} gains {span} over {one.floor}{removed}"
        if share < least or gain.low <= 0:
            rows.warn("content-blind", f"{said}: the score hardly depends on the text",
                      share=share, gain=gain.mean, floor=one.floor)  # fmt: skip
        else:
            rows.notes.append(said)
        return
    rows.cannot("whether the score depends on the text", "variant rows (empty, gibberish, ...), "
                "or both vectors; a raw cosine alone says little")  # fmt: skip
