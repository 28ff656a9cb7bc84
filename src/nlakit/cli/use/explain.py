"""The command that puts activations into words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nlakit.cli.tables import Format, Save, check_output, emit
from nlakit.cli.use.many import explain_into, explain_sae
from nlakit.cli.use.messages import (
    ContinueLast,
    GenerationPrompt,
    MessagesFile,
    Roles,
    Template,
    Thinking,
    conversations,
)
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
    from nlakit.core.text.where import Criterion
    from nlakit.models.nla import NLA
    from nlakit.models.using.reading import Positions

By = Annotated[
    str | None,
    typer.Option(
        metavar="entropy|surprise|change|spread",
        help="how --top chooses: how open the next token is, how unexpected this one, how far the "
        "activation turned, how unlike the mean it is. On held-out tokens of the pair in the box "
        "the spread alone goes with better explanations: rho 0.36 [0.13, 0.57]",
    ),
]


def explain(
    pair: Pair,
    text: Annotated[str | None, typer.Argument()] = None,
    position: Annotated[
        list[str] | None,
        typer.Option("--position", "-p", help="token index, may be negative; last or all"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="every token of the text")] = False,
    vectors: Annotated[Path | None, typer.Option(help="raw vectors (.parquet, .npy, .npz)")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="write Parquet parts into this folder, and go on where it stopped"),
    ] = None,
    score: Annotated[bool, typer.Option(help="with --out: scores and their floor")] = True,
    batch: Annotated[int, typer.Option(min=1, help="with --out: vectors at once")] = 32,
    sae: Annotated[
        Path | None,
        typer.Option(help="decoder directions of an SAE: a SAELens or Gemma Scope folder"),
    ] = None,
    features: Annotated[str | None, typer.Option(help="of the SAE: 0-99, or 3,17")] = None,
    sae_of: Annotated[
        str | None,
        typer.Option(metavar="NAME:LAYER", help="state which model and block the SAE reads"),
    ] = None,
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
    top: Annotated[
        int | None,
        typer.Option(min=1, help="the tokens most worth reading, by one pass of the subject"),
    ] = None,
    by: By = None,
    window: Annotated[
        int | None,
        typer.Option(min=16, help="tokens read at once, for a text longer than the subject reads"),
    ] = None,
    messages: MessagesFile = None,
    role: Roles = None,
    template: Template = None,
    add_generation_prompt: GenerationPrompt = False,
    continue_final_message: ContinueLast = False,
    enable_thinking: Thinking = None,
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
    """Put activations into words: those of a text or conversation at positions, raw vectors from a
    file, or the decoder directions of an SAE."""
    check_output(format, save)
    positions = "all" if every else _positions(position or [])
    given = sum(one is not None for one in (text, vectors, sae, messages))
    if given != 1:
        raise ConfigError("give a text, --vectors, --sae or --messages", found=given, do="one")
    criterion = _criterion(top, by, positions, text if messages is None else messages)
    talks = conversations(
        messages, role, template, add_generation_prompt, continue_final_message, enable_thinking
    )
    if sae is None and (features or sae_of):
        raise ConfigError("--features and --sae-of go with --sae", do="give the SAE's folder")
    if out is not None and (vectors is None or save is not None):
        raise ConfigError(
            "--out takes --vectors, and nothing else to write to",
            found="--save" if vectors else "no --vectors",
            do="write the explanations of a text with --save",
        )
    if vectors and neighbours:
        raise ConfigError(
            "bare vectors have no neighbouring tokens",
            found=f"--neighbours {neighbours} with --vectors",
            do="give the text, or --samples alone",
        )
    halves = [pair, other] if other else pair
    loading: dict[str, Any] = {
        "base_model": base_model, "precision": precision, "ar_blocks": ar_blocks,
        "injection": injection, "chat": chat, "ar_bos": ar_bos, "device": device,
    }  # fmt: skip
    if vectors is not None and out is not None:
        explain_into(out, halves, vectors, score, batch, **loading)
        return
    if sae is not None:
        explain_sae(sae, features, sae_of, halves, format, save, **loading)
        return
    what = talks or [read_vectors(vectors) if vectors else text or ""]
    nla = load_pair(pair, other, base_model, precision, ar_blocks, injection, chat, ar_bos, device)
    how: dict[str, Any] = {"special_tokens": "parse" if parse else None, "window": window}
    again = {"samples": samples, "neighbours": neighbours, "temperature": temperature, "seed": seed}
    found = [_explained(nla, one, positions, top or 10, criterion, how, again) for one in what]
    if len(found) == 1:
        records = found[0]
    else:
        records = [{"conversation": n, **one} for n, rows in enumerate(found) for one in rows]
    emit(records, format, save)


def _criterion(
    top: int | None, by: str | None, positions: Positions, words: str | Path | None
) -> Criterion | None:
    """By what tokens are chosen; None if they are not. ConfigError for what cannot be."""
    from nlakit.core.text.where import CRITERIA

    if top is None and by is None:
        return None
    if positions != "last" or words is None:
        raise ConfigError(
            "--top and --by choose the tokens of a text",
            found="positions, or no text, are given",
            do="leave out the others",
        )
    for one in CRITERIA:
        if one == by:
            return one
    raise ConfigError(
        "--top needs --by" if by is None else "unknown --by", found=by, do=", ".join(CRITERIA)
    )


def _explained(
    nla: NLA,
    what: Any,
    positions: Positions,
    top: int,
    by: Criterion | None,
    how: dict[str, Any],
    again: dict[str, Any],
) -> list[dict[str, Any]]:
    """Records of what is explained; of chosen tokens, the value that they were chosen by."""
    if by is None:
        return nla.explain(what, positions, **how, **again).as_dicts()
    chosen = nla.rank(what, by, top, **how)
    places = [one.position for one in chosen]
    found = nla.explain(what, places, **how, **again).as_dicts()
    return [{**one, by: place.value} for one, place in zip(found, chosen, strict=True)]


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
