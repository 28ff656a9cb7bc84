"""The command that puts activations into words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlakit.cli.tables import Format, Save, check_output, emit
from nlakit.cli.use.pair import (
    ArBlocks,
    ArBos,
    BaseModel,
    Chat,
    Device,
    Injection,
    Other,
    Pair,
    Precision,
    load_pair,
)
from nlakit.core.text.recurrence import TEMPERATURE
from nlakit.errors import ConfigError
from nlakit.files.vectors import read_vectors

if TYPE_CHECKING:
    from nlakit.models.nla import Positions


def explain(
    pair: Pair,
    text: Annotated[str | None, typer.Argument()] = None,
    position: Annotated[
        list[str] | None,
        typer.Option("--position", "-p", help="token index, may be negative; last or all"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every token of the text")] = False,
    vectors: Annotated[Path | None, typer.Option(help="raw vectors (.parquet, .npy, .npz)")] = None,
    parse: Annotated[
        bool,
        typer.Option("--parse", help="read <eos>, <start_of_turn>, ... in the text as tokens"),
    ] = False,
    samples: Annotated[
        int, typer.Option(min=0, help="mark words by how they recur in so many sampled texts")
    ] = 0,
    neighbours: Annotated[
        int, typer.Option(min=0, help="and in the explanations of so many tokens before it")
    ] = 0,
    temperature: Annotated[
        float, typer.Option(min=0.01, help="of the sampled texts")
    ] = TEMPERATURE,
    seed: Annotated[int, typer.Option(min=0, help="of the sampled texts")] = 0,
    format: Format = "table",
    save: Save = None,
    other: Other = None,
    base_model: BaseModel = None,
    precision: Precision = None,
    ar_blocks: ArBlocks = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
    device: Device = "auto",
) -> None:
    """Put activations into words: those of a text at positions, or raw vectors from a file."""
    check_output(format, save)
    positions = "all" if every else _positions(position or [])
    if (text is None) == (vectors is None):
        raise ConfigError(
            "give a text or --vectors", found="both" if text else "neither", do="one of the two"
        )
    if vectors and neighbours:
        raise ConfigError(
            "bare vectors have no neighbouring tokens",
            found=f"--neighbours {neighbours} with --vectors",
            do="give the text, or --samples alone",
        )
    what = read_vectors(vectors) if vectors else text or ""
    nla = load_pair(pair, other, base_model, precision, ar_blocks, injection, chat, ar_bos, device)
    found = nla.explain(
        what, positions, special_tokens="parse" if parse else None,
        samples=samples, neighbours=neighbours, temperature=temperature, seed=seed,
    )  # fmt: skip
    emit(found.as_dicts(), format, save)


def _positions(given: list[str]) -> Positions:
    """Token indices, `last` or `all`, as `NLA.explain` takes them."""
    if given == ["all"]:
        return "all"
    try:
        return [-1 if one == "last" else int(one) for one in given] or "last"
    except ValueError as error:
        raise ConfigError(
            "--position takes token indices, last, or all by itself",
            found=", ".join(given),
            do="for example -p 0 -p -1",
        ) from error


def register(app: typer.Typer) -> None:
    app.command()(explain)
