"""The command that compares a subject's layers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nlakit.config.sections import SubjectConfig
from nlakit.errors import ConfigError, ExitCode
from nlakit.files.places import check_folder

console = Console(highlight=False)


def layers(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="embedded name, local folder or hub id")
    ] = "gemma-3-270m",
    corpus: Annotated[
        str, typer.Argument(metavar="CORPUS", help="demo, a file or a folder")
    ] = "demo",
    layers: Annotated[str, typer.Option(help="numbers like 0,4,8-12, or all")] = "all",
    documents: Annotated[int, typer.Option(min=1, help="documents at most")] = 240,
    positions: Annotated[int, typer.Option(min=1, help="positions read a document")] = 4,
    steps: Annotated[int, typer.Option(min=0, help="AR steps a layer; 0 leaves it out")] = 20,
    rows: Annotated[int, typer.Option(min=16, help="held-out rows an AR is scored on")] = 128,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32")] = "auto",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path | None, typer.Option(help="folder; runs/layers-MODEL unless given")] = None,
    redo: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="replace a stage's result")
    ] = None,
) -> None:
    """Measure the layers of a model and recommend one. The embedded model's 18 layers take about
    twelve minutes on two cores, two without the ARs (--steps 0); what is finished is kept."""
    from pydantic import ValidationError

    from nlakit.studies.layers import chosen_layers, depth_and_width, settings, survey, table_of

    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).name).strip("-.")
    folder = out or Path("runs") / f"layers-{slug}"
    check_folder(folder)
    try:
        subject = SubjectConfig.model_validate(
            {"model": model, "layer": 0, "device": device, "dtype": dtype}
        )
    except ValidationError as error:
        raise ConfigError(
            "unknown --dtype", found=dtype, do="auto, bfloat16, float16 or float32"
        ) from error
    blocks, width = depth_and_width(subject)
    chosen = chosen_layers(layers, blocks)
    size = documents * positions * len(chosen) * width * 4 / 2**20
    console.print(
        f"{len(chosen)} layers of {blocks}, up to {documents * positions} rows, {size:.0f} MiB of "
        f"vectors, {steps} AR steps a layer; kept in {folder}",
        markup=False,
        soft_wrap=True,
    )
    config = settings(subject, corpus, chosen, documents, positions, seed)
    try:
        report = survey(config, folder, steps, rows, redo or ())
    except KeyboardInterrupt:
        console.print("\nstopped; finished work is kept. Resume with the same command.")
        raise typer.Exit(ExitCode.STOPPED) from None
    console.print(table_of(report))
    console.print(f"{folder / 'layers.json'}, {folder / 'layers.png'}", markup=False)


def register(app: typer.Typer) -> None:
    app.command("layers")(layers)
