"""Text in Markdown is read back as it was, whatever characters it holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from nlakit.files.markdown import cell, code, fenced

ODD = "\t\n\v\f\r\x1c\x1f\x7f\x85\xa0\u200b\u2028\u2029\ufeff |`*_~<>&#\\[](){}!-+=.1)a"
TEXTS = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=["Cs"]), max_size=12)
# What readers of the JavaScript family show as a replacement, against the specification.
REFUSED = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef]|[\ufffe\uffff]")
PLAIN = st.text(st.sampled_from(REFUSED.sub("", ODD)) | st.characters(
    exclude_categories=["Cs", "Cc", "Cn"]), max_size=12)  # fmt: skip


def read_cell(written: str) -> str:
    """A cell by the rules of CommonMark: trimmed, then escapes and references resolved."""
    return re.sub(
        r"\\([!-/:-@\[-`{-~])|&#(\d+);",
        lambda found: found[1] or chr(int(found[2])).replace("\0", "\ufffd"),
        written.strip(" "),
    )


@given(TEXTS)
@example("\x85a\x85")
def test_a_cell_is_read_back_for_every_character(text: str) -> None:
    written = cell(text)
    assert written.isprintable() or not written
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", written)
    assert read_cell(written) == text.replace("\0", "\ufffd")


@given(PLAIN)
@example("a | b\nc")
@example("__a__ and *b*, `c` | ~~d~~ [e](f) <b>&lt; snake_case")
@example("1. first")
@example("[x]: y")
@pytest.mark.parametrize("frame", ["| h | i |\n|---|---|\n| {} | x |\n", "- {}\n", "# {}\n"])
def test_a_reader_of_markdown_shows_the_text_and_no_markup(frame: str, text: str) -> None:
    if REFUSED.search(text):
        return
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(
        frame.replace("{}", cell(text))
    )  # fmt: skip
    place = 2 if frame.startswith("|") else 0
    inline = [token for token in tokens if token.type == "inline"]
    found = inline[place].children or [] if inline else []
    assert {token.type for token in found} <= {"text"}
    assert "".join(token.content for token in found) == text
    assert len(inline) == (4 if frame.startswith("|") else 1) or not text


def test_plain_words_and_numbers_stay_as_they_are() -> None:
    for text in ("fve_own_mean", "0.446 [0.400, 0.493]", "−0.1", "lower bound > 0", "AT&T < 3"):
        assert cell(text) == text


@given(TEXTS)
def test_code_is_read_back(text: str) -> None:
    written = code(text)
    inside = re.fullmatch("`([^`|\\\\]+)`", written)
    assert (inside[1] if inside else read_cell(written)) == text.replace("\0", "\ufffd")


@given(TEXTS)
def test_a_fence_holds_the_text_and_ends_after_it(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(fenced(text))
    assert [token.type for token in tokens] == ["fence"]
    shown = re.sub(r"\r\n?", "\n", text + "\n").replace("\0", "\ufffd")
    assert tokens[0].content == shown
