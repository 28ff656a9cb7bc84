"""Compare the layers of a subject: one pass, the same measures of each, one recommendation."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig, SubjectConfig
from nlakit.core.layer_choice import layers_named
from nlakit.core.shown import plain_table, shorter
from nlakit.errors import ConfigError, DataError, ModelError, first_line
from nlakit.files.text import as_json, read_record
from nlakit.run import pipeline
from nlakit.run.folder import RunDir, atomic_write, device_used, git_commit, library_versions
from nlakit.run.progress import say

if TYPE_CHECKING:
    from nlakit.core.layer_choice import Compared
    from nlakit.models.subject import Subject

HELD_OUT_SHARE = 0.4
LEARNING_RATE = 5e-4
FORMAT = 1
STAGES = ("corpus", "activations", "split", "labels")
Record = dict[str, Any]


def depth_and_width(config: SubjectConfig) -> tuple[int, int]:
    """Blocks and d_model of a subject, from its configuration alone.

    Raises ModelError if there is none.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from nlakit.models.gguf import source_of

    source = source_of(config.model)
    try:
        found = AutoConfig.from_pretrained(source, trust_remote_code=config.trust_remote_code)
        text = found.get_text_config(decoder=True)
        return int(text.num_hidden_layers), int(text.hidden_size)
    except (OSError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
        raise ModelError(
            f"cannot read the configuration of {config.model}",
            found=first_line(error),
            do="give a local folder, a hub id, or gemma-3-270m (embedded)",
        ) from error


def chosen_layers(asked: str, blocks: int) -> list[int]:
    """`all`, or what `layers_named` takes, as ascending layers. Raises ConfigError for anything
    else, and for a layer that is not below `blocks`."""
    if asked.strip() == "all":
        return list(range(blocks))
    layers = layers_named(asked)
    if layers[-1] >= blocks:
        raise ConfigError(
            f"the subject has no block {layers[-1]}",
            found=f"blocks 0 to {blocks - 1}",
            do="choose other --layers",
        )
    return layers


def settings(
    subject: SubjectConfig, corpus: str, layers: Sequence[int], documents: int, positions: int,
    seed: int,
) -> RunConfig:  # fmt: skip
    """The run in which layers are read: all of them in one pass, documents held out by the split.

    The first layer is `subject.layer`, the others are extra layers.
    """
    first, *others = layers
    return parse_config(
        {
            "name": "layers",
            "seed": seed,
            "subject": {**subject.model_dump(), "layer": first},
            "corpus": {"sources": [{"path": corpus}], "max_documents": documents},
            "activations": {
                "positions_per_document": positions,
                "extra_layers": others,
                "documents_per_chunk": 32,
            },
            "split": {"av": 0, "rl": 0, "ar": 1 - HELD_OUT_SHARE, "test": HELD_OUT_SHARE},
            "ar": {"phases": [{"steps": 1, "lr": LEARNING_RATE}]},
        }
    )


def survey(
    config: RunConfig, folder: Path, steps: int, rows: int, redo: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure every layer of `settings` in the run folder; write layers.json and layers.png there.

    steps: of each layer's AR; 0 leaves it out, and the labels with it. rows: held-out rows that
    each AR is scored on. A finished stage or layer is not done again. Returns what layers.json
    holds. Raises RunError if the folder was begun under other settings, DataError if the corpus
    has too few documents or neither ARs nor retrieval compare the layers.
    """
    stages = STAGES if steps else STAGES[:3]
    rundir = pipeline.run(config, folder, redo=redo, stages=stages)
    layers = sorted({config.subject.layer, *config.activations.extra_layers})
    with rundir.lock():
        key = _key(config, rundir, steps, rows, stages)
        missing = [layer for layer in layers if _finished(rundir, layer, key) is None]
        if missing:
            _measure(config, rundir, missing, key, steps, rows)
        found = {layer: _finished(rundir, layer, key) for layer in layers}
        whole = {layer: one for layer, one in found.items() if one is not None}
        assert len(whole) == len(layers), "every layer was measured"
        report = _report(config, rundir, key, whole)
        text = as_json(report, indent=1)
        atomic_write(rundir.path / "layers.json", text + "\n")
        _draw(report, rundir.path / "layers.png")
    return report


def _key(
    config: RunConfig, rundir: RunDir, steps: int, rows: int, stages: Sequence[str]
) -> dict[str, Any]:
    """What a layer's figures depend on."""
    return {
        "format": FORMAT,
        "seed": config.seed,
        "steps": steps,
        "rows": rows if steps else None,
        "ar": config.ar.model_dump(mode="json") if steps else None,
        "stages": rundir.parent_identities(stages),
    }


def _file(rundir: RunDir, layer: int) -> Path:
    return rundir.path / "layers" / f"L{layer:03d}.json"


def _finished(rundir: RunDir, layer: int, key: Mapping[str, Any]) -> Record | None:
    """What was measured of a layer under the same conditions, or None."""
    path = _file(rundir, layer)
    if not path.exists():
        return None
    try:
        saved = read_record(path)
    except DataError:
        return None  # a damaged file is measured again
    return saved if saved.get("key") == key else None


def _measure(
    config: RunConfig, rundir: RunDir, layers: Sequence[int], key: Record, steps: int, rows: int
) -> None:
    """Measure layers one after the other: one layer's vectors are in memory at a time."""
    from nlakit.files.parquet import VECTOR, matrix, read_table
    from nlakit.models.subject import load_subject
    from nlakit.studies.layer_measures import measure_geometry, quick_ar, read_shared

    subject: Subject = load_subject(config.subject)
    shared = read_shared(rundir, subject.tokenizer, steps > 0, config)
    for layer in layers:
        started = time.monotonic()
        own = config.subject.model_copy(update={"layer": layer})
        column = VECTOR if layer == config.subject.layer else f"{VECTOR}_L{layer}"
        table = read_table(rundir.need("activations"), [column])
        vectors = matrix(table, column)[shared.kept]
        record, values = measure_geometry(shared, vectors, subject, config.seed)
        if steps:
            record["ar"], values["content gain"] = quick_ar(
                shared,
                vectors,
                subject,
                config.model_copy(update={"subject": own}),
                rundir.path / "layers" / f"L{layer:03d}",
                steps,
                rows,
            )
        else:
            record["ar"] = {"not_measured": "--steps 0"}
        seconds = round(time.monotonic() - started, 1)
        record = {"layer": layer, **record, "seconds": seconds}
        saved = {"key": key, "record": record, "values": values}
        atomic_write(_file(rundir, layer), as_json(saved) + "\n")
        say(f"layer {layer}: measured in {seconds:.0f} s")


def compared(found: Mapping[int, Record]) -> list[Compared]:
    """The measures that layers are compared by, the deciding one first."""
    from nlakit.core.layer_choice import Compared

    made = []
    for name in ("content gain", "document retrieval"):
        values = {
            layer: one["values"][name] for layer, one in found.items() if name in one["values"]
        }
        if values:
            first = next(iter(values.values()))
            own = {layer: value["values"] for layer, value in values.items()}
            made.append(Compared(name, first["documents"], _arrays(own), first["floor"]))
    return made


def _arrays(values: Mapping[int, Sequence[float]]) -> dict[int, Any]:
    import numpy as np

    return {layer: np.asarray(value, dtype=np.float64) for layer, value in values.items()}


def _report(
    config: RunConfig, rundir: RunDir, key: Mapping[str, Any], found: Mapping[int, Record]
) -> dict[str, Any]:
    from nlakit.core.layer_choice import recommend, warnings

    blocks, _ = depth_and_width(config.subject)
    measures = compared(found)
    if not measures:
        raise DataError(
            "no layer can be compared",
            found="neither an AR's content gain nor document retrieval was measured",
            do="give --steps, or more --positions, or longer documents",
        )
    warned = warnings(measures)
    corpus, activations = rundir.manifest("corpus"), rundir.manifest("activations")
    assert corpus is not None and activations is not None, "both were needed to measure"
    return {
        "model": config.subject.model,
        "blocks": blocks,
        "recommendation": recommend(measures[0], blocks, {one["layer"] for one in warned}),
        "warnings": warned,
        "layers": [one["record"] for _, one in sorted(found.items())],
        "config": {
            **config.model_dump(mode="json", include={"subject", "corpus", "activations", "split"}),
            **{name: key[name] for name in ("seed", "steps", "rows", "ar")},
        },
        "provenance": {
            "git_commit": git_commit(),
            "versions": library_versions(),
            "device": device_used(config.subject.device),
            "corpus_sha256": corpus.files["corpus.parquet"].sha256,
            "activations": activations.rows.model_dump(),
            "stages": key["stages"],
        },
    }


def _draw(report: Mapping[str, Any], target: Path) -> None:
    from nlakit.publish.layer_figure import draw
    from nlakit.run.folder import atomic_path

    with atomic_path(target) as path:
        draw(report, path)


COLUMNS = ("layer", "mean", "rank", "found", "family", "next", "own", "content gain ±95%", "FVE")
SCORES = ("document_retrieval", "family_probe", "next_token", "own_token")


def table_of(report: Mapping[str, Any]) -> Table:
    """One line a layer, the highest floor of any layer below; then the advice and the warnings."""
    advice, records = report["recommendation"], report["layers"]
    lines = [advice["reason"], *(warning["text"] for warning in report["warnings"])]
    table = plain_table(
        COLUMNS,
        left=0,
        title=escape(f"{report['model']}, held-out documents"),
        caption=escape("\n".join(lines)),
    )
    for record in records:
        chosen = record["layer"] == advice["layer"]
        table.add_row(*_cells(record), style="bold" if chosen else None)
    table.add_section()
    floors = [max((_floor(record, name) for record in records), default=None) for name in SCORES]
    fve = [ar["scores"][ar["gain"]["fve"]["best_floor"]]["fve"]["mean"]
           for ar in (record["ar"] for record in records) if "gain" in ar]  # fmt: skip
    table.add_row(
        "floor", "0.00", "1", *map(_number, floors), "0.000", _number(max(fve, default=None))
    )
    return table


def _cells(record: Mapping[str, Any]) -> list[str]:
    ar = record["ar"]
    return [
        str(record["layer"]),
        _number(record["mean_share"]["mean"]),
        f"{record['effective_rank']['value']:.0f}",
        *(_number(record[name].get("mean")) for name in SCORES),
        shorter(ar["gain"]["centred_cosine"]) if "gain" in ar else "–",
        _number(ar["scores"]["real"]["fve"]["mean"] if "scores" in ar else None),
    ]


def _floor(record: Mapping[str, Any], name: str) -> float:
    return max(record[name].get("floors", {}).values(), default=float("nan"))


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.2f}"
