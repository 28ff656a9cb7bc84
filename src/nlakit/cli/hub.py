"""Commands that share pairs, halves, tables and trajectories, and fetch them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.console import Console
from rich.markup import escape

from nlakit.core.shown import plain_table
from nlakit.errors import ConfigError
from nlakit.files.places import check_folder

console = Console(highlight=False)


def _one_of(name: str, value: str | None, kind: Any) -> Any:
    if value is not None and value not in get_args(kind):
        raise ConfigError(f"unknown {name}", found=value, do=f"one of {', '.join(get_args(kind))}")
    return value


def push(
    source: Annotated[
        str, typer.Argument(help="a run, a pair, a half, tables, exported labels, or `demo`")
    ],
    dest: Annotated[str, typer.Argument(help="OWNER/NAME on a hub, or ./FOLDER")],
    what: Annotated[
        str | None, typer.Option(help="pair, av, ar, tables or trajectory; found out unless given")
    ] = None,
    repo_type: Annotated[
        str | None, typer.Option(help="model or dataset; unless given, dataset for tables")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="nobody else sees it")] = False,
    base_model: Annotated[
        str | None, typer.Option(help="the subject's name for others, if it is a folder here")
    ] = None,
    license: Annotated[str | None, typer.Option(help="licence, for the card")] = None,
    send: Annotated[bool, typer.Option("--send", help="send; else only show")] = False,
) -> None:
    """Show what would be shared with a hub or a folder, or share it with --send."""
    from nlakit.publish.hub.hub import push as push_to
    from nlakit.publish.hub.parcel import What
    from nlakit.publish.hub.places import RepoType

    plan = push_to(
        source,
        dest,
        what=_one_of("--what", what, What),
        repo_type=_one_of("--repo-type", repo_type, RepoType),
        private=private,
        base_model=base_model,
        license=license,
        send=send,
    )
    columns = ("SHA-256", "there", "file", "bytes")
    table = plain_table(columns, left=3, title=escape(f"{plan.what} to {plan.where}"))
    table.columns[2].no_wrap = False  # a name is shown whole, however long
    table.columns[2].overflow = "fold"
    for row in plan.rows:
        table.add_row(row.sha256[:12], row.state, escape(row.name), f"{row.size:,}")
    console.print(table)
    for line in plan.left_out:
        _say(f"left out: {line}")
    for line in plan.rewritten:
        _say(f"rewritten: {line}")
    size = sum(row.size for row in plan.moving)
    done = "sent" if send else "to send"
    _say(f"{len(plan.moving)} of {len(plan.rows)} files {done}, {size:,} bytes")
    if not send and plan.moving:
        _say("nothing was sent: repeat the command with --send")


def pull(
    source: Annotated[str, typer.Argument(help="OWNER/NAME on a hub, or ./FOLDER")],
    target: Annotated[Path, typer.Argument(help="the folder to fetch into")],
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit of a hub")] = None,
    repo_type: Annotated[str, typer.Option(help="model or dataset")] = "model",
) -> None:
    """Fetch what somebody shared, checked file by file."""
    from nlakit.publish.hub.hub import pull as pull_from
    from nlakit.publish.hub.places import RepoType

    kind = _one_of("--repo-type", repo_type, RepoType)
    check_folder(target)
    pulled = pull_from(source, target, revision=revision, repo_type=kind)
    _say(f"{pulled.fetched} files fetched, {pulled.files - pulled.fetched} were there")
    for line in pulled.left_out:
        _say(f"left out: {line}")
    _say(pulled.use)


def _say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.command("push")(push)
    app.command("pull")(pull)
