"""A conversation as the subject reads it: token ids, and whose each token is.

The template's own words are found by filling it in a second time with placeholders for the
messages; what then stands around the placeholders is the template's. Nothing is known of any
family's template.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal

from nlakit.core.prompts import encode
from nlakit.core.text.messages import Conversation, checked
from nlakit.core.text.tokenizer import begins_with_bos
from nlakit.errors import ConfigError, DataError, ModelError, first_line

Section = Literal["header", "content", "thinking", "footer", "scaffold"]
SPOKEN = ("content", "thinking")
# A transcript for subjects without a template of their own.
PLAIN = (
    "{{ front }}{% for message in messages %}{{ message['role'] | capitalize }}: "
    "{% if message['reasoning_content'] %}{{ message['reasoning_content'] | trim }}\n{% endif %}"
    "{{ message['content'] | trim }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
TAG = re.compile(r"(</?think>)")
MARK = re.compile("\ue000([0-9]+)\ue001")
ANCHOR = "\n"


@dataclass(frozen=True)
class Span:
    """Characters `start` to `end` of the filled-in template, and whose they are.

    section: content and thinking are a message's own words; header and footer are what the template
    puts before and behind them, scaffold what belongs to no message or stands within one.
    """

    start: int
    end: int
    section: Section
    role: str | None = None
    message_index: int | None = None
    channel: str | None = None

    @property
    def voice(self) -> str | None:
        """The role whose words these are; `thinking`, or `template`."""
        if self.section == "thinking":
            return "thinking"
        return self.role if self.section == "content" else "template"


@dataclass(frozen=True)
class ChatTokens:
    """The filled-in template, its t token ids, and the span that each token belongs to."""

    text: str
    ids: list[int]
    spans: list[Span]


@dataclass(frozen=True)
class _Piece:
    """Words of a message that the template takes as they are."""

    words: str
    section: Section
    message: int


def chat_tokens(
    tokenizer: Any, conversation: Conversation, name: str = "the subject"
) -> ChatTokens:
    """Token ids of a conversation in the subject's template, exactly those of
    `apply_chat_template`, except that a special token which a message spells is letters.

    A token that holds any letter of a message is the message's. White space at the ends of a
    message is the template's, since many templates take it away. name: of the subject, for errors.

    Raises DataError for messages that cannot be read or that the template refuses, leaves out or
    changes; ModelError if there is no template, or the tokenizer does not say where tokens lie.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {name} does not say which letters a token stands for",
            found=type(tokenizer).__name__,
            do="convert it to a fast one, or give the conversation as text",
        )
    messages = checked(conversation.messages)
    fill = _Filler(tokenizer, conversation, name)
    text = fill(messages)
    pieces, shadow = _placeholders(messages)
    filled = fill(shadow)
    spans = _spans(filled, pieces, messages, fill, shadow)
    if _with_words(filled, pieces) != text:
        raise DataError(
            f"the chat template of {name} changes the words of the messages",
            do="give the conversation as text, with --parse (special_tokens='parse')",
        )
    _check_complete(spans, pieces, name)
    ids, owners = _tokens(tokenizer, text, spans, fill.template)
    return ChatTokens(text, ids, owners)


class _Filler:
    """Fills in the template of one conversation with any messages."""

    def __init__(self, tokenizer: Any, conversation: Conversation, name: str) -> None:
        own = getattr(tokenizer, "chat_template", None)
        given = PLAIN if conversation.template == "plain" else conversation.template
        if not (given or own):
            raise ModelError(
                f"{name} has no chat template",
                found="a base model, or a tokenizer without its chat_template.jinja",
                do="choose a template: plain (a transcript), or a file in Jinja",
            )
        if conversation.add_generation_prompt and conversation.continue_final_message:
            raise ConfigError(
                "a conversation goes on with a new message or with its last one",
                found="add_generation_prompt and continue_final_message",
                do="leave one out",
            )
        self.tokenizer, self.name, self.given = tokenizer, name, given
        self.conversation = conversation
        self.template: str = given or str(own)
        self.options: dict[str, Any] = {}
        if conversation.enable_thinking is not None:
            self.options["enable_thinking"] = conversation.enable_thinking
        if given is PLAIN:  # other templates begin a text themselves
            self.options["front"] = tokenizer.bos_token if begins_with_bos(tokenizer) else ""

    def __call__(self, messages: Sequence[Mapping[str, str]], whole: bool = True) -> str:
        """The filled-in template; of a beginning of the conversation unless `whole`."""
        try:
            return self.tokenizer.apply_chat_template(
                [dict(one) for one in messages],
                chat_template=self.given,
                tokenize=False,
                add_generation_prompt=whole and self.conversation.add_generation_prompt,
                continue_final_message=whole and self.conversation.continue_final_message,
                **self.options,
            )
        except Exception as error:  # whatever the template itself does
            raise DataError(
                f"the chat template of {self.name} refuses the messages",
                found=f"{first_line(error)[:200]}; roles {_roles(messages)}",
                do="many templates know no system role, and want user and assistant in turn: write "
                "a system text at the head of the first user message",
            ) from error


def _roles(messages: Sequence[Mapping[str, str]]) -> str:
    names = [one["role"] for one in messages]
    return ", ".join(names[:6]) + (f", ... ({len(names)})" if len(names) > 6 else "")


def _placeholders(
    messages: Sequence[Mapping[str, str]],
) -> tuple[list[_Piece], list[dict[str, str]]]:
    """The messages with a placeholder for each piece of their words, and the pieces. White space
    around a piece stays, so that a template that strips it does so here too."""
    pieces: list[_Piece] = []

    def put(text: str, section: Section, message: int) -> str:
        words = text.strip()
        if not words:
            return text
        pieces.append(_Piece(words, section, message))
        before = text[: len(text) - len(text.lstrip())]
        return f"{before}\ue000{len(pieces) - 1}\ue001{text[len(text.rstrip()) :]}"

    made = []
    for index, message in enumerate(messages):
        one = dict(message)
        if "reasoning_content" in one:
            one["reasoning_content"] = put(one["reasoning_content"], "thinking", index)
        # Only a model's own tags are tags: what a user types is text.
        parts = TAG.split(one["content"]) if one["role"] == "assistant" else [one["content"]]
        thinking = parts[1:2] == ["</think>"]
        content = ""
        for place, part in enumerate(parts):
            if place % 2:
                thinking = part == "<think>"
                content += part
            else:
                content += put(part, "thinking" if thinking else "content", index)
        made.append({**one, "content": content})
    return pieces, made


def _with_words(filled: str, pieces: Sequence[_Piece]) -> str:
    return MARK.sub(lambda mark: pieces[int(mark[1])].words, filled)


def _spans(
    filled: str,
    pieces: Sequence[_Piece],
    messages: Sequence[Mapping[str, str]],
    fill: _Filler,
    shadow: Sequence[Mapping[str, str]],
) -> list[Span]:
    """The spans of the text that `filled` is with its words in, in order, without gaps."""
    spans: list[Span] = []
    end = 0  # in the text

    def add(length: int, section: Section, index: int | None, role: str | None = None) -> None:
        nonlocal end
        if length:
            message = {} if index is None else messages[index]
            owner = message.get("role", role)
            spans.append(Span(end, end + length, section, owner, index, message.get("channel")))
            end += length

    last, before = 0, None
    if begins_with_bos(fill.tokenizer) and filled.startswith(fill.tokenizer.bos_token):
        last = len(fill.tokenizer.bos_token)
        add(last, "scaffold", None)
    for mark in MARK.finditer(filled):
        piece = pieces[int(mark[1])]
        gap = filled[last : mark.start()]
        if before == piece.message:
            add(len(gap), "scaffold", before)
        else:
            closing = 0 if before is None else _closing(gap, before, fill, shadow)
            add(closing, "footer", before)
            add(len(gap) - closing, "header", piece.message)
        add(len(piece.words), piece.section, piece.message)
        last, before = mark.end(), piece.message
    gap = filled[last:]
    closing = 0 if before is None else _closing(gap, before, fill, shadow)
    add(closing, "footer", before)
    opened = fill.conversation.add_generation_prompt
    add(
        len(gap) - closing,
        "header" if opened else "scaffold",
        None,
        "assistant" if opened else None,
    )
    return spans


def _closing(gap: str, message: int, fill: _Filler, shadow: Sequence[Mapping[str, str]]) -> int:
    """How many characters of what follows a message's words close it: as many as follow them where
    the conversation ends with it."""
    try:
        ended = fill(shadow[: message + 1], whole=False)
    except DataError:  # a template may refuse a conversation that ends there
        return 0
    ending = MARK.split(ended)[-1]
    common = 0
    for one, other in zip(gap, ending, strict=False):
        if one != other:
            break
        common += 1
    return common


def _check_complete(spans: Sequence[Span], pieces: Sequence[_Piece], name: str) -> None:
    """Raise DataError if a message's content is missing. Thoughts may be: many templates drop those
    of earlier turns."""
    said = {span.message_index for span in spans if span.section == "content"}
    for piece in pieces:
        if piece.section == "content" and piece.message not in said:
            raise DataError(
                f"the chat template of {name} leaves out message {piece.message}",
                found=repr(piece.words[:60]),
                do="give its role another name, or write it into another message",
            )


@lru_cache(maxsize=4)
def _control(tokenizer: Any, template: str) -> re.Pattern[str]:
    """What is a token of the template and not text: special tokens, and added ones that the
    template names (`<think>` is no special token in many vocabularies)."""
    found = {
        token.content
        for token in tokenizer.added_tokens_decoder.values()
        if token.special or (token.content in template and not token.content.isspace())
    }
    longest = sorted(found, key=lambda one: (-len(one), one))
    return re.compile("|".join(map(re.escape, longest)) or "(?!)")


def _tokens(
    tokenizer: Any, text: str, spans: Sequence[Span], template: str
) -> tuple[list[int], list[Span]]:
    """Token ids `(t,)` and the span of each. Where a message spells a control token, the text is
    cut behind its first letter and the parts are encoded apart: no token reaches over a cut."""
    control = _control(tokenizer, template)
    own = [(span.start, span.end) for span in spans if span.section in SPOKEN]
    ids: list[int] = []
    owners: list[Span] = []
    starts = [span.start for span in spans]
    edges = [0, *_cuts(text, control, own), len(text)]
    for start, end in pairwise(edges):
        for token, (first, last) in _encoded(tokenizer, text[start:end], bare=start > 0):
            ids.append(token)
            owners.append(_owner(spans, starts, start + first, start + last))
    return ids, owners


def _cuts(text: str, control: re.Pattern[str], own: Sequence[tuple[int, int]]) -> Iterator[int]:
    """Where to cut, so that no control token which a message has a letter of is one."""
    ends = [end for _, end in own]
    at = 0
    while found := control.search(text, at):
        first = bisect_right(ends, found.start())
        theirs = first < len(own) and own[first][0] < found.end()
        if theirs:
            yield found.start() + 1
        at = found.start() + 1 if theirs else found.end()


def _encoded(tokenizer: Any, text: str, bare: bool) -> Iterator[tuple[int, tuple[int, int]]]:
    """Ids of a text with the letters that each stands for. bare: the text goes on another one, so
    that nothing may be put before it; some tokenizers begin every text with a space."""
    shift = len(ANCHOR) if bare else 0
    encode(tokenizer, text, special=False)  # refuses what is no text
    made = tokenizer(
        ANCHOR[:shift] + text,
        add_special_tokens=False,
        split_special_tokens=False,
        return_offsets_mapping=True,
    )
    for token, (first, last) in zip(made["input_ids"], made["offset_mapping"], strict=True):
        if last > shift or not bare:
            yield token, (max(first - shift, 0), last - shift)


def _owner(spans: Sequence[Span], starts: Sequence[int], first: int, last: int) -> Span:
    """The span that a token over the characters `first` to `last` belongs to."""
    place = max(bisect_right(starts, first) - 1, 0)
    for span in spans[place:]:
        if span.start >= last:
            break
        if span.section in SPOKEN and span.end > first:
            return span
    return spans[place]
