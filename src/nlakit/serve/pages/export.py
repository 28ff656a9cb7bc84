"""What is explained of a text as a file: JSON, CSV, or one HTML page that needs nothing else."""

from __future__ import annotations

import csv
import io
from typing import Any

from markupsafe import Markup

from nlakit import __version__
from nlakit.errors import DataError
from nlakit.files.text import as_json
from nlakit.serve.pages.pairs import Reading, Told
from nlakit.serve.pages.shown import STATIC, render

MEDIA = {"json": "application/json", "csv": "text/csv", "html": "text/html"}


def exported(reading: Reading, form: str) -> tuple[str, str, str]:
    """The file's content, its type, and its name.

    Raises DataError for an unknown form, and where nothing is explained yet.
    """
    if form not in MEDIA:
        raise DataError("unknown form of export", found=form[:40], do=" ".join(MEDIA))
    told = [reading.told[at] for at in sorted(reading.told)]
    if not told:
        raise DataError("no token is explained yet", do="click one, or explain all")
    about = about_of(reading)
    if form == "json":
        made = as_json(about | {"rows": [record(one) for one in told]}, indent=1) + "\n"
    elif form == "csv":
        made = _csv([record(one) for one in told])
    else:
        style = Markup((STATIC / "explorer.css").read_text(encoding="utf-8"))
        made = render("export", reading=reading, about=about, told=told, style=style)
    return made, MEDIA[form], f"explanations.{form}"


def about_of(reading: Reading) -> dict[str, Any]:
    """What must be known to judge the rows."""
    pair = reading.pair
    return {
        "pair": pair.name,
        "subject": pair.nla.contract.extraction.base_model,
        "layer": pair.nla.contract.layer,
        "verdict": pair.opening.word,
        "verdict_sentence": pair.opening.sentence,
        "warnings": list(pair.opening.warnings),
        "measure": pair.measure,
        "floors": "floor_empty: the empty text; floor_other: mean of 16 other texts",
        "nlakit": __version__,
        "kind": reading.kind,
        "text": reading.text,
        "tokens": len(reading.ids),
    }


def record(told: Told) -> dict[str, Any]:
    """One row; scores are None without an AR."""
    marks = told.marks
    return {
        "position": told.at,
        "token": told.token,
        "token_id": told.token_id,
        "explanation": told.explanation,
        "l2_norm": told.norm,
        "score": marks and marks.value,
        "floor_empty": marks and marks.empty,
        "floor_other": marks and marks.other,
        "cosine": marks and marks.cosine,
        "fve": marks and marks.fve,
    }


def _csv(records: list[dict[str, Any]]) -> str:
    made = io.StringIO(newline="")
    writer = csv.DictWriter(made, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return made.getvalue()
