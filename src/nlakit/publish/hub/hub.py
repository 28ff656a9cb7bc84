"""Push and pull: to and from a Hugging Face hub, or a folder that stands in for one.

Files are compared by hash before anything moves, so a repeated command moves what is missing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from nlakit.core.contract import FILE, read_contract
from nlakit.errors import ConfigError, ContractError, DataError, ServiceError
from nlakit.files.places import check_folder, quoted
from nlakit.publish.card.draft import write_card
from nlakit.publish.hub.contents import check
from nlakit.publish.hub.parcel import PICKLES, What, is_sent, pack
from nlakit.publish.hub.places import (
    AGAIN,
    Folder,
    Hub,
    MissingRepository,
    RepoType,
    Stored,
    deliver,
    inside,
    place,
)
from nlakit.run.folder import atomic_write, file_sha256
from nlakit.run.progress import ticker

STAGING = ".nlakit-pull"


@dataclass(frozen=True)
class Row:
    """A file of a push: its name there, and how it compares with what lies there."""

    name: str
    size: int
    sha256: str
    state: Literal["new", "changed", "unchanged"]


@dataclass(frozen=True)
class Plan:
    """What a push sends, or has sent."""

    what: What
    where: str
    rows: list[Row]
    left_out: list[str]
    rewritten: list[str]

    @property
    def moving(self) -> list[Row]:
        return [row for row in self.rows if row.state != "unchanged"]


def push(
    source: str,
    dest: str,
    *,
    what: What | None = None,
    repo_type: RepoType | None = None,
    private: bool = False,
    base_model: str | None = None,
    license: str | None = None,
    send: bool = False,
) -> Plan:
    """Compare what a source has to share with what lies at `dest`; with `send`, send the rest.

    Nothing is removed there. After sending, the hashes there are compared once more. Raises what
    `pack`, `check` and `place` raise, and ServiceError if the hub cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="nlakit-push-") as scratch:
        parcel = pack(source, what, base_model, Path(scratch))
        target = place(dest, repo_type or ("dataset" if parcel.what == "tables" else "model"))
        if send and isinstance(target, Folder):
            check_folder(target.path)
        if private and isinstance(target, Folder):
            raise ConfigError("--private is for a hub", found=str(target), do="leave it out")
        if "README.md" not in parcel.files:
            parcel.files["README.md"] = Path(scratch) / "README.md"
            card = write_card(parcel, target.name, target.origin, license)
            atomic_write(parcel.files["README.md"], card)
        elif license:
            raise ConfigError(
                "--license is for the card that nlakit writes",
                found=parcel.files["README.md"],
                do="write the licence into that file",
            )
        check(parcel.files)
        try:
            there = target.listing()
        except MissingRepository:
            there = {}
        plan = Plan(
            parcel.what,
            str(target),
            [_row(name, parcel.files[name], there) for name in sorted(parcel.files)],
            parcel.left_out,
            parcel.rewritten,
        )
        if send and plan.moving:
            target.send({row.name: parcel.files[row.name] for row in plan.moving}, private)
            _verify(plan.rows, parcel.files, target.listing(), str(target))
        return plan


def _row(name: str, file: Path, there: Mapping[str, Stored]) -> Row:
    known = name in there
    state = "unchanged" if known and there[name].matches(file) else "changed" if known else "new"
    return Row(name, file.stat().st_size, file_sha256(file), state)


def _verify(
    rows: Sequence[Row], files: Mapping[str, Path], there: Mapping[str, Stored], where: str
) -> None:
    wrong = [
        r.name for r in rows if r.name not in there or not there[r.name].matches(files[r.name])
    ]
    if wrong:
        raise ServiceError(f"after the push {where} is not what was sent", found=wrong, do=AGAIN)


@dataclass(frozen=True)
class Pulled:
    """What a pull left in its folder."""

    files: int
    fetched: int
    left_out: list[str]
    use: str


def pull(
    source: str, target: Path, *, revision: str | None = None, repo_type: RepoType = "model"
) -> Pulled:
    """Fetch what `push` sent, file by file, each checked against its hash there.

    Files that are there already are kept; files of other content are never replaced. Raises
    DataError for names and links that leave a folder or files that differ, ContractError if
    nothing there is nlakit's, ServiceError if the hub cannot be used.
    """
    origin = place(source, repo_type, revision)
    listed = origin.listing()
    folders = {folder for name in listed for folder in inside(target, name).parents}
    if blocked := sorted(folder for folder in folders if folder.is_file()):
        raise DataError(f"{blocked[0]} is a file, not a folder", do="pull into another folder")
    wanted = {name: stored for name, stored in listed.items() if is_sent(name)}
    _check_nlakit(wanted, origin)
    missing = {n: stored for n, stored in wanted.items() if not stored.matches(target / n)}
    if others := [name for name in missing if (target / name).exists()]:
        raise DataError(
            f"{target} holds other files of the same names",
            found=", ".join(others[:5]),
            do="pull into another folder, or delete them",
        )
    staging = target / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    with origin.fetching(staging) as fetch, ticker("fetching", len(missing), "files") as progress:
        for name, stored in missing.items():
            deliver(fetch(name), target, name, stored)
            progress.advance(1, name)
    shutil.rmtree(staging, ignore_errors=True)
    for name in wanted:
        if name.endswith(FILE):
            read_contract(target / name)
    left = [name for name in listed if name not in wanted and not name.startswith(".")]
    marked = [f"{n} (pickle)" if PurePosixPath(n).suffix in PICKLES else n for n in left]
    return Pulled(len(wanted), len(missing), marked, how_to_use(target, wanted))


def _check_nlakit(wanted: Mapping[str, Stored], origin: Folder | Hub) -> None:
    if any(name.endswith(FILE) for name in wanted):
        return
    if any(name.endswith((".parquet", ".jsonl")) for name in wanted) and "README.md" in wanted:
        return
    raise ContractError(
        f"nothing of nlakit's lies in {origin}",
        found="no nla_meta.yaml and no tables",
        do="give what nlakit push sent; for tables on a hub, --repo-type dataset",
    )


def how_to_use(target: Path, names: Iterable[str]) -> str:
    """One line on what to do with what was pulled."""
    found = set(names)
    if any(name.endswith("metrics.jsonl") for name in found):
        return f"metrics.jsonl and step-*/weights.safetensors of each stage are in {target}"
    from nlakit.models.foreign.folders import find_halves

    try:
        halves = find_halves(target)
    except ContractError:
        halves = {}
    if "av" in halves:
        return f'nlakit explain {quoted(target)} "some text"'
    if "ar" in halves:
        return f'nlakit reconstruct {quoted(target)} "an explanation"'
    if any(name.endswith(FILE) for name in found):
        return f"the tables are in {target}, each with its sidecar"
    return f"in a configuration: labels: {{labeler: file, file: {{path: {target}}}}}"
