"""The run folder: stages, manifests, resume guards, the lock, atomic writes.

A stage writes its data under temporary names and `manifest.json` last, so the manifest's presence
means complete. `begin.json` is written first and says under which configuration a half-done stage
was started, so that its finished chunks are never mixed with those of another configuration.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlakit.config import RunConfig, config_hash, dump_config
from nlakit.errors import RunError

FORMAT = 1
FOLDERS = {
    "corpus": "01_corpus",
    "activations": "02_activations",
    "split": "03_split",
    "labels": "04_labels",
    "tables": "05_tables",
    "ar": "06_ar",
    "av": "07_av",
    "pair": "08_pair",
    "eval": "09_eval",
    "report": "10_report",
}
LIBRARIES = ("nlakit", "torch", "transformers", "peft", "accelerate", "pyarrow", "numpy")


class Rows(BaseModel):
    """Rows in, kept, and dropped by reason."""

    model_config = ConfigDict(extra="forbid")
    entered: int = 0
    kept: int = 0
    dropped: dict[str, int] = Field(default_factory=dict)


class FileRecord(BaseModel):
    sha256: str
    bytes: int


class Manifest(BaseModel):
    """What a finished stage is: enough to tell whether it may be reused, and to audit it."""

    model_config = ConfigDict(extra="forbid")
    format: int = FORMAT
    stage: str
    config_hash: str
    parents: dict[str, str]
    files: dict[str, FileRecord]
    rows: Rows
    seconds: float
    device: str
    versions: dict[str, str]
    git_commit: str | None
    finished: str

    def identity(self) -> str:
        """Hash of what the stage computed. Times and versions stay out, so redoing a stage with
        the same result leaves its children fresh."""
        files = {name: record.sha256 for name, record in sorted(self.files.items())}
        core = [self.stage, self.config_hash, sorted(self.parents.items()), files]
        return hashlib.sha256(json.dumps(core).encode()).hexdigest()


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; it replaces `target` only if the body succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    finally:
        if temporary.exists():
            temporary.unlink()


def atomic_write(target: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the whole new one."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def file_sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git_commit() -> str | None:
    """Commit of the nlakit checkout that runs, with `-dirty` if it has uncommitted changes."""
    here = Path(__file__).resolve().parent
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude", "*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None if result.returncode == 0 else None


State = Literal["missing", "partial", "stale", "done"]


class RunDir:
    """A folder `runs/NAME` and what is known about its stages."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> RunDir:
        """Make or reopen the folder and store the resolved configuration.

        Raises RunError if the folder belongs to another format of nlakit.
        """
        rundir = cls(path)
        marker = rundir.path / "run.json"
        visible = rundir.path.glob("[!.]*")
        if rundir.path.exists() and any(visible) and not marker.exists():
            raise RunError(
                f"{rundir.path} is not a run folder of nlakit",
                found="files but no run.json",
                do="choose another folder with --out",
            )
        rundir.check_format()
        rundir.path.mkdir(parents=True, exist_ok=True)
        if not marker.exists():
            atomic_write(marker, json.dumps({"format": FORMAT}) + "\n")
        atomic_write(rundir.path / "config.yaml", dump_config(config))
        return rundir

    def check_format(self) -> None:
        """Raise RunError if the folder was written in another format."""
        marker = self.path / "run.json"
        if not marker.exists():
            return
        try:
            found = json.loads(marker.read_text(encoding="utf-8")).get("format")
        except (ValueError, AttributeError):
            found = "unreadable run.json"
        if found != FORMAT:
            raise RunError(
                f"{self.path} was written in another format",
                found=f"format {found}, this nlakit reads {FORMAT}",
                do="use another folder, or the nlakit version that wrote it",
            )

    def folder(self, stage: str) -> Path:
        return self.path / FOLDERS[stage]

    def manifest(self, stage: str) -> Manifest | None:
        """The manifest of a finished stage; None if there is none.

        Raises RunError if it cannot be read or one of its files is missing or has another size.
        """
        path = self.folder(stage) / "manifest.json"
        if not path.exists():
            return None
        try:
            manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
        except (ValidationError, ValueError) as error:
            raise RunError(
                f"the manifest of stage {stage} cannot be read",
                found=str(error).splitlines()[0],
                do=f"redo it with --redo {stage}",
            ) from error
        for name, record in manifest.files.items():
            file = self.folder(stage) / name
            size = file.stat().st_size if file.exists() else None
            if size != record.bytes:
                raise RunError(
                    f"stage {stage} is damaged: {name}",
                    found=f"{size} bytes instead of {record.bytes}",
                    do=f"redo it with --redo {stage}",
                )
        return manifest

    def need(self, stage: str) -> Path:
        """The folder of a finished stage; RunError if it is not finished."""
        if self.manifest(stage) is None:
            raise RunError(
                f"stage {stage} is not finished in {self.path}",
                do=f"run it first: nlakit {stage} (or nlakit run)",
            )
        return self.folder(stage)

    def parent_identities(self, parents: Sequence[str]) -> dict[str, str]:
        identities = {}
        for parent in parents:
            self.need(parent)
            manifest = self.manifest(parent)
            assert manifest is not None
            identities[parent] = manifest.identity()
        return identities

    def set_aside(self, stage: str) -> Path | None:
        """Rename a stage's folder to `NAME.old-N`; returns where it went."""
        folder = self.folder(stage)
        if not folder.exists():
            return None
        number = 1
        while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
            number += 1
        folder.rename(target)
        return target

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; RunError if another process holds it."""
        self.path.mkdir(parents=True, exist_ok=True)
        holder = self.path / ".holder.json"
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunError(
                f"{self.path} is in use by another process",
                found=f"process {self.holder()}",
                do="wait for it, or end it with `nlakit stop`",
            ) from error
        try:
            me = psutil.Process()
            record = {"pid": me.pid, "started": me.create_time()}
            atomic_write(holder, json.dumps(record) + "\n")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def holder(self) -> int | None:
        """Process id that holds the run, if it still lives (a reused id does not count)."""
        path = self.path / ".holder.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["started"]) < 1.0
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        return process.pid if same else None


Body = Callable[[RunConfig, RunDir, Path], Rows]
Stage = Callable[[RunConfig, RunDir], Manifest]


def stage(name: str, *, parents: Sequence[str] = (), sections: Sequence[str] = ()) -> Any:
    """Turn a body `(config, rundir, folder) -> Rows` into a stage `run(config, rundir)`.

    `sections` names the settings the result depends on. The stage returns its manifest at once if
    it is finished and unchanged, resumes if half-done, and raises RunError if a setting or a
    parent changed.
    """

    def decorate(body: Body) -> Stage:
        @functools.wraps(body)
        def run(config: RunConfig, rundir: RunDir) -> Manifest:
            begin = _begin_record(config, rundir, name, parents, sections)
            manifest = rundir.manifest(name)
            if manifest is not None:
                _refuse_stale(rundir, name, begin, _begin_of(manifest, rundir, name))
                return manifest
            folder = rundir.folder(name)
            if (folder / "begin.json").exists():
                saved = json.loads((folder / "begin.json").read_text(encoding="utf-8"))
                _refuse_stale(rundir, name, begin, saved)
            atomic_write(folder / "begin.json", json.dumps(begin, indent=1) + "\n")
            return _run_body(body, config, rundir, name, begin)

        run.stage_name = name  # type: ignore[attr-defined]
        run.parents = tuple(parents)  # type: ignore[attr-defined]
        run.sections = tuple(sections)  # type: ignore[attr-defined]
        return run

    return decorate


def _begin_record(
    config: RunConfig, rundir: RunDir, name: str, parents: Sequence[str], sections: Sequence[str]
) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    return {
        "stage": name,
        "config_hash": config_hash(config, sections),
        "config": {section: data[section] for section in sections},
        "parents": rundir.parent_identities(parents),
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
    try:
        rows = body(config, rundir, folder)
        manifest = Manifest(
            stage=name,
            config_hash=begin["config_hash"],
            parents=begin["parents"],
            files=_file_records(folder),
            rows=rows,
            seconds=round(time.monotonic() - started, 2),
            device=config.subject.device,
            versions=library_versions(),
            git_commit=git_commit(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        atomic_write(folder / "manifest.json", manifest.model_dump_json(indent=1) + "\n")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RunError(
            f"the disk is full while stage {name} writes",
            found=str(folder),
            do="free some space and run the same command again; finished chunks are kept",
        ) from error
    return manifest


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


def _refuse_stale(
    rundir: RunDir, name: str, now: Mapping[str, Any], then: Mapping[str, Any]
) -> None:
    lines = changes(now, then)
    if lines:
        raise RunError(
            f"stage {name} in {rundir.path} was made under other conditions",
            found=" | ".join(lines),
            do=f"redo it with --redo {name} (the old folder is kept), or use another --out",
        )


def stage_state(stage_run: Any, config: RunConfig, rundir: RunDir) -> tuple[State, list[str]]:
    """State of a stage under a configuration, with what changed if it is stale."""
    name = stage_run.stage_name
    folder = rundir.folder(name)
    if not (folder / "begin.json").exists():
        return "missing", []
    try:
        manifest = rundir.manifest(name)
        now = _begin_record(config, rundir, name, stage_run.parents, stage_run.sections)
    except RunError as error:
        return "stale", [str(error)]
    saved = json.loads((folder / "begin.json").read_text(encoding="utf-8"))
    lines = changes(now, _begin_of(manifest, rundir, name) if manifest else saved)
    if lines:
        return "stale", lines
    return ("done" if manifest else "partial"), []
