"""What a pair reads for a user: a text or a conversation, its tokens, and where activations are
taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeGuard

from nlakit.core.prompts import document_ids
from nlakit.core.text.characters import spelled
from nlakit.core.text.chat import Span, chat_tokens
from nlakit.core.text.messages import Conversation
from nlakit.errors import DataError

Positions = Literal["last", "all"] | Sequence[int]
SpecialTokens = Literal["text", "parse"]
Read = str | Sequence[Mapping[str, Any]] | Conversation


def has_words(what: Any) -> TypeGuard[Read]:
    """Whether something is a text or messages, and not vectors."""
    if isinstance(what, list | tuple):
        return not what or isinstance(what[0], Mapping)
    return isinstance(what, str | Conversation)


@dataclass(frozen=True)
class Token:
    """A token of what was read. A character of several tokens is the text of each of them, counted
    by `fragment_index` and `fragment_count`. What comes last is None but in a conversation; its
    sections are those of `core.text.chat.Span`."""

    position: int
    token_id: int
    token: str
    fragment_index: int = 0
    fragment_count: int = 1
    role: str | None = None
    section: str | None = None
    channel: str | None = None
    message_index: int | None = None


@dataclass(frozen=True)
class Tokens:
    """The t token ids of a text; of a conversation, also the filled-in template, whose each token
    is, and whose words are read."""

    text: str
    ids: list[int]
    spans: list[Span] | None = None
    roles: Sequence[str] = ()

    def places(self, positions: Positions) -> list[int]:
        """Token indices `0 ≤ p < t`. In a conversation `last` and `all` are of the tokens at which
        its roles speak. Raises DataError for one outside, or if none of them speaks."""
        if self.spans is None or not isinstance(positions, str):
            return resolve_positions(positions, len(self.ids))
        spoken = [at for at, span in enumerate(self.spans) if span.voice in self.roles]
        if not spoken:
            voices = dict.fromkeys(str(span.voice) for span in self.spans)
            raise DataError(
                f"nobody speaks as {', '.join(self.roles) or '(no role)'} in the conversation",
                found=f"tokens of {', '.join(voices)}",
                do="choose other roles; `template` is what the template puts around them",
            )
        return spoken[-1:] if positions == "last" else spoken

    def described(self, tokenizer: Any) -> list[Token]:
        """Each token with its text and, in a conversation, whose it is."""
        made = []
        for at, (text, index, count) in enumerate(spelled(tokenizer, self.ids)):
            token = Token(at, self.ids[at], text, index, count)
            if self.spans is not None:
                token = replace(token, **owner_of(self.spans[at]))
            made.append(token)
        return made


def tokens_of(
    tokenizer: Any,
    what: Read,
    special_tokens: SpecialTokens = "text",
    template: str | None = None,
    name: str = "the subject",
) -> Tokens:
    """The tokens of a text, or of messages in the subject's template. special_tokens: as in
    `document_ids`. template: the one of `Conversation` where it names none. name: of the subject.

    Raises DataError for an empty text, and what `chat_tokens` raises.
    """
    if isinstance(what, str):
        if not what.strip():
            raise DataError("the text is empty", do="give some text to read")
        return Tokens(what, document_ids(tokenizer, what, special_tokens))
    talk = what if isinstance(what, Conversation) else Conversation(what)
    if talk.template is None:
        talk = replace(talk, template=template)
    made = chat_tokens(tokenizer, talk, name)
    return Tokens(made.text, made.ids, made.spans, talk.roles)


def owner_of(span: Span) -> dict[str, Any]:
    """Whose a token is, as records have it."""
    names = ("role", "section", "channel", "message_index")
    return {name: getattr(span, name) for name in names}


def resolve_positions(positions: Positions, tokens: int) -> list[int]:
    """Token indices `0 ≤ p < tokens`; DataError for one outside."""
    if positions == "last":
        return [tokens - 1]
    if positions == "all":
        return list(range(tokens))
    found = []
    for position in positions:
        if isinstance(position, str) or not -tokens <= position < tokens:
            raise DataError(
                "no such token position",
                found=f"{position} in a text of {tokens} tokens",
                do=f"give 0 to {tokens - 1}, or a negative one",
            )
        found.append(position % tokens)
    return found
