"""Conversations as what a command reads: their options, and the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlakit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from nlakit.core.text.messages import Conversation

MessagesFile = Annotated[
    Path | None,
    typer.Option(
        "--messages",
        metavar="FILE",
        help='a conversation as [{"role": ..., "content": ...}, ...] (.json), or one a line '
        "(.jsonl), read in the subject's chat template",
    ),
]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        help="whose words `last` and --all mean: a role, thinking, or template; assistant "
        "unless given",
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--template",
        metavar="plain|FILE",
        help="in place of the subject's chat template: a transcript in plain words, or a file in "
        "Jinja",
    ),
]
GenerationPrompt = Annotated[
    bool, typer.Option("--add-generation-prompt", help="begin the assistant's next message")
]
ContinueLast = Annotated[
    bool, typer.Option("--continue-final-message", help="leave the last message open")
]
Thinking = Annotated[
    bool | None,
    typer.Option(
        "--enable-thinking/--no-thinking", help="told to the template; left out unless given"
    ),
]


def conversations(
    path: Path | None,
    roles: list[str] | None,
    template: str | None,
    add_generation_prompt: bool,
    continue_final_message: bool,
    enable_thinking: bool | None,
) -> list[Conversation]:
    """The conversations of a file with the options of a command; none without a file.

    Raises ConfigError for an option without the file, or a template that is no file.
    """
    if path is None:
        given = [bool(roles), bool(template), add_generation_prompt, continue_final_message]
        if any(given) or enable_thinking is not None:
            raise ConfigError(
                "an option of conversations was given without one",
                found="no --messages",
                do="give --messages FILE",
            )
        return []
    from nlakit.core.text.messages import Conversation
    from nlakit.files.messages import read_conversations
    from nlakit.files.text import decoded_lines

    if template is not None and template != "plain":
        if not Path(template).is_file():
            raise ConfigError("no such template", found=template, do="plain, or a file in Jinja")
        template = "".join(decoded_lines(Path(template)))
    if not path.is_file():
        raise DataError(f"no conversation at {path}", found="no such file", do="give one")
    return [
        Conversation(
            messages, add_generation_prompt, continue_final_message, enable_thinking, template,
            tuple(roles or ("assistant",)),
        )
        for messages in read_conversations(path)
    ]  # fmt: skip
