"""What of a run is worth committing: tables, metrics and results with their hashes, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import yaml

from nlakit.core.contract import FILE, table_sidecar
from nlakit.errors import ConfigError, DataError, RunError, first_line
from nlakit.files.parquet import VECTOR, read_table, write_table
from nlakit.files.text import as_json, read_record
from nlakit.publish.evaluation import FILES
from nlakit.publish.hub.contents import check, cleaned_page
from nlakit.publish.hub.parcel import is_local
from nlakit.publish.hub.places import visible_files
from nlakit.run.folder import FOLDERS, RunDir, atomic_write, file_sha256, read_exact

MANIFEST = "archive.json"
TEXTS = ("examples", "detail", "texts", "label_texts")  # keys of results.json
EVALUATION = (*FILES, "texts.parquet", "scores.parquet")
TRAINING = ("metrics.jsonl", "training.json", FILE, f"av/{FILE}", f"ar/{FILE}")
RL = ("rl/metrics.jsonl", "rl/training.json", "rl/start.json", "rl/kept.json")
KEPT = {
    "corpus": ("families.json",),
    "labels": ("quality.json",),
    "tables": ("norms.json",),
    "ar": TRAINING,
    "av": TRAINING,
    "pair": (*TRAINING, *RL),
    "eval": EVALUATION,
    "report": ("report.html",),
}


def archive(run: Path, out: Path, vectors: bool = False) -> dict[str, Any]:
    """Copy a run's configuration, manifests, tables, metrics, evaluation and report into a new
    folder, and archive.json last, with the SHA-256 and size of each file.

    Tables come without their activations unless `vectors`. Paths of this machine are cut to their
    last part; the files in which that happened are named. Raises ConfigError if `out` holds files,
    RunError if `run` is no run, DataError for something that looks like a key.
    """
    if not (run / "run.json").exists():
        raise RunError(f"{run} is no run folder", found="no run.json", do="give a run")
    new_folder(out)
    source = RunDir(run)
    copied = [name for name in ("run.json", "config.yaml") if (run / name).exists()]
    for stage in FOLDERS:
        if source.manifest(stage) is None:
            continue
        names = ("manifest.json", *KEPT.get(stage, ()))
        copied += [f"{FOLDERS[stage]}/{n}" for n in names if (source.folder(stage) / n).exists()]
    cut: dict[str, str] = {}
    rewritten = [name for name in copied if copy_public(run / name, out / name, cut)]
    if source.manifest("tables"):
        rewritten += _tables(run, source.folder("tables"), out, vectors, cut)
    page = Path(FOLDERS["report"]) / "report.html"
    if _clean_report(out / page, cut):
        rewritten.append(page.as_posix())
    return write_manifest(out, run=run.resolve().name, vectors=vectors, rewritten=rewritten)


def _tables(run: Path, tables: Path, out: Path, vectors: bool, cut: dict[str, str]) -> list[str]:
    """Tables with their sidecars; names of the files that differ from the run's."""
    changed = []
    for table in sorted(tables.glob("*.parquet")):
        name = table.relative_to(run).as_posix()
        rows = read_table(table)
        lost = not vectors and VECTOR in rows.column_names
        write_table(out / name, rows.drop_columns([VECTOR]) if lost else rows)
        changed += [name] if lost else []
        beside = table_sidecar(table)
        if beside.exists():
            beside_name = beside.relative_to(run).as_posix()
            changed += [beside_name] if copy_public(beside, out / beside_name, cut) else []
    return changed


def _clean_report(page: Path, cut: Mapping[str, str]) -> bool:
    """Whether the report was changed: it shows the settings, and with them paths; a folder goes
    after what is in it. It is left out if this machine's home is still in it."""
    if not page.exists():
        return False
    text = cleaned_page(page, cut)
    if text is None:
        page.unlink()
        return True
    changed = text != read_exact(page)
    if changed:
        atomic_write(page, text)
    return changed


def new_folder(out: Path) -> None:
    """Make a folder; ConfigError if something lies in it."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ConfigError(f"{out} is not empty", do="give a new folder")
    out.mkdir(parents=True, exist_ok=True)


def copy_public(source: Path, target: Path, cut: dict[str, str]) -> bool:
    """Copy a file, in YAML and JSON with paths of this machine cut to their last part; whether
    there were any. `cut` gathers them: path → what stands in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix not in (".json", ".yaml"):
        target.write_bytes(source.read_bytes())
        return False
    text = read_exact(source)
    try:
        data = json.loads(text) if source.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(
            f"{source} cannot be read",
            found=first_line(error),
            do="make it again, or copy it from where it was made",
        ) from error
    cleaned = _public(data, cut)
    if cleaned != data and source.suffix == ".json":
        text = as_json(cleaned, indent=1) + "\n"
    elif cleaned != data:
        text = yaml.safe_dump(cleaned, sort_keys=False, allow_unicode=True)
    atomic_write(target, text)
    return cleaned != data


def _public(found: Any, cut: dict[str, str]) -> Any:
    if isinstance(found, dict):
        # These are texts of the corpus and of the AV, whatever they look like.
        return {k: v if k in TEXTS else _public(v, cut) for k, v in found.items()}
    if isinstance(found, list):
        return [_public(item, cut) for item in found]
    if not isinstance(found, str) or not is_local(found):
        return found
    cut[found] = PureWindowsPath(found).name
    return cut[found]


def write_manifest(folder: Path, **facts: Any) -> dict[str, Any]:
    """Write archive.json with the size and SHA-256 of every file below `folder`.

    Raises DataError for a file that seems to hold a key: what lies here is meant to be shared.
    """
    files = {name: file for name, file in visible_files(folder) if name != MANIFEST}
    check(files)
    records = {
        name: {"sha256": file_sha256(file), "bytes": file.stat().st_size}
        for name, file in sorted(files.items())
    }
    record = {**facts, "files": records}
    atomic_write(folder / MANIFEST, as_json(record, indent=1) + "\n")
    return record


def read_manifest(folder: Path) -> dict[str, Any]:
    """archive.json of a folder; DataError if it is missing or something else."""
    file = folder / MANIFEST
    found = read_record(file)
    files = found.get("files")
    if not isinstance(files, dict) or not all(
        isinstance(record, dict) and isinstance(record.get("sha256"), str)
        for record in files.values()
    ):
        raise DataError(f"{file} lists no files with their hashes", do="make the folder again")
    return found


def wrong_file(folder: Path) -> str | None:
    """The first file that is missing, added or not what archive.json says; None if all are."""
    recorded = read_manifest(folder)["files"]
    present = dict(visible_files(folder))
    for name, record in recorded.items():
        if name not in present:
            return f"{name} is missing"
        if (found := file_sha256(present[name])) != record["sha256"]:
            return f"{name} has SHA-256 {found[:16]}…, expected {record['sha256'][:16]}…"
    added = sorted(present.keys() - recorded.keys() - {MANIFEST})
    return f"{added[0]} is not in {MANIFEST}" if added else None
