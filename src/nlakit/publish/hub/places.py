"""Where files are pushed to and pulled from: a folder, or a repository on a Hugging Face hub."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Literal

from nlakit.errors import ConfigError, DataError, NlakitError, ServiceError, network_error
from nlakit.run.folder import atomic_path, file_sha256
from nlakit.run.progress import ticker

RepoType = Literal["model", "dataset"]
AGAIN = "repeat the command: what has arrived is not moved again"


@dataclass(frozen=True)
class Stored:
    """A file at a place. digest: SHA-256, or git's SHA-1 of what a hub keeps as plain text."""

    size: int
    digest: str

    def matches(self, file: Path) -> bool:
        """Whether a file here has the same content."""
        if not file.is_file() or file.stat().st_size != self.size:
            return False
        if len(self.digest) == 64:
            return file_sha256(file) == self.digest
        data = file.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == self.digest


class Folder:
    """A folder that files are pushed to or pulled from."""

    origin = None  # nobody else can pull from it

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.resolve().name

    def __str__(self) -> str:
        return f"the folder {self.path}"

    def listing(self) -> dict[str, Stored]:
        """Visible files by name; DataError for a link out of the folder."""
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path} is no folder", do="name a new folder")
        return {
            name: Stored(file.stat().st_size, file_sha256(file))
            for name, file in visible_files(self.path)
        }

    def send(self, files: Mapping[str, Path], private: bool) -> None:
        for name, file in files.items():
            deliver(file, self.path, name, Stored(file.stat().st_size, file_sha256(file)))

    @contextmanager
    def fetching(self, staging: Path) -> Iterator[Callable[[str], Path]]:
        yield lambda name: self.path / name


class Hub:
    """A repository on a Hugging Face hub: the public one, or that of HF_ENDPOINT."""

    def __init__(self, repo: str, kind: RepoType, revision: str | None) -> None:
        from huggingface_hub import HfApi

        self.repo, self.kind, self.revision = repo, kind, revision
        self.origin, self.name = repo, repo.split("/")[1]
        self.api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)

    def __str__(self) -> str:
        return f"{self.api.endpoint}, {self.kind} {self.repo}"

    def listing(self) -> dict[str, Stored]:
        """Files of the revision by name. Raises MissingRepository if there is no repository."""
        from huggingface_hub.hf_api import RepoFile

        with self._talking():
            tree = self.api.list_repo_tree(
                self.repo, recursive=True, revision=self.revision, repo_type=self.kind
            )
            return {
                entry.path: Stored(entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id)
                for entry in tree
                if isinstance(entry, RepoFile)
            }

    def send(self, files: Mapping[str, Path], private: bool) -> None:
        """Large files one after the other, each of which then stays; one commit at the end."""
        from huggingface_hub import CommitOperationAdd

        with self._talking():
            self._prepare(private)
            made = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
            with ticker("sending", len(made), "files") as progress:
                for operation in made:
                    self.api.preupload_lfs_files(
                        self.repo, [operation], repo_type=self.kind, free_memory=False
                    )
                    progress.advance(1, operation.path_in_repo)
            self.api.create_commit(
                self.repo, made, commit_message="nlakit push", repo_type=self.kind
            )

    def _prepare(self, private: bool) -> None:
        """Make the repository if there is none; ConfigError if it is not as private as asked."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = self.api.repo_info(self.repo, repo_type=self.kind)
        except RepositoryNotFoundError:
            self.api.create_repo(self.repo, repo_type=self.kind, private=private or None)
            return
        if private and not info.private:
            raise ConfigError(
                f"{self.repo} exists and is public",
                do="make it private on the hub, or leave out --private",
            )

    @contextmanager
    def fetching(self, staging: Path) -> Iterator[Callable[[str], Path]]:
        """A function that downloads one file of one commit to `staging`."""
        with self._talking():
            info = self.api.repo_info(self.repo, repo_type=self.kind, revision=self.revision)

        def fetch(name: str) -> Path:
            with self._talking():
                return Path(
                    self.api.hf_hub_download(
                        self.repo, name, repo_type=self.kind, revision=info.sha, local_dir=staging
                    )
                )

        yield fetch

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Turn what the hub's library raises into one line."""
        try:
            yield
        except NlakitError:
            raise
        except (network_error(), OSError, RuntimeError, ValueError) as error:
            # A failed upload is wrapped in a RuntimeError.
            cause = error.__cause__ if isinstance(error, RuntimeError) else None
            raise self._line(cause or error) from error

    def _line(self, error: BaseException) -> NlakitError:
        from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

        if not isinstance(error, HfHubHTTPError):
            found = self._hidden(f"{type(error).__name__}: {error}")
            return ServiceError(f"the transfer with {self} failed", found=found, do=AGAIN)
        status = error.response.status_code
        if isinstance(error, RevisionNotFoundError):
            return ConfigError(
                f"{self.repo} has no revision {self.revision}",
                do="leave --revision out for the newest",
            )
        if status == 401:
            return ServiceError(
                f"{self} asks who you are, or does not exist",
                found="a token it does not know" if self.api.token or _token() else "no token",
                do="set HF_TOKEN to a token with the right to read, or to write for a push",
            )
        if status == 404:
            return MissingRepository(
                f"there is no {self.kind} {self.repo} at {self.api.endpoint}",
                do="check the name, --repo-type, and that HF_TOKEN may see it",
            )
        if status == 403:
            return ServiceError(
                f"{self} refuses", found=status, do="use a token that may write to this repository"
            )
        found = f"{status} {self._hidden(error.server_message or '')}".strip()
        return ServiceError(f"{self} refuses", found=found, do=AGAIN)

    def _hidden(self, text: str) -> str:
        """A message in one line, without the token that a server may have repeated."""
        line, token = " ".join(text.split())[:300], _token()
        return line.replace(token, "***") if token else line


class MissingRepository(ServiceError):
    """No such repository, or none that the token may see."""


def _token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


def place(text: str, kind: RepoType, revision: str | None = None) -> Folder | Hub:
    """A folder if `text` begins with `.`, `/`, `\\`, `~` or a drive letter, or exists; else a hub's
    `owner/name`. Raises ConfigError for any other name."""
    path = Path(text).expanduser()
    if text.startswith((".", "/", "\\", "~")) or PureWindowsPath(text).drive or path.exists():
        if revision:
            raise ConfigError("a folder has no revisions", found=text, do="leave out --revision")
        return Folder(path)
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
        valid = text.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise ConfigError(
            "this names neither a folder nor a repository",
            found=text,
            do="write ./folder for a folder, or owner/name for the hub",
        )
    return Hub(text, kind, revision)


def inside(folder: Path, name: str) -> Path:
    """The path of a file below a folder; DataError for a name or a link that leaves it."""
    odd = ".." in PurePosixPath(name).parts or any(mark in name for mark in "\\:\0")
    target = folder / name
    if odd or not target.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"a file name or link leaves its folder: {name!r}",
            found=folder,
            do="copy the file itself there; do not use a source that you cannot trust",
        )
    return target


def visible_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Names and files below a folder, in order, hidden ones left out; DataError for a link out."""
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts):
            inside(folder, name.as_posix())
            if file.is_file():
                yield name.as_posix(), file


def deliver(file: Path, folder: Path, name: str, stored: Stored) -> None:
    """Copy a file below a folder: whole and with the right hash, or not at all."""
    target = inside(folder, name)
    for leftover in target.parent.glob(f".{target.name}.tmp-*"):  # of a process that was killed
        leftover.unlink()
    with atomic_path(target) as temporary:
        shutil.copyfile(file, temporary)
        if not stored.matches(temporary):
            raise DataError(f"{name} arrived damaged", found=f"not {stored.digest}", do=AGAIN)
