"""What commands that use a pair share: its options, and how it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nlakit.models.nla import NLA

HUB_ID = "hub id, OWNER/NAME or OWNER/NAME/FOLDER"
Pair = Annotated[
    str, typer.Argument(metavar="PAIR", help=f"pair, half or run folder; {HUB_ID}; demo")
]
Other = Annotated[
    str | None, typer.Option("--with", metavar="SOURCE", help="the other half, if it lies apart")
]
BaseModel = Annotated[
    str | None, typer.Option(help="the subject, if not the one that the sidecar names")
]
Precision = Annotated[
    str | None, typer.Option(help="float32, bfloat16, nf4+bfloat16, ...; as recorded unless given")
]
ArBlocks = Annotated[
    int | None, typer.Option(min=1, help="depth of a PEFT AR that adapts the whole model")
]
Injection = Annotated[
    str | None,
    typer.Option(
        metavar="reference|add",
        help="state how the vector enters an AV whose files do not say it: in place of the "
        "marker's embedding, or added behind block 1 (EasyNLA, nanoNLA)",
    ),
]
Chat = Annotated[
    str | None,
    typer.Option(
        metavar="plain|turn|no-thinking",
        help="state what the prompt of an AV is whose files do not say it: plain text, the user's "
        "turn of the chat template, or the same with enable_thinking=False (EasyNLA)",
    ),
]
ArBos = Annotated[
    str | None,
    typer.Option(
        metavar="yes|no",
        help="state whether the prompt of an AR begins with a BOS whose files do not say it "
        "(EasyNLA: no)",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:0, mps")]


def load_pair(
    pair: str,
    other: str | None,
    base_model: str | None,
    precision: str | None,
    ar_blocks: int | None,
    injection: str | None,
    chat: str | None,
    ar_bos: str | None,
    device: str,
) -> NLA:
    """The pair, or half, that a command was given, with its other half if that lies elsewhere."""
    from nlakit.models.nla import NLA

    return NLA.load(
        [pair, other] if other else pair,
        base_model=base_model, precision=precision, ar_blocks=ar_blocks, injection=injection,
        chat=chat, ar_bos=ar_bos, device=device,
    )  # fmt: skip
