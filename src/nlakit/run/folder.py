"""The run folder: stages, manifests, resume guards, the lock, atomic writes.

A stage writes its data under temporary names and `manifest.json` last, so the manifest's presence
means that the stage is complete. `begin.json` is written first and says under which configuration a
half-done stage was started, so that its finished chunks are never mixed with those of another
configuration.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlakit.config.load import dump_config
from nlakit.config.sections import RunConfig
from nlakit.errors import ConfigError, DataError, RunError, first_line

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
# Stages that make the same files to the byte from the same settings, parents and sources, without
# a training: what is damaged there is made again and compared with its recorded hash.
MADE_AGAIN = frozenset({"corpus", "activations", "split", "labels", "tables"})
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
    peak_bytes: dict[str, int] = Field(default_factory=dict)
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
    """Yield a temporary path beside `target`; it replaces `target` only if the body succeeds.

    Raises ConfigError for a device or a pipe (`/dev/null`), which a file must not replace.
    """
    if target.exists() and not target.is_file():
        raise ConfigError(f"{target} is no file", do="give the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        yield temporary
        with temporary.open("r+b") as handle:  # Windows refuses to sync a read-only handle
            os.fsync(handle.fileno())
        temporary.replace(target)
    finally:
        if temporary.exists():
            temporary.unlink()


def atomic_write(target: Path, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the whole new one."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_exact(path: Path) -> str:
    """The UTF-8 text of a file as it was written: `read_text` turns carriage returns into line
    feeds. Raises DataError if it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read",
            found=first_line(error),
            do="check that it is UTF-8 text and that you may read it",
        ) from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """SHA-256 of a file, taken once a process as long as its size and time stay the same."""
    stat = path.stat()
    return _sha256_of(str(path.absolute()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=1 << 16)
def _sha256_of(path: str, size: int, mtime_ns: int) -> str:
    return file_sha256(Path(path))


def library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git_commit() -> str | None:
    """Commit of the nlakit checkout that runs, with `-dirty` if it has uncommitted changes.

    None where nlakit is installed as a package: an enclosing repository is not its history.
    """
    checkout = Path(__file__).resolve().parents[3]
    git = shutil.which("git")
    if git is None or not (checkout / ".git").exists():
        return None
    command = [git, "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40"]
    command += ["--exclude", "*"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None if result.returncode == 0 else None


def device_used(setting: str) -> str:
    """The device behind a setting, in words; torch is asked only where a stage has loaded it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return "cpu"
    if torch.cuda.is_available() and (setting == "auto" or setting.startswith("cuda")):
        return f"cuda ({torch.cuda.get_device_name()})"
    return f"cpu ({torch.get_num_threads()} threads)" if setting in ("auto", "cpu") else setting


class RunDir:
    """A folder `runs/NAME` and what is known about its stages."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> RunDir:
        """Make or reopen the folder and store the resolved configuration.

        Raises RunError if the folder belongs to another format of nlakit, or to something else.
        """
        rundir = cls(path)
        rundir.check_format()
        marker = rundir.path / "run.json"
        if not marker.exists():
            atomic_write(marker, json.dumps({"format": FORMAT}) + "\n")
        atomic_write(rundir.path / "config.yaml", dump_config(config))
        return rundir

    def check_format(self) -> None:
        """Raise RunError if the path holds something else, or a run of another format."""
        marker = self.path / "run.json"
        if not marker.exists():
            if self.path.is_file() or any(self.path.glob("[!.]*")):
                raise RunError(
                    f"{self.path} is not a run folder of nlakit",
                    found="a file" if self.path.is_file() else "files but no run.json",
                    do="choose another folder with --out",
                )
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
        self.refuse_damage(stage, self.damage(stage))
        return self.record(stage)

    def record(self, stage: str) -> Manifest | None:
        """The manifest of a finished stage, whatever became of its files; None if there is none.

        Raises RunError if it cannot be read.
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
        if manifest.format != FORMAT:
            raise RunError(
                f"stage {stage} was written in another format",
                found=f"format {manifest.format}, this nlakit reads {FORMAT}",
                do=f"redo it with --redo {stage}",
            )
        return manifest

    def damage(self, stage: str, contents: bool = False) -> dict[str, str]:
        """File → what was found, for files of a finished stage that are not what its manifest says.
        `contents` compares their SHA-256 too, taken once a process.

        Raises RunError if the manifest cannot be read.
        """
        manifest, found = self.record(stage), {}
        for name, record in manifest.files.items() if manifest else ():
            file = self.folder(stage) / name
            if not file.exists():
                found[name] = "missing"
            elif (size := file.stat().st_size) != record.bytes:
                found[name] = f"{size} bytes instead of {record.bytes}"
            elif contents and sha256_once(file) != record.sha256:
                found[name] = "its SHA-256 is not the recorded one"
        return found

    def refuse_damage(self, stage: str, found: Mapping[str, str]) -> None:
        """Raise RunError if `damage` found something."""
        if found:
            again = "`nlakit run` makes it again and keeps what is whole"
            raise RunError(
                f"stage {stage} is damaged: {', '.join(found)}",
                found=f"in {self.folder(stage)}: {next(iter(found.values()))}",
                do=again if stage in MADE_AGAIN else f"redo it with --redo {stage}",
            )

    def need(self, stage: str) -> Path:
        """The folder of a finished stage, to be read; RunError if it is not finished, or a file is
        not what was written."""
        if self.record(stage) is None:
            raise self._unfinished(stage)
        self.refuse_damage(stage, self.damage(stage, contents=True))
        return self.folder(stage)

    def _unfinished(self, stage: str) -> RunError:
        return RunError(
            f"stage {stage} is not finished in {self.path}",
            do=f"run it first: nlakit {stage} (or nlakit run)",
        )

    def parent_identities(self, parents: Sequence[str]) -> dict[str, str]:
        """Identity of each stage; RunError if one is not finished."""
        identities = {}
        for parent in parents:
            manifest = self.record(parent)
            if manifest is None:
                raise self._unfinished(parent)
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
            same = same and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, psutil.Error):
            return None
        return process.pid if same else None
