"""Transforms by worked examples, and what holds of any text."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text import transforms
from nlakit.core.text.stats import longest_copied_run, words
from nlakit.core.text.transforms import (
    NUMBER_OR_NAME,
    QUOTED,
    _equivalents,
    after_words,
    clauses,
    fewer,
    first_tokens,
    first_words,
    other_names,
    paraphrase,
    quotes_only,
    sentence_shuffle,
    sentences,
    without_copied,
    without_each,
    without_quotes,
    word_shuffle,
    word_shuffle_in_sentences,
)

TEXT = (
    "A passage on staff, duties and mainly. A rule about 262 lines. "
    "It stops at “He left. Then, the”; likely next: this or that."
)
PROSE = st.text(alphabet="abcABC12 .,;:!?“”\"'’\n—", max_size=80)


def build_rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class Characters:
    """A tokenizer whose tokens are characters."""

    def __call__(self, text: str, add_special_tokens: bool, **_: Any) -> dict[str, Any]:
        return {"input_ids": [ord(char) for char in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def test_sentences_are_never_split_inside_a_quote() -> None:
    assert sentences(TEXT) == [
        "A passage on staff, duties and mainly.",
        "A rule about 262 lines.",
        "It stops at “He left. Then, the”; likely next: this or that.",
    ]
    assert sentences("He said “stop.” She went on\nto 3.5 miles") == [
        "He said “stop.”",
        "She went on",
        "to 3.5 miles",
    ]
    assert sentences("雨が降る。風が吹く。") == ["雨が降る。", "風が吹く。"]
    assert sentences("  ") == []


def test_clauses_end_at_punctuation_dashes_and_before_conjunctions() -> None:
    assert clauses(
        "It rains, and the road – the old one – floods; 1,000 wait while “a, b” passes."
    ) == [
        "It rains,",
        "and the road –",
        "the old one –",
        "floods;",
        "1,000 wait",
        "while “a, b” passes.",
    ]


@given(PROSE)
def test_sentences_and_clauses_lose_nothing(text: str) -> None:
    for pieces in (sentences(text), clauses(text)):
        assert "".join("".join(pieces).split()) == "".join(text.split())


@given(PROSE, st.integers(0, 5))
def test_shuffles_keep_every_word_and_a_seed_decides_them(text: str, seed: int) -> None:
    assert Counter(word_shuffle(text, build_rng(seed)).split()) == Counter(text.split())
    for change in (sentence_shuffle, word_shuffle, word_shuffle_in_sentences):
        made = change(text, build_rng(seed))
        assert made == change(text, build_rng(seed))
        assert sorted("".join(made.split())) == sorted("".join(text.split()))


def test_a_shuffle_changes_whatever_can_be_changed() -> None:
    for seed in range(20):
        assert sentence_shuffle("One. Two.", build_rng(seed)) == "Two. One."
        assert word_shuffle("one two", build_rng(seed)) == "two one"
    assert word_shuffle("same same", build_rng()) == "same same"
    assert word_shuffle_in_sentences("One two. Three four.", build_rng()) == "two. One four. Three"


def test_a_third_of_the_pieces_is_dropped_and_a_single_one_stays() -> None:
    kept = fewer(list("abcdefghi"), build_rng()).split()
    assert len(kept) == 6
    assert kept == sorted(kept)
    assert len(fewer(["a", "b"], build_rng())) == 1
    assert fewer(["alone"], build_rng()) == "alone"
    assert fewer([], build_rng()) == ""


def test_each_piece_is_left_out_once() -> None:
    assert without_each(["a", "b", "c"]) == ["b c", "a c", "a b"]
    assert without_each(["a"]) == [""]
    assert without_each([]) == []


def test_openings_and_prefixes() -> None:
    assert first_words("a b  c d", 2) == "a b"
    assert after_words("a b  c d", 2) == "c d"
    assert after_words("a b", 2) == ""
    assert first_tokens(Characters(), "abcdef", 4) == "abcd"
    assert first_tokens(Characters(), "ab  ", 4) == "ab  "


@pytest.mark.parametrize(
    ("text", "without", "only"),
    [
        (TEXT[62:], "It stops at; likely next: this or that.", "“He left. Then, the”"),
        ("It says 'it’s late' and \"go\" now", "It says and now", "'it’s late' \"go\""),
        ("the dogs' and cats' don't", "the dogs' and cats' don't", ""),
        ("ends in “the last wor", "ends in", "“the last wor"),
        ("code `x = 1`; «non», „ja“ and 「要」", "code;, and", "`x = 1` «non» „ja“ 「要」"),
        ("a 5\" screen", "a 5\" screen", ""),
    ],
)  # fmt: skip
def test_quoted_text_is_found_with_its_marks(text: str, without: str, only: str) -> None:
    assert without_quotes(text) == without
    assert quotes_only(text) == only


@given(PROSE)
def test_nothing_directed_stays_quoted(text: str) -> None:
    assert "“" not in QUOTED.sub("", text)


def test_copied_runs_go_and_shorter_ones_stay() -> None:
    source = "The old mill stood by the river until the flood came."
    text = "On “Stood by the river, until”: a mill, the flood came; the old barn."
    assert without_copied(text, source) == "On “, ”: a mill,; the old barn."
    assert without_copied("the old  barn", source) == "the old  barn"
    assert without_copied("anything at all", "") == "anything at all"


@given(
    st.lists(st.sampled_from("abcd"), max_size=30), st.lists(st.sampled_from("abcd"), max_size=9)
)
def test_what_was_no_copy_is_kept(text: list[str], source: list[str]) -> None:
    made = without_copied(" ".join(text), " ".join(source))
    if longest_copied_run(" ".join(text), " ".join(source)) < 3:
        assert words(made) == text
    else:
        assert len(words(made)) <= len(text) - 3


def test_numbers_and_names_become_others_and_the_rest_stays() -> None:
    text = "Mary saw 1914 ships. Then Mary, Tom and Mary-Ann saw 1914 more “Ships in 7”."
    made = other_names(text, build_rng())
    before, after = text.replace("“", "“ ").split(), made.replace("“", "“ ").split()
    assert [a for a, b in zip(before, after, strict=True) if a != b] == [
        "1914", "Mary,", "Tom", "Mary-Ann", "1914", "7”.",
    ]  # fmt: skip
    assert after[2] == after[10]  # the same number, the same replacement
    assert len(after[2]) == 4 and after[2].isdecimal()
    assert other_names("no names here", build_rng()) == "no names here"


LABEL = (
    "Code that stops at “likely”; likely next: a comma or the. It speaks of tax and tea. "
    "The passage is about cat, dog and rat."
)
SAID = st.sampled_from([
    *"it speaks of|The passage|is about|likely|because|such as".split("|"),
    *"many|don't|it isn’t|cannot|cats and dogs|tax, tea or rain".split("|"),
    *"Ann|Bob|1984|3.5|12,000|“it is about”|'such as'|`many`".split("|"),
    *".|,|;|:|a|an|text/plain|e.g.|of|next:".split("|"),
])  # fmt: skip


def test_a_paraphrase_by_hand() -> None:
    made = {paraphrase(LABEL, build_rng(seed)) for seed in range(40)}
    assert any(
        text.startswith("Code which stops at “likely”; probably next: the or a comma. It is about")
        for text in made
    )
    for text in made:
        assert "“likely”" in text
        assert " cat, dog and rat" not in text
        assert "tax and tea" not in text


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("It begins because he can’t.", {"It starts since he cannot.", "It starts as he cannot."}),
        ("Perhaps not.", {"Maybe not.", "Possibly not."}),
        ("An often quoted text.", {"A frequently quoted text."}),
        ("a likely end", {"a probable end"}),
        ("It is about to end.", {"It is going to end."}),
        ("It did not say how many of us.", {"It didn't say how many of us."}),
        ("A word, e.g. dogs", {"A word, for example dogs"}),
    ],
)
def test_phrases_are_exchanged_with_their_capitals_and_articles(
    text: str, options: set[str]
) -> None:
    assert {paraphrase(text, build_rng(seed)) for seed in range(30)} == options


@pytest.mark.parametrize(
    "text",
    [
        'He is likely to go: “many” ‘such as’ `because` "often".',
        "The Passage of Till Often",  # names
        "a such-as-many path/begins/ends many_begin often.py",
        "It speaks of 12 or so.",
        "",
        "Дождь идёт, и кошка спит.",
    ],
)
def test_quotes_names_paths_and_what_no_rule_knows_stay(text: str) -> None:
    for seed in range(5):
        assert paraphrase(text, build_rng(seed)) == text


def _names_and_numbers(text: str) -> Counter[str]:
    known = ("Ann", "Bob")
    return Counter(word for word in NUMBER_OR_NAME.findall(text) if word in known or word.isdigit())


@given(st.lists(SAID, max_size=14).map(" ".join), st.integers(0, 5))
def test_a_paraphrase_keeps_quotes_numbers_and_names(text: str, seed: int) -> None:
    made = paraphrase(text, build_rng(seed))
    assert QUOTED.findall(made) == QUOTED.findall(text)
    assert _names_and_numbers(made) == _names_and_numbers(text)
    assert made == paraphrase(text, build_rng(seed))


@given(PROSE, st.integers(0, 5))
def test_a_paraphrase_of_anything_keeps_its_quotes(text: str, seed: int) -> None:
    assert QUOTED.findall(paraphrase(text, build_rng(seed))) == QUOTED.findall(text)


def test_a_phrase_stands_once_in_the_table_and_every_exchange_is_a_phrase() -> None:
    path = Path(transforms.__file__).with_name("equivalents.yaml")
    table = yaml.safe_load(path.read_text("utf-8"))
    phrases = [*(p for group in table["either"] for p in group), *table["only"], *table["stays"]]
    assert [phrase for phrase, count in Counter(phrases).items() if count > 1] == []
    exchanges, _ = _equivalents()
    assert sum(bool(options) for options in exchanges.values()) >= 80
    for phrase, options in exchanges.items():
        assert all(isinstance(one, str) and one and one != phrase for one in (phrase, *options)[1:])
        assert isinstance(phrase, str)
    assert all(len(group) > 1 for group in table["either"])
