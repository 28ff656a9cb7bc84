"""The command that compares evaluations, or the checkpoints of one training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nlakit.errors import ConfigError

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
    seed: int = 0,
) -> None:
    """Compare the first evaluation with each other one, paired by row where the rows are the same;
    with --trajectory, follow one training over its steps."""
    from nlakit.publish.comparison import (
        NOTE,
        cells,
        headlines,
        short_name,
        write_comparison,
        write_trajectory,
    )

    if trajectory:
        if len(targets) > 1:
            raise ConfigError("--trajectory takes one run", found=f"{len(targets)}")
        for stage, best in write_trajectory(targets[0], out)["best"].items():
            what = "measured no content"
            if best:
                what = f"best step {best['step']}, {best['measure']} {best['gain']:+.3f}"
            console.print(f"{stage}: {what}", markup=False)
        console.print(f"figure: {out / 'trajectory.png'}", markup=False, soft_wrap=True)
        return
    records = write_comparison(targets, out, permutations, seed)
    shown = headlines(records)
    table = Table(caption=NOTE)
    names = ("measure", *(("other",) if len(targets) > 2 else ()), "first → other")
    for name in (*names, "difference", "p (Holm)"):
        table.add_column(name, no_wrap=name == "measure")
    for record in shown:
        _, other, means, difference, p, *_ = cells(record)
        row = (short_name(record), *((other,) if len(targets) > 2 else ()), means, difference, p)
        table.add_row(*map(escape, row))
    console.print(table)
    if left := len(records) - len(shown):
        console.print(f"{left} more rows: {out / 'comparison.md'}", markup=False, soft_wrap=True)
    console.print(f"tables and figures: {out}", markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)
