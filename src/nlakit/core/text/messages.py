"""Messages of a conversation, as users give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nlakit.errors import DataError

ROLE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
THOUGHTS = ("reasoning_content", "thinking", "reasoning")  # one thing under three names
UNREADABLE = ("tool_calls", "function_call")


@dataclass(frozen=True)
class Conversation:
    """Messages as `{role, content}`, and how the subject's template is filled in. A thought may
    stand in `reasoning_content` (or `thinking`), or in the content between tags, `<think>`.

    roles: whose words are read; `thinking` is what is thought, `template` the template's tokens.
    template: Jinja text in place of the tokenizer's own; `plain` is a transcript in plain words.
    """

    messages: Sequence[Mapping[str, Any]]
    add_generation_prompt: bool = False
    continue_final_message: bool = False
    enable_thinking: bool | None = None
    template: str | None = None
    roles: Sequence[str] = ("assistant",)


def checked(messages: Sequence[Mapping[str, Any]], where: str = "") -> list[dict[str, str]]:
    """Messages with what templates read: role, content, and reasoning_content and channel if they
    are there. What else a record holds (names, times) is left out.

    Raises DataError with the number of the message, counted from 0, and `where` it lies.
    """
    lies = f" in {where}" if where else ""
    if isinstance(messages, str | Mapping) or not messages:
        raise DataError(
            f"no messages{lies}", found=repr(messages)[:60], do="give a list of {role, content}"
        )
    made = []
    for index, message in enumerate(messages):
        what = f"message {index}{lies} cannot be read"
        if not isinstance(message, Mapping):
            raise DataError(what, found=repr(message)[:60], do="give {role, content}")
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or not ROLE.fullmatch(role):
            do = "give a role in one word, such as user or assistant"
            raise DataError(what, found=f"role {str(role)[:60]!r}", do=do)
        if held := [name for name in UNREADABLE if message.get(name)]:
            raise DataError(what, found=held[0], do="write the call into the content")
        thought = next((message[name] for name in THOUGHTS if message.get(name)), None)
        one = {"role": role, "content": "" if content is None else content}
        if thought is not None:
            one["reasoning_content"] = thought
        if message.get("channel") is not None:
            one["channel"] = message["channel"]
        for name, value in one.items():
            if not isinstance(value, str):
                found = f"{name} is {type(value).__name__}"
                raise DataError(what, found=found, do="give strings; write parts into one")
        if "channel" in one and not ROLE.fullmatch(one["channel"]):
            raise DataError(what, found=f"channel {one['channel'][:60]!r}", do="give one word")
        made.append(one)
    return made


def plain_text(messages: Sequence[Mapping[str, str]]) -> str:
    """What checked messages say, without any template."""
    parts = [part for one in messages for part in (one.get("reasoning_content"), one["content"])]
    return "\n\n".join(part for part in parts if part)
