"""What `explain` does with files of many vectors: tables of any size, and SAEs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from nlakit.cli.tables import emit
from nlakit.errors import ConfigError, ExitCode

console = Console(highlight=False)


def explain_into(
    out: Path, pair: str | Sequence[str], vectors: Path, score: bool, batch: int, **loading: Any
) -> None:
    """Explain a table into a folder and say what lies there; Ctrl-C keeps what is finished."""
    from nlakit.studies.batch import explain_table

    try:
        made = explain_table(pair, vectors, out, score=score, batch=batch, **loading)
    except KeyboardInterrupt:
        console.print("\nstopped; finished parts are kept, and the same command goes on")
        raise typer.Exit(ExitCode.STOPPED) from None
    lost = ", ".join(f"{count} {word}" for word, count in made.rows.dropped.items())
    line = f"{made.rows.kept} of {made.rows.entered} rows explained in {out}"
    console.print(
        f"{line}; without an explanation: {lost}" if lost else line, markup=False, soft_wrap=True
    )


def explain_sae(
    sae: Path,
    features: str | None,
    trained_on: str | None,
    pair: str | Sequence[str],
    format: str,
    save: Path | None,
    **loading: Any,
) -> None:
    """Explain decoder directions of an SAE beside random ones. What does not fit the pair is
    refused before a model is loaded."""
    from nlakit.core.contract import read_contract
    from nlakit.models.foreign.folders import find_halves
    from nlakit.models.foreign.sae import open_sae, parse_features
    from nlakit.run.progress import say

    if features is None:
        raise ConfigError("give --features", do="for example --features 0-99")
    wanted, found = parse_features(features), open_sae(sae, trained_on)
    found.check(read_contract(next(iter(find_halves(pair).values()))))
    directions = found.directions(wanted)
    from nlakit.evaluate.directions import explain_directions, summary
    from nlakit.models.nla import NLA

    records = explain_directions(NLA.load(pair, **loading), directions, wanted)
    emit(records, format, save)
    if line := summary(records):
        say(line)
