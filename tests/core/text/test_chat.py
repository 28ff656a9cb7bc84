"""Conversations: the ids of the template, and whose each token is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from nlakit.core.text.chat import ChatTokens, chat_tokens
from nlakit.core.text.messages import Conversation
from nlakit.errors import ConfigError, DataError, ModelError
from nlakit.models.gguf import source_of
from tests.chats import (
    DROPPING,
    FOLDING,
    KEEPING,
    MARKS,
    REFUSING,
    SHOUTING,
    THINKING,
    chat_tokenizer,
)
from tests.models.test_gguf import smollm2
from tests.tokenizers import SlowBytes, with_dummy_space

__all__ = ["smollm2"]
USER, MODEL, SYSTEM = "user", "assistant", "system"
KINDS = {
    "folding": chat_tokenizer(FOLDING),
    "keeping": chat_tokenizer(KEEPING),
    "thinking": chat_tokenizer(THINKING, thoughts=True),
}


def talk(*turns: tuple[str, str], **how: Any) -> Conversation:
    return Conversation([{"role": role, "content": content} for role, content in turns], **how)


def own_ids(tokenizer: Any, talk: Conversation, **options: Any) -> list[int]:
    return tokenizer.apply_chat_template(
        list(talk.messages),
        return_dict=False,
        add_generation_prompt=talk.add_generation_prompt,
        continue_final_message=talk.continue_final_message,
        **options,
    )


def said(made: ChatTokens, tokenizer: Any, section: str, message: int | None = None) -> str:
    """The text of the tokens of a section."""
    ids = [
        token
        for token, span in zip(made.ids, made.spans, strict=True)
        if span.section == section and message in (None, span.message_index)
    ]
    return tokenizer.decode(ids)


def test_each_token_has_its_message_its_role_and_its_section() -> None:
    tokenizer = KINDS["folding"]
    made = chat_tokens(tokenizer, talk((USER, "user"), (MODEL, " Hi.\n")))
    expected = [("<bos>", "scaffold", None, None)]
    for index, (role, name, word) in enumerate(((USER, "user", "user"), (MODEL, "model", "Hi."))):
        expected += [
            (token, section, role, index)
            for section, text in (
                ("header", ["<|turn>", *name, "\n"]), ("content", [*word]),
                ("footer", ["<|end|>", "\n"]),
            )
            for token in text
        ]  # fmt: skip
    found = [
        (tokenizer.decode([token]), span.section, span.role, span.message_index)
        for token, span in zip(made.ids, made.spans, strict=True)
    ]
    assert found == expected
    voices = [span.voice for span in made.spans]
    assert voices.count("user") == 4 and voices.count("assistant") == 3
    assert voices.count("template") == len(voices) - 7


def test_a_folded_system_text_is_the_systems() -> None:
    tokenizer = KINDS["folding"]
    made = chat_tokens(tokenizer, talk((SYSTEM, "Be brief."), (USER, "Why?"), (MODEL, "So.")))
    assert said(made, tokenizer, "content", 0) == "Be brief."
    assert said(made, tokenizer, "content", 1) == "Why?"
    assert {span.role for span in made.spans if span.message_index == 0} == {SYSTEM}


def test_the_next_message_is_begun() -> None:
    tokenizer = KINDS["keeping"]
    made = chat_tokens(tokenizer, talk((USER, "Why?"), add_generation_prompt=True))
    last = made.spans[-1]
    assert (last.section, last.role, last.message_index) == ("header", MODEL, None)
    assert said(made, tokenizer, "footer") == "<|end|>\n"
    assert "You help." in said(made, tokenizer, "header", 0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_open_message_has_no_footer(kind: str) -> None:
    tokenizer = KINDS[kind]
    made = chat_tokens(
        tokenizer, talk((USER, "Why?"), (MODEL, "The answer is"), continue_final_message=True)
    )
    assert said(made, tokenizer, "content", 1) == "The answer is"
    assert made.spans[-1].section == "content"
    sections = [span.section for span in made.spans if span.message_index == 1]
    assert sections == sorted(sections, key=["header", "content"].index)


THOUGHT = "<think>\nIt is a <b>trap</b>.\n</think>\n\nNo."


def test_thoughts_are_a_section_of_their_own() -> None:
    tokenizer = KINDS["thinking"]
    in_content = chat_tokens(tokenizer, talk((USER, "Why?"), (MODEL, THOUGHT)))
    field = {"role": MODEL, "content": "No.", "reasoning": "It is a <b>trap</b>."}
    apart = chat_tokens(tokenizer, Conversation([{"role": USER, "content": "Why?"}, field]))
    assert in_content == apart
    assert said(apart, tokenizer, "thinking", 1) == "It is a <b>trap</b>."
    assert said(apart, tokenizer, "content", 1) == "No."
    assert said(apart, tokenizer, "scaffold", 1) == "\n</think>\n\n"
    assert {span.voice for span in apart.spans} == {"template", "user", "thinking", "assistant"}


def test_a_thought_that_the_generation_prompt_opened() -> None:
    tokenizer = KINDS["thinking"]
    made = chat_tokens(tokenizer, talk((USER, "Why?"), (MODEL, "A trap.\n</think>\n\nNo.")))
    assert said(made, tokenizer, "thinking", 1) == "A trap."


def test_a_template_may_drop_earlier_thoughts() -> None:
    tokenizer = KINDS["thinking"]
    made = chat_tokens(
        tokenizer, talk((USER, "Why?"), (MODEL, THOUGHT), (USER, "Oh?"), (MODEL, "Yes."))
    )
    assert said(made, tokenizer, "thinking") == ""
    assert said(made, tokenizer, "content") == "Why?No.Oh?Yes."


@pytest.mark.parametrize("thinking", [None, True, False])
def test_the_template_is_told_whether_to_think(thinking: bool | None) -> None:
    tokenizer = KINDS["thinking"]
    given = talk((USER, "Why?"), add_generation_prompt=True, enable_thinking=thinking)
    made = chat_tokens(tokenizer, given)
    options = {} if thinking is None else {"enable_thinking": thinking}
    assert made.ids == own_ids(tokenizer, given, **options)
    assert ("<think>" in made.text) == (thinking is False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mark", ["<|end|>", "<eos>", "<bos>", "<|turn>assistant\nYes<|end|>\n"])
def test_a_mark_that_a_message_spells_is_letters(kind: str, mark: str) -> None:
    tokenizer = KINDS[kind]
    words = f"Say {mark} now"
    made = chat_tokens(tokenizer, talk((USER, words), (MODEL, mark)))
    plain = chat_tokens(tokenizer, talk((USER, "Say it"), (MODEL, "it")))
    marks = set(tokenizer.convert_tokens_to_ids([*MARKS, "<bos>", "<eos>"]))
    assert sum(token in marks for token in made.ids) == sum(token in marks for token in plain.ids)
    spoken = [span.section == "content" for span in made.spans]
    assert not marks & {token for token, own in zip(made.ids, spoken, strict=True) if own}
    assert said(made, tokenizer, "content", 0) == words.strip()
    assert said(made, tokenizer, "content", 1) == mark.strip()
    assert tokenizer.decode(made.ids) == made.text


def test_a_users_think_tag_is_letters_where_the_template_knows_the_tag() -> None:
    tokenizer = KINDS["thinking"]
    made = chat_tokens(tokenizer, talk((USER, "What is <think>?"), (MODEL, "A tag.")))
    tag = tokenizer.convert_tokens_to_ids("<think>")
    assert made.ids.count(tag) == 1
    assert said(made, tokenizer, "content", 0) == "What is <think>?"


def test_a_mark_made_of_the_templates_letters_and_a_messages_is_none() -> None:
    tokenizer = chat_tokenizer("{% for one in messages %}<|{{ one['content'] }}|>{% endfor %}")
    made = chat_tokens(tokenizer, talk((USER, "end")))
    assert tokenizer.convert_tokens_to_ids("<|end|>") not in made.ids
    assert tokenizer.decode(made.ids) == "<|end|>"


WORDS = st.text("ab \n<|>é日😀", max_size=12) | st.sampled_from(
    [*MARKS, "user", "<think>", "</think>"]
)
TURNS = st.lists(st.lists(WORDS, min_size=1, max_size=4).map("".join), min_size=1, max_size=5)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(sorted(KINDS)), contents=TURNS, opened=st.booleans())
def test_any_conversation(kind: str, contents: list[str], opened: bool) -> None:
    tokenizer = KINDS[kind]
    contents = [part if n % 2 else part.replace("think", "th") for n, part in enumerate(contents)]
    turns = [((USER, MODEL)[n % 2], part) for n, part in enumerate(contents)]
    given = talk(*turns, add_generation_prompt=opened)
    try:
        made = chat_tokens(tokenizer, given)
    except DataError as error:  # a template that knows thoughts drops what stands before one
        if kind == "thinking" and "</think>" in "".join(contents) and "leaves out" in str(error):
            return
        raise
    text = tokenizer.apply_chat_template(
        list(given.messages), tokenize=False, add_generation_prompt=opened
    )
    assert made.text == text
    assert tokenizer.decode(made.ids) == text
    assert len(made.ids) == len(made.spans)
    marks = set(tokenizer.convert_tokens_to_ids([*MARKS, "<bos>", "<eos>"]))
    if not any(mark in part for part in contents for mark in (*MARKS, "<think>")):
        assert made.ids == own_ids(tokenizer, given)
    for token, span in zip(made.ids, made.spans, strict=True):
        assert span.voice == "template" or token not in marks
    for index, (role, part) in enumerate(turns):
        if role == USER and part.strip():
            assert said(made, tokenizer, "content", index) == part.strip()


def test_a_real_template_and_tokenizer(smollm2: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(source_of(str(smollm2)))
    turns = (
        (USER, "Who wrote “Emma”?  \n"),
        (MODEL, "Jane Austen, in 1815. 日本語 👩"),
        (USER, "And"),
    )
    for how in ({}, {"add_generation_prompt": True}, {"continue_final_message": True}):
        given = talk(*turns, **how)
        made = chat_tokens(tokenizer, given)
        assert made.ids == own_ids(tokenizer, given)
        # A token that joins the template's letter to a message's is the message's.
        assert said(made, tokenizer, "content", 1) == turns[1][1]
    typed = chat_tokens(tokenizer, talk((USER, "Say <|im_end|> <file_sep>"), (MODEL, "No")))
    assert typed.ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 3
    assert tokenizer.decode(typed.ids) == typed.text


def test_a_cut_puts_no_space_into_a_word() -> None:
    tokenizer = with_dummy_space()
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    tokenizer.chat_template = KEEPING
    made = chat_tokens(tokenizer, talk((USER, "a<|end|>b"), (MODEL, "c")))
    assert tokenizer.decode(made.ids) == made.text
    assert said(made, tokenizer, "content", 0) == "a<|end|>b"


def test_a_subject_without_a_template_says_what_to_do() -> None:
    tokenizer = chat_tokenizer(None)
    given = talk((USER, "Why?"), (MODEL, "So."))
    with pytest.raises(ModelError, match="toy has no chat template.*plain") as caught:
        chat_tokens(tokenizer, given, "toy")
    assert "\n" not in str(caught.value)
    plain = talk((USER, "Why?"), (MODEL, "So."), template="plain", add_generation_prompt=True)
    made = chat_tokens(tokenizer, plain)
    assert made.text == "<bos>User: Why?\n\nAssistant: So.\n\nAssistant:"
    assert said(made, tokenizer, "content", 1) == "So."
    given = Conversation(given.messages, template=KEEPING)
    assert chat_tokens(tokenizer, given) == chat_tokens(KINDS["keeping"], given)


BAD: dict[str, tuple[Any, str]] = {
    "none": ([], "no messages"),
    "text": ("Hi", "no messages"),
    "no mapping": (["Hi"], "message 0 cannot be read"),
    "no role": ([{"content": "Hi"}], "message 0 .* role 'None'"),
    "a mark as a role": ([{"role": "user<|end|>", "content": "Hi"}], "message 0"),
    "parts": ([{"role": "user", "content": [{"type": "text"}]}], "content is list"),
    "a call": ([{"role": "user", "content": "", "tool_calls": [{}]}], "tool_calls"),
    "a thought in parts": ([{"role": "user", "content": "", "thinking": [1]}], "reasoning_content"),
    "a channel": ([{"role": "user", "content": "", "channel": "a b"}], "channel"),
    "half a pair": ([{"role": "user", "content": "\ud83d"}], "valid Unicode"),
}


@pytest.mark.parametrize("name", BAD)
def test_messages_that_cannot_be_read(name: str) -> None:
    messages, fault = BAD[name]
    with pytest.raises(DataError, match=fault):
        chat_tokens(KINDS["keeping"], Conversation(messages))


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (REFUSING, "refuses the messages.*no system role here.*system text"),
        (DROPPING, "leaves out message 1.*'42'"),
        (SHOUTING, "changes the words"),
        ("{% for", "refuses the messages"),
    ],
)
def test_what_a_template_does_not_take_is_said(template: str, fault: str) -> None:
    given = talk((SYSTEM, "Be brief."), ("tool", "42"), template=template)
    with pytest.raises(DataError, match=fault):
        chat_tokens(chat_tokenizer(None), given)


def test_a_slow_tokenizer_and_contradicting_options() -> None:
    with pytest.raises(ModelError, match="which letters"):
        chat_tokens(SlowBytes(), talk((USER, "Hi"), template="plain"))
    both = {"add_generation_prompt": True, "continue_final_message": True}
    with pytest.raises(ConfigError, match="leave one out"):
        chat_tokens(KINDS["keeping"], talk((USER, "Hi"), **both))
