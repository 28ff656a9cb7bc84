"""The command that compares evaluations, or the checkpoints of one training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nlakit.cli.options import Sets
from nlakit.config.load import parse_config, with_overrides
from nlakit.config.sections import RunConfig
from nlakit.core.shown import cut, plain_table, short, span
from nlakit.errors import ConfigError
from nlakit.files.places import check_folder

console = Console(highlight=False)


def compare(
    targets: Annotated[
        list[Path],
        typer.Argument(metavar="A B ...", help="runs, evaluations, or audits (.json); A is first"),
    ],
    out: Annotated[Path, typer.Option(help="folder for tables and figures")] = Path("comparison"),
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="the steps of one run's training instead")
    ] = False,
    permutations: Annotated[int, typer.Option(min=1, help="sign flips for p")] = 10_000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    sets: Sets = None,
) -> None:
    """Compare the first evaluation with each other one, paired by row where the rows are the same;
    with --trajectory, follow one training over its steps.

    With --set eval.judge.kind=... and the like, a judge also says, blind and in both orders, which
    of two pairs better explains the rows that both have.
    """
    from nlakit.publish.compare.comparison import (
        NOTE,
        cells,
        headlines,
        short_name,
        write_comparison,
        write_trajectory,
    )

    check_folder(out)
    if trajectory:
        if len(targets) > 1:
            raise ConfigError(
                "--trajectory takes one run", found=f"{len(targets)}", do="give one run folder"
            )
        for stage, best in write_trajectory(targets[0], out)["best"].items():
            what = "measured no content"
            if best:
                what = f"best step {best['step']}, {best['measure']} {best['gain']:+.3f}"
            console.print(f"{stage}: {what}", markup=False)
        console.print(f"figure: {out / 'trajectory.png'}", markup=False, soft_wrap=True)
        return
    config: RunConfig = parse_config(with_overrides({"name": "compare"}, sets or []))
    if config.eval.judge and len(targets) != 2:
        raise ConfigError(
            "a judge compares two evaluations",
            found=f"{len(targets)}",
            do="give two evaluations, or leave eval.judge out",
        )
    records = write_comparison(targets, out, permutations, seed)
    shown, several = headlines(records), len(targets) > 2
    names = ("measure", *["other"] * several, "first → other", "difference ±95%", "p")
    table = plain_table(names, left=1 + several, caption=NOTE)
    for record in shown:
        _, other, means, _, p, *_ = cells(record)
        difference = short(record["difference"], record["low"], record["high"], "+")
        row = (cut(short_name(record), 24), *[cut(other, 10)] * several, means, difference, p)
        table.add_row(*map(escape, row))
    console.print(table)
    if left := len(records) - len(shown):
        console.print(f"{left} more rows: {out / 'comparison.md'}", markup=False, soft_wrap=True)
    if config.eval.judge:
        from nlakit.studies.preference import write_preference

        _judged(write_preference(targets[0], targets[1], config, out))
    console.print(f"tables and figures: {out}", markup=False, soft_wrap=True)


def _judged(found: dict[str, Any]) -> None:
    one = next(one for one in found["findings"] if one["measure"] == "preference")
    if one["mean"] is None:
        console.print("the judge answered on no row", markup=False)
    else:
        said = f"the judge prefers {found['first']} (1) or {found['second']} (-1): {span(one)}"
        console.print(f"{said} on {one['rows']} rows", markup=False, soft_wrap=True)
    for note in found["notes"]:
        console.print(f"  {note}", markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)
