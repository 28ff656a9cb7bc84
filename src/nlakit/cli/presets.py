"""Presets: models that nlakit knows how to start with."""

from __future__ import annotations

from typing import Annotated

import typer

from nlakit.cli.tables import write_data
from nlakit.core.shown import plain_table


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="print this model's configuration")
    ] = None,
    small_card: Annotated[
        bool, typer.Option("--small-card", help="with the recipe for a card of 4 GB")
    ] = False,
) -> None:
    """List models with layer and memory, or print a configuration to start from."""
    from rich.console import Console

    from nlakit.config import presets as known

    if name is not None:
        import copy

        import yaml

        settings = known.find_preset(name).settings(small_card)
        plain = {section: copy.deepcopy(value) for section, value in settings.items()}
        write_data(yaml.safe_dump(plain, sort_keys=False))
        return

    columns = ("model", "blocks", "layer", "d", "bf16 GiB", "NF4 GiB")
    table = plain_table(columns, title="Presets (layer: two thirds of the depth)")
    remarks: dict[str, list[str]] = {}
    for one in known.presets():
        whole, small = one.gigabytes
        table.add_row(
            one.model, str(one.blocks), str(one.layer), str(one.width),
            f"{whole:.1f}", f"{small:.1f}",
        )  # fmt: skip
        if one.remark:
            remarks.setdefault(one.remark, []).append(one.model)
    console = Console(highlight=False)
    console.print(table)
    for remark, models in remarks.items():
        console.print(f"{', '.join(models)}: {remark}", markup=False, soft_wrap=True)
    console.print(
        "Weights alone; `nlakit plan` predicts each stage. The injected vector gets the norm of the"
        " token embeddings (av.scale: embedding), measured on the model; adapters sit on all"
        " attention and MLP projections of the text blocks.\n"
        "`nlakit presets MODEL [--small-card] > my.yaml` writes a configuration.",
        soft_wrap=True,
    )


def register(app: typer.Typer) -> None:
    app.command("presets")(presets)
