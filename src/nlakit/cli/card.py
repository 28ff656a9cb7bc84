"""Commands that write a model card, check one, and archive a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nlakit.errors import ConfigError, ExitCode
from nlakit.files.places import check_folder, quoted

console = Console(highlight=False)
Evaluated = Annotated[
    Path, typer.Argument(metavar="EVALUATION|RUN", help="an evaluated run, or an evaluation")
]


def card(
    target: Evaluated,
    pair: Annotated[
        str | None, typer.Option(help="the pair that was evaluated; a run's own unless given")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="a new folder; NAME-card unless given")] = None,
    name: Annotated[str | None, typer.Option(help="title; the folder's name unless given")] = None,
    license: Annotated[str | None, typer.Option(help="licence, as Hugging Face names it")] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="OWNER/NAME", help="a data set to link to")
    ] = None,
    other: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="the other half, if it lies apart")
    ] = None,
    correct: Annotated[
        Path | None,
        typer.Option(metavar="CARD", help="append what this evaluation overturns to an old card"),
    ] = None,
) -> None:
    """Write the model card of an evaluation, with the results that its numbers come from."""
    from nlakit.publish.card.model_card import CARD, write_model_card
    from nlakit.publish.card.model_card import correct as append

    if correct is None:
        folder = out or Path(f"{name or target.resolve().name}-card")
        check_folder(folder)
        write_model_card(
            target, folder, pair=pair, name=name, license=license, data=data or (), other=other
        )
        _say(f"card: {folder / CARD}")
        _say(f"check it with: nlakit verify {quoted(folder)}")
        return
    if given := [value for value in (pair, out, name, license, data, other) if value]:
        raise ConfigError(
            "--correct takes no other option",
            found=given,
            do="leave the other options out, or make a new card with --out",
        )
    check_folder(correct)
    found = append(target, correct)
    for one in found:
        before, after = one["before"]["mean"], one["after"]
        now = f"{after['mean']:.3f} [{after['low']:.3f}, {after['high']:.3f}]"
        _say(f"{one['title']}: {before:.3f} is now {now}")
    _say(f"{len(found)} numbers of {correct} overturned")


def verify(
    target: Annotated[Path, typer.Argument(metavar="CARD", help="a card's folder, or an archive")],
) -> None:
    """Recompute each number of a card from its results; exits 3 at the first that differs."""
    from nlakit.publish.card.verify import verify as check

    found = check(target)
    _say(f"{found.files} files, {found.findings} findings, {found.numbers} numbers of the card")
    if found.problem:
        _say(f"differs: {found.problem}")
        raise typer.Exit(ExitCode.GATE)
    _say("all agree")


def archive(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="a new folder, to be committed")],
    vectors: Annotated[bool, typer.Option("--vectors", help="with the activations")] = False,
) -> None:
    """Copy a run's tables, metrics and results with their hashes into a folder, but no weights."""
    from nlakit.publish.hub.archive import archive as write

    check_folder(out)
    record = write(run, out, vectors)
    size = sum(one["bytes"] for one in record["files"].values())
    _say(f"{len(record['files'])} files, {size:,} bytes in {out}")
    for name in record["rewritten"]:
        _say(f"not as in the run: {name}")


def _say(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.command("card")(card)
    app.command("verify")(verify)
    app.command("archive")(archive)
