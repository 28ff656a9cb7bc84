"""Commands about the files of other NLA projects."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from rich.console import Console

from nlakit.cli.use.pair import (
    HUB_ID,
    ArBlocks,
    ArBos,
    BaseModel,
    Chat,
    Device,
    Injection,
    Other,
    Pair,
    Precision,
)
from nlakit.errors import ConfigError
from nlakit.files.places import check_folder

console = Console(highlight=False)
Source = Annotated[str, typer.Argument(metavar="SOURCE", help=f"folder; {HUB_ID}; Parquet file")]
TargetPath = Annotated[Path, typer.Argument(metavar="TARGET", help="a new folder")]
Vectors = Annotated[
    Path | None,
    typer.Option(help="raw activations of the layer (.parquet, .npy, .npz), for floors"),
]
Form = Annotated[str, typer.Option("--format", help="kitft (plain models) or peft (adapters)")]
Centring = Annotated[
    bool, typer.Option("--allow-centring", help="write an AV that other tools cannot feed")
]
Tables = Annotated[bool, typer.Option("--tables", help="write a run's tables, not its pair")]


def import_(
    source: Source,
    target: TargetPath,
    other: Other = None,
    base_model: BaseModel = None,
    precision: Precision = None,
    vectors: Vectors = None,
    ar_blocks: ArBlocks = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
    device: Device = "auto",
) -> None:
    """Store another project's pair, half or tables in nlakit's format."""
    from nlakit.data.foreign import are_tables, import_tables

    check_folder(target)
    if are_tables(Path(source)):
        pairs = {
            "--with": other, "--vectors": vectors, "--ar-blocks": ar_blocks,
            "--injection": injection, "--chat": chat, "--ar-bos": ar_bos,
        }  # fmt: skip
        if given := [name for name, value in pairs.items() if value is not None]:
            raise ConfigError(
                "an option for pairs was given for tables", found=given, do="leave it out"
            )
        lines = import_tables(Path(source), target, base_model, precision, device)
    else:
        from nlakit.files.vectors import read_vectors
        from nlakit.models.foreign.convert import import_pair

        lines = import_pair(
            [source, other] if other else [source],
            target,
            read_vectors(vectors) if vectors else None,
            vectors.name if vectors else "",
            base_model=base_model,
            precision=precision,
            ar_blocks=ar_blocks,
            injection=injection,
            chat=chat,
            ar_bos=ar_bos,
            device=device,
        )
    _say(lines)


def export(
    pair: Pair,
    target: TargetPath,
    form: Form = "kitft",
    allow_centring: Centring = False,
    tables: Tables = False,
    base_model: BaseModel = None,
    precision: Precision = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
    device: Device = "auto",
) -> None:
    """Write a pair, or a run's tables, in the format of other projects."""
    if form not in ("kitft", "peft"):
        raise ConfigError("unknown --format", found=form, do="kitft or peft")
    check_folder(target)
    if tables:
        from nlakit.data.foreign import export_tables

        _say(export_tables(Path(pair), target))
        return
    from nlakit.models.foreign.convert import export_pair
    from nlakit.models.nla import NLA

    nla = NLA.load(
        pair, base_model=base_model, precision=precision, injection=injection, chat=chat,
        ar_bos=ar_bos, device=device,
    )  # fmt: skip
    chosen = cast(Literal["kitft", "peft"], form)
    _say(export_pair(nla, target, chosen, allow_centring))


def _say(lines: list[str]) -> None:
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.command("import")(import_)
    app.command("export")(export)
