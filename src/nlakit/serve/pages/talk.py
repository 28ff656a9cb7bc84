"""Conversations as people paste them: JSON messages, or turns that begin with a role."""

from __future__ import annotations

import re
from typing import Any

from nlakit.core.text.messages import Conversation, checked
from nlakit.errors import DataError
from nlakit.files.messages import conversation_in
from nlakit.models.nla import NLA

TURN = re.compile(r"(?im)^[ \t]*(system|developer|user|human|assistant|model|ai|tool)[ \t]*:[ \t]*")
SAME = {"human": "user", "model": "assistant", "ai": "assistant"}


def messages_in(text: str) -> list[Any]:
    """The messages of a pasted conversation. Raises DataError if it is none."""
    if text.lstrip().startswith(("[", "{")):
        return checked(conversation_in(text, "what you pasted"))
    parts = TURN.split(text)
    if len(parts) < 3 or parts[0].strip():
        raise DataError(
            "this is no conversation",
            found=repr((parts[0].strip() or text)[:60]),
            do="begin each turn with user: or assistant:, or paste a list of {role, content}",
        )
    roles, words = parts[1::2], parts[2::2]
    named = [SAME.get(role.lower(), role.lower()) for role in roles]
    return checked(
        [{"role": role, "content": said.strip()} for role, said in zip(named, words, strict=True)]
    )


def conversation_of(nla: NLA, text: str) -> Conversation:
    """A pasted conversation as the pair reads it: in the subject's chat template, as a transcript
    in plain words where there is none. The words of the assistant are read, of everybody where it
    says none."""
    messages = messages_in(text)
    known = nla.contract.nlakit.chat_template or nla.subject.tokenizer.chat_template
    roles = {one["role"] for one in messages}
    spoken = ("assistant",) if "assistant" in roles else tuple(sorted(roles))
    return Conversation(messages, template=None if known else "plain", roles=spoken)
