"""A stage: skip when finished, resume when half-done, refuse when stale, manifest last."""

from __future__ import annotations

import errno
import functools
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from nlakit.config.load import config_hash
from nlakit.config.sections import RunConfig
from nlakit.errors import NlakitError, RunError
from nlakit.run.folder import (
    FileRecord,
    Manifest,
    Rows,
    RunDir,
    atomic_write,
    device_used,
    file_sha256,
    git_commit,
    library_versions,
)
from nlakit.run.inputs import Outside, changed_inputs, nothing, write_inputs
from nlakit.run.peak import peak_memory

SPACE_TO_WRITE = 1 << 20  # bytes; with less left, a failed write is a full disk
State = Literal["missing", "partial", "stale", "done"]


Body = Callable[[RunConfig, RunDir, Path], Rows]
Stage = Callable[[RunConfig, RunDir], Manifest]


def stage(
    name: str,
    *,
    parents: Sequence[str] = (),
    sections: Sequence[str] = (),
    outside: Outside = nothing,
    alone: Callable[[RunConfig], bool] = lambda config: False,
) -> Any:
    """Turn a body `(config, rundir, folder) -> Rows` into a stage `run(config, rundir)`.

    `sections` names the settings the result depends on, `outside` the files it reads that no other
    stage made; `alone` says whether under a configuration it rests on no other stage. The stage
    returns its manifest at once if it is finished and unchanged, resumes if half-done, and raises
    RunError if a setting, a parent or a file changed.
    """

    def parents_of(config: RunConfig) -> tuple[str, ...]:
        return () if alone(config) else tuple(parents)

    def decorate(body: Body) -> Stage:
        @functools.wraps(body)
        def run(config: RunConfig, rundir: RunDir) -> Manifest:
            begin = _begin_record(config, rundir, name, parents_of(config), sections)
            manifest, folder, reads = rundir.manifest(name), rundir.folder(name), outside(config)
            if manifest is not None:
                then = _begin_of(manifest, rundir, name)
                _refuse_stale(rundir, name, changes(begin, then) + changed_inputs(folder, reads))
                return manifest
            if begun(folder):
                saved = json.loads((folder / "begin.json").read_text(encoding="utf-8"))
                _refuse_stale(rundir, name, changes(begin, saved) + changed_inputs(folder, reads))
            else:
                write_inputs(folder, reads)
            atomic_write(folder / "begin.json", json.dumps(begin, indent=1) + "\n")
            return _run_body(body, config, rundir, name, begin)

        run.stage_name = name  # type: ignore[attr-defined]
        run.parents = tuple(parents)  # type: ignore[attr-defined]
        run.parents_of = parents_of  # type: ignore[attr-defined]
        run.sections = tuple(sections)  # type: ignore[attr-defined]
        run.outside = outside  # type: ignore[attr-defined]
        return run

    return decorate


def begun(folder: Path) -> bool:
    """Whether a stage has made something. One that failed before it did begins anew, so that a
    mended source or setting needs no --redo."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return any(not path.name.startswith(".") and path.name != "begin.json" for path in files)


def _begin_record(
    config: RunConfig, rundir: RunDir, name: str, parents: Sequence[str], sections: Sequence[str]
) -> dict[str, Any]:
    settings = _settings_record(config, sections)
    return {"stage": name, **settings, "parents": rundir.parent_identities(parents)}


def _settings_record(config: RunConfig, sections: Sequence[str]) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    return {
        "config_hash": config_hash(config, sections),
        "config": {name: data[name] for name in sections if data[name] is not None},
    }


def _begin_of(manifest: Manifest, rundir: RunDir, name: str) -> dict[str, Any]:
    path = rundir.folder(name) / "begin.json"
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {
        "config_hash": manifest.config_hash,
        "config": saved.get("config", {}),
        "parents": manifest.parents,
    }


def _run_body(
    body: Body, config: RunConfig, rundir: RunDir, name: str, begin: Mapping[str, Any]
) -> Manifest:
    folder = rundir.folder(name)
    started = time.monotonic()
    for leftover in folder.rglob(".*.tmp-*"):  # of a process that was killed while it wrote
        leftover.unlink()
    try:
        with peak_memory() as peak:
            rows = body(config, rundir, folder)
        manifest = Manifest(
            stage=name,
            config_hash=begin["config_hash"],
            parents=begin["parents"],
            files=_file_records(folder),
            rows=rows,
            seconds=round(time.monotonic() - started, 2),
            peak_bytes=peak,
            device=device_used(config.subject.device),
            versions=library_versions(),
            git_commit=git_commit(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        atomic_write(folder / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's; a stage may run without torch
            raise RunError(
                f"the device has no room for stage {name}",
                found=str(error).split(". ")[0],
                do="lower batch_rows (raise accumulation), switch gradient_checkpointing on, use "
                "subject.quantisation: nf4; `nlakit plan` predicts each stage",
            ) from error
        if not _disk_full(error, folder):
            raise
        raise RunError(
            f"the disk is full while stage {name} writes",
            found=str(folder),
            do="free some space and run the same command again; finished chunks are kept",
        ) from error
    return manifest


def _disk_full(error: Exception, folder: Path) -> bool:
    """Whether a write failed for want of space. torch and safetensors raise errors of their own
    without an errno, so what is left on the disk is asked too."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    if isinstance(error, NlakitError):
        return False
    return shutil.disk_usage(folder).free < SPACE_TO_WRITE


def _file_records(folder: Path) -> dict[str, FileRecord]:
    """Every file of a stage but its manifest, checkpoints (resume material) and hidden files."""
    records = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_dir() or hidden or relative.parts[0] in ("checkpoints", "manifest.json"):
            continue
        records[relative.as_posix()] = FileRecord(
            sha256=file_sha256(path), bytes=path.stat().st_size
        )
    return records


def changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """What differs between two begin records, one line each; empty if nothing."""
    lines = []
    if now["config_hash"] != then["config_hash"]:
        found = list(_differences(then.get("config", {}), now["config"]))
        lines += found or ["settings"]
    for parent in sorted({*now["parents"], *then["parents"]}):
        if now["parents"].get(parent) != then["parents"].get(parent):
            lines.append(f"result of stage {parent}")
    return lines


def _differences(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{prefix}.{key}".lstrip("."))
    elif old != new:
        yield f"{prefix}: {old!r} -> {new!r}"


def _refuse_stale(rundir: RunDir, name: str, lines: Sequence[str]) -> None:
    if lines:
        raise RunError(
            f"stage {name} in {rundir.path} was made under other conditions",
            found=" | ".join(lines),
            do=f"redo it with --redo {name} (the old folder is kept), or use another --out",
        )


def refuse_changes(stage_run: Any, config: RunConfig, rundir: RunDir) -> None:
    """Raise RunError if a stage was begun under other settings or on other files, before anything
    is touched."""
    path = rundir.folder(stage_run.stage_name) / "begin.json"
    if not path.exists() or not begun(path.parent):
        return
    saved = json.loads(path.read_text(encoding="utf-8"))
    now = {**saved, **_settings_record(config, stage_run.sections)}
    lines = changes(now, saved) + changed_inputs(path.parent, stage_run.outside(config))
    _refuse_stale(rundir, stage_run.stage_name, lines)


def stage_state(stage_run: Any, config: RunConfig, rundir: RunDir) -> tuple[State, list[str]]:
    """State of a stage under a configuration, with what changed if it is stale."""
    name = stage_run.stage_name
    folder = rundir.folder(name)
    if not (folder / "begin.json").exists() or not begun(folder):
        return "missing", []
    try:
        manifest = rundir.manifest(name)
        now = _begin_record(config, rundir, name, stage_run.parents_of(config), stage_run.sections)
    except RunError as error:
        return "stale", [str(error)]
    saved = json.loads((folder / "begin.json").read_text(encoding="utf-8"))
    lines = changes(now, _begin_of(manifest, rundir, name) if manifest else saved)
    lines += changed_inputs(folder, stage_run.outside(config))
    if lines:
        return "stale", lines
    return ("done" if manifest else "partial"), []
