"""The model card of an evaluated pair. Every number in it comes from the files in `results/`.

The card is a function of that folder alone: the same files give the same bytes, so that
`nlakit verify` can make it again and compare.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from nlakit import __version__
from nlakit.core.contract import FILE, read_contract
from nlakit.errors import DataError, first_line
from nlakit.files.markdown import environment
from nlakit.files.text import as_json, read_record
from nlakit.publish.card.draft import check_same, facts_of, front_matter, limitations, spanned, top
from nlakit.publish.card.parts import (
    CORRECTIONS,
    corrections,
    examples,
    failures,
    headlines,
    overturned,
    parts,
)
from nlakit.publish.card.rules import uses
from nlakit.publish.compare.figure import Dot, draw_dots
from nlakit.publish.evaluation import FILES, Evaluation, evaluation_folder, read_evaluation
from nlakit.publish.hub.archive import copy_public, new_folder, write_manifest
from nlakit.publish.report.numbers import interval, num, percent
from nlakit.publish.report.report import MEASURES, NAMES, checks, condition_groups
from nlakit.run.folder import atomic_write, read_exact

RESULTS, CARD = "results", "README.md"
HUB = "https://huggingface.co/"
CHANGED = "it was changed by hand, or written by another version of nlakit"


def write_model_card(
    target: Path,
    out: Path,
    *,
    pair: str | None = None,
    name: str | None = None,
    license: str | None = None,
    data: Sequence[str] = (),
    other: str | None = None,
) -> str:
    """Write README.md and results/ of an evaluated run, or of an evaluation's folder, into a new
    folder; the card's text. pair: the folder with its contracts, the run's own unless given;
    data: hub ids of data sets; other: hub id of the other half, where the halves lie apart.

    Raises what `read_evaluation` raises, DataError for an evaluation of one half alone, and
    ConfigError if `out` holds files.
    """
    evaluation = _whole(read_evaluation(evaluation_folder(target)))
    contracts = _contract_files(pair or (str(target) if (target / "run.json").exists() else None))
    new_folder(out)
    results = out / RESULTS
    for file in FILES:
        copy_public(evaluation.folder / file, results / file, {})
    for role, file in contracts.items():
        copy_public(file, results / "contracts" / role / FILE, {})
    if (target / "run.json").exists():
        copy_public(target / "config.yaml", results / "config.yaml", {})
    about = {"name": name or target.resolve().name, "license": license, "data": list(data),
             "other": other, "nlakit": __version__, "evaluated": evaluation.day}  # fmt: skip
    atomic_write(results / "card.json", as_json(about, indent=1) + "\n")
    draw_figures(read_evaluation(results), results / "figures")
    write_manifest(results)
    text = render(results)
    atomic_write(out / CARD, text)
    return text


def _whole(evaluation: Evaluation) -> Evaluation:
    """The evaluation, if both halves were evaluated together."""
    known = evaluation.results
    if absent := [name for name in ("verdict", "scores", "gains") if not known.get(name)]:
        raise DataError(
            "a card needs an evaluation of both halves",
            found=f"no {', '.join(absent)}",
            do="evaluate the AV with an AR: nlakit eval --av X --ar Y",
        )
    return evaluation


def _contract_files(pair: str | None) -> dict[str, Path]:
    """Role → sidecar, of the halves that have one."""
    if pair is None:
        return {}
    from nlakit.models.foreign.folders import find_halves

    found = {role: folder / FILE for role, folder in find_halves(pair).items()}
    return {role: file for role, file in found.items() if file.exists()}


def draw_figures(evaluation: Evaluation, folder: Path) -> None:
    """Scores and floors with their intervals, a figure a measure."""
    for measure in ("centred_cosine", "fve"):
        dots = [
            Dot(row["name"], row[measure], floor=row["key"] != "real")
            for _, rows in condition_groups(evaluation.results["scores"])
            for row in rows
        ]
        draw_dots(f"{MEASURES[measure]}, by what the AR is fed", dots, folder / f"{measure}.png")


def render(folder: Path) -> str:
    """The card from its results folder.

    Raises DataError if a file is missing or holds something else than an evaluation wrote, or the
    contracts are of other activations.
    """
    try:
        return _rendered(folder)
    except (UndefinedError, LookupError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"the records in {folder} make no card",
            found=f"{type(error).__name__}: {first_line(error)}",
            do="they were changed, or are of another nlakit: evaluate again",
        ) from error


def _rendered(folder: Path) -> str:
    evaluation = read_evaluation(folder)
    results = evaluation.results
    about = read_record(folder / "card.json")
    files = sorted((folder / "contracts").glob(f"*/{FILE}"))
    contracts = {f"{file.parent.name}/{FILE}": read_contract(file) for file in files}
    check_same(results, contracts.values())
    what = "pair" if len(contracts) != 1 else next(iter(contracts)).split("/")[0]
    templates = environment(Path(__file__).parent)
    templates.filters |= {
        "num": num, "percent": percent, "interval": interval, "spanned": spanned, "top": top,
    }  # fmt: skip
    config = folder / "config.yaml"
    provenance = results["provenance"]
    return templates.get_template("model_card.md.j2").render(
        about=about,
        front=_front(what, about, evaluation),
        facts=facts_of(what, contracts, provenance.get("git_commit")) if contracts else (),
        results=results,
        provenance=provenance,
        date=evaluation.day,
        hub=HUB,
        headlines=headlines(evaluation),
        checks=checks(results["verdict"]["evidence"]),
        groups=condition_groups(results["scores"]),
        names=NAMES,
        measures=MEASURES,
        failures=failures(evaluation),
        good=uses(results, good=True),
        bad=uses(results, good=False),
        limits=limitations(results),
        parts=parts(evaluation),
        examples=examples(evaluation),
        settings=results["settings"],
        config=read_exact(config).rstrip() if config.exists() else None,
        corrections=corrections(folder, evaluation),
    )


def _front(what: str, about: Mapping[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    base = evaluation.results["provenance"].get("base_model") or ""
    front = front_matter(what, base, about["license"])
    front |= {"datasets": about["data"]} if about["data"] else {}
    metrics = [
        {"type": one["measure"], "name": one["title"], "value": round(one["mean"], 4)}
        for one in headlines(evaluation)
    ]
    entry = {
        "task": {"type": "natural-language-autoencoding", "name": "Round trip of activations"},
        "dataset": {"type": "held-out-documents", "name": "Held-out documents"},
        "metrics": metrics,
    }
    return front | {"model-index": [{"name": about["name"], "results": [entry]}]}


def correct(target: Path, card: Path) -> list[dict[str, Any]]:
    """Append to a card what a later evaluation of the same pair overturns, and store its results
    under results/corrections/DATE-N. The card's own numbers stay. Returns the overturned numbers;
    if there are none and the verdict is the same, nothing is written.

    Raises DataError if the card is not what its results give (a handwritten note would be lost), or
    if the evaluation is of another pair.
    """
    results = card / RESULTS
    old, new = read_evaluation(results), _whole(read_evaluation(evaluation_folder(target)))
    if read_exact(card / CARD) != render(results):
        raise DataError(f"{card / CARD} is not what its results give", found=CHANGED,
                        do="`nlakit verify` names the first difference")  # fmt: skip
    _check_pair(old.results["provenance"], new.results["provenance"])
    found = overturned(old, new)
    if not found and old.results["verdict"]["word"] == new.results["verdict"]["word"]:
        return []
    number = len(list((results / CORRECTIONS).glob("*"))) + 1
    place = results / CORRECTIONS / f"{new.day}-{number}"
    try:
        for file in FILES:
            copy_public(new.folder / file, place / file, {})
        text = render(results)
        write_manifest(results)
        atomic_write(card / CARD, text)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    return found


def _check_pair(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for key in ("base_model", "layer", "pair"):
        # Halves that were evaluated apart from their run have no identity to compare.
        both = old.get(key) is not None and new.get(key) is not None
        if both and old[key] != new[key]:
            raise DataError(
                "the new evaluation is of another pair than the card",
                found=f"{key}: {new.get(key)} instead of {old.get(key)}",
                do="write a card of its own: leave out --correct",
            )
