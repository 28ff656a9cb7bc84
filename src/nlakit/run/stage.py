"""A stage: skip when finished, resume when half-done, refuse when stale, manifest last."""

from __future__ import annotations

import contextlib
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
from nlakit.errors import NlakitError, RunError, first_line
from nlakit.run.folder import (
    MADE_AGAIN,
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
from nlakit.run.repair import free_of_charge, repair

SPACE_TO_WRITE = 1 << 20  # bytes; with less left, a failed write means a full disk
State = Literal["missing", "partial", "stale", "damaged", "done"]


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
    stage made; `alone` says whether, under a configuration, it rests on no other stage. The stage
    returns its manifest at once if it is finished and unchanged, makes damaged files again where
    they come out the same, resumes if half-done, and raises RunError if a setting, a parent or a
    file changed, or if a file is damaged.
    """

    def parents_of(config: RunConfig) -> tuple[str, ...]:
        return () if alone(config) else tuple(parents)

    def decorate(body: Body) -> Stage:
        @functools.wraps(body)
        def run(config: RunConfig, rundir: RunDir) -> Manifest:
            begin = _begin_record(config, rundir, name, parents_of(config), sections)
            manifest, folder, reads = rundir.record(name), rundir.folder(name), outside(config)
            if manifest is not None or begun(folder):
                then = _begin_of(manifest, rundir, name) if manifest else _saved(rundir, name)
                _refuse_stale(rundir, name, changes(begin, then) + changed_inputs(folder, reads))
            damaged = rundir.damage(name, contents=True)
            if damaged and name not in MADE_AGAIN:
                rundir.refuse_damage(name, damaged)
            if manifest is None or damaged:
                for parent in parents_of(config):
                    rundir.need(parent)

            def make(again: Path) -> None:
                _write_begin(again, begin)
                with _told(rundir, name):
                    body(free_of_charge(config), rundir, again)

            if manifest is not None:
                if damaged:
                    repair(rundir, manifest, damaged, make)
                return manifest
            if not begun(folder):
                write_inputs(folder, reads)
            _write_begin(folder, begin)
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


def _write_begin(folder: Path, begin: Mapping[str, Any]) -> None:
    atomic_write(folder / "begin.json", json.dumps(begin, indent=1) + "\n")


def _saved(rundir: RunDir, name: str) -> dict[str, Any]:
    """What a stage was begun under. Raises RunError if that cannot be read."""
    try:
        return json.loads((rundir.folder(name) / "begin.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(
            f"nothing says under which settings stage {name} was begun",
            found=first_line(error),
            do=f"redo it with --redo {name}",
        ) from error


def _begin_of(manifest: Manifest, rundir: RunDir, name: str) -> dict[str, Any]:
    saved: dict[str, Any] = {}
    with contextlib.suppress(RunError):  # it words what changed, and no more
        saved = _saved(rundir, name)
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
    with _told(rundir, name):
        with peak_memory() as peak:
            rows = body(config, rundir, folder)
        manifest = Manifest(
            stage=name,
            config_hash=begin["config_hash"],
            parents=begin["parents"],
            files=file_records(folder),
            rows=rows,
            seconds=round(time.monotonic() - started, 2),
            peak_bytes=peak,
            device=device_used(config.subject.device),
            versions=library_versions(),
            git_commit=git_commit(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        atomic_write(folder / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    return manifest


@contextlib.contextmanager
def _told(rundir: RunDir, name: str) -> Iterator[None]:
    """Raise RunError where the body runs out of memory or space."""
    folder = rundir.folder(name)
    try:
        yield
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


def _disk_full(error: Exception, folder: Path) -> bool:
    """Whether a write failed for want of space. torch and safetensors raise errors of their own
    without an errno, so what is left on the disk is asked too."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    if isinstance(error, NlakitError):
        return False
    return shutil.disk_usage(folder).free < SPACE_TO_WRITE


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Every file of a stage but its manifest, checkpoints (resume material) and hidden files."""
    records = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        resumable = "checkpoints" in relative.parts or relative.as_posix() == "manifest.json"
        if path.is_dir() or hidden or resumable:
            continue
        records[relative.as_posix()] = FileRecord(
            sha256=file_sha256(path), bytes=path.stat().st_size
        )
    return records


def changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """What differs between two begin records, one line each; empty if nothing does."""
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
    """Raise RunError if a stage was begun under other settings or on other files, or is damaged and
    cannot be made again, before anything is touched."""
    name = stage_run.stage_name
    folder, manifest = rundir.folder(name), rundir.record(name)
    if manifest is None and not begun(folder):
        return
    saved = _begin_of(manifest, rundir, name) if manifest else _saved(rundir, name)
    now = {**saved, **_settings_record(config, stage_run.sections)}
    lines = changes(now, saved) + changed_inputs(folder, stage_run.outside(config))
    _refuse_stale(rundir, name, lines)
    if name not in MADE_AGAIN:
        rundir.refuse_damage(name, rundir.damage(name, contents=True))


def stage_state(
    stage_run: Any, config: RunConfig, rundir: RunDir, verify: bool = False
) -> tuple[State, list[str]]:
    """State of a stage under a configuration, with what changed if it is stale and which files if
    it is damaged; `verify` compares the hashes of its files too."""
    name = stage_run.stage_name
    try:
        manifest = rundir.record(name)
        if manifest is None and not begun(rundir.folder(name)):
            return "missing", []
        now = _begin_record(config, rundir, name, stage_run.parents_of(config), stage_run.sections)
        then = _begin_of(manifest, rundir, name) if manifest else _saved(rundir, name)
    except RunError as error:
        return "stale", [str(error)]
    lines = changes(now, then) + changed_inputs(rundir.folder(name), stage_run.outside(config))
    if lines:
        return "stale", lines
    if damaged := rundir.damage(name, verify):
        return "damaged", [f"{file}: {what}" for file, what in damaged.items()]
    return ("done" if manifest else "partial"), []
