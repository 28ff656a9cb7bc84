"""Commands that turn explanations into vectors, and score them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from nlakit.errors import ConfigError
from nlakit.files.vectors import read_texts, read_vectors

TextFile = Annotated[
    Path | None, typer.Option(help="an explanation a line, or .jsonl or .parquet of --save")
]


def reconstruct(
    pair: Pair,
    texts: Annotated[list[str] | None, typer.Argument()] = None,
    file: TextFile = None,
    format: Format = "jsonl",
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
    """Turn explanations into vectors."""
    check_output(format, save)
    rows = read_texts(file) if file else list(texts or [])
    if not rows:
        raise ConfigError(
            "give explanations, or --file",
            do="write them behind the pair, or in a file, a line each",
        )
    nla = load_pair(pair, other, base_model, precision, ar_blocks, injection, chat, ar_bos, device)
    made = nla.reconstruct(rows)
    records = [
        {"explanation": text, "activation_vector": vector.tolist()}
        for text, vector in zip(rows, made, strict=True)
    ]
    emit(records, format, save)


def score(
    pair: Pair,
    vectors: Annotated[Path, typer.Option(help="raw vectors (.parquet, .npy, .npz), a row a text")],
    texts: Annotated[list[str] | None, typer.Argument()] = None,
    file: TextFile = None,
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
    """Score explanations against vectors, with the empty text as a floor beside each."""
    check_output(format, save)
    rows = read_texts(file) if file else list(texts or [])
    real = read_vectors(vectors)
    nla = load_pair(pair, other, base_model, precision, ar_blocks, injection, chat, ar_bos, device)
    found = nla.score(rows, real)
    floors = nla.score([""] * len(rows), real)
    records = [
        {"explanation": text, **vars(one), "floor": floor.centred_cosine}
        for text, one, floor in zip(rows, found, floors, strict=True)
    ]
    emit(records, format, save)


def register(app: typer.Typer) -> None:
    app.command()(reconstruct)
    app.command()(score)
