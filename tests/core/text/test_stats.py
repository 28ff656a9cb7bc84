"""Statistics of texts, with the failures they must see planted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.text.stats import (
    collapse_summary,
    cut_length,
    distinct_2,
    has_loop,
    longest_copied_run,
    openings,
    other_script_share,
    script_of,
    scripts_of,
    self_bleu,
    text_rows,
    unfinished,
    unique_rows,
    uniqueness,
    words,
)


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("trumpets, trumpets, trumpets", True),
        ("trumpets, trumpets and drums", False),
        ("of the sea of the sea of the sea", True),
        ("go on, go on, stop", False),
        ("a b c d a b c d", False),
        ("", False),
    ],
)
def test_loops(text: str, loops: bool) -> None:
    assert has_loop(text) is loops


def test_copied_run_by_hand() -> None:
    source = "The old man looked at the sea, and the sea looked back."
    assert longest_copied_run("he writes: OLD MAN looked; twice", source) == 3
    assert longest_copied_run("nothing shared here", source) == 0
    assert longest_copied_run("and the sea looked back", source) == 5


@given(st.text(alphabet="ab ", max_size=30))
def test_copied_run_of_itself_is_its_length(text: str) -> None:
    assert longest_copied_run(text, text) == len(words(text))


def test_planted_mode_4_cut_texts_hide_repetition() -> None:
    """Texts that differ after character 300 are unique in full and equal when cut."""
    texts = ["x" * 300 + str(i) for i in range(10)]
    assert uniqueness(texts)["full"] == 1.0
    assert uniqueness([text[:300] for text in texts])["full"] == pytest.approx(0.1)
    assert uniqueness(texts)["200"] == pytest.approx(0.1)


def test_collapse_summary_by_hand() -> None:
    opening = "This neuron fires for text about a great many things, and in particular, here, for "
    texts = [opening + "ships", opening + "tax", "", "Кит и море"]
    found = collapse_summary(texts)
    assert len(opening) > 80
    assert found["top_opening_share"] == 0.5
    assert found["empty_share"] == 0.25
    assert found["other_script_share"] == 0.25
    assert found["unique"]["full"] == 1.0
    assert found["unique"]["80"] == 0.75


def test_scripts() -> None:
    assert other_script_share("naïve café") == 0
    assert other_script_share("鲸 whale") == pytest.approx(1 / 6)
    assert other_script_share("123 !") == 0


def test_scripts_of_texts() -> None:
    assert [script_of(letter) for letter in "aЖω鲸のー한"] == [
        "LATIN", "CYRILLIC", "GREEK", "CJK", "CJK", "CJK", "CJK",
    ]  # fmt: skip
    assert scripts_of(["Кит и море", "a whale"]) == {"CYRILLIC", "LATIN"}
    assert scripts_of(["Кит и море, " * 3 + "π"]) == {"CYRILLIC"}, "a symbol is no script"
    assert scripts_of(["12"]) == scripts_of([]) == {"LATIN"}
    assert other_script_share("Кит a", {"CYRILLIC"}) == pytest.approx(1 / 4)
    assert other_script_share("whale", {"CYRILLIC"}) == 1.0


def test_unique_rows_by_hand() -> None:
    texts = ["abc", "abd", "abc", ""]
    assert unique_rows(texts).tolist() == [0.5, 1.0, 0.5, 1.0]
    assert unique_rows(texts, 2) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0])


@given(st.lists(st.text(alphabet="ab", max_size=3), min_size=1, max_size=20))
def test_unique_rows_average_to_the_share_of_distinct_texts(texts: list[str]) -> None:
    assert float(unique_rows(texts).mean()) == pytest.approx(uniqueness(texts)["full"])


def test_openings_by_hand() -> None:
    texts = ["a" * 80 + "1", "a" * 80 + "2", "b", " ", "c", "d", "e", "f"]
    found = openings(texts)
    assert found[0] == {"text": "a" * 80, "count": 2}
    assert [one["text"] for one in found[1:]] == ["b", "c", "d", "e"]


def lines(count: int) -> list[str]:
    """Different sentences of 40 to 90 words."""
    rng = np.random.default_rng(3)
    names = [f"thing{i}" for i in range(500)]
    return [" ".join(rng.choice(names, rng.integers(40, 90))) + "." for _ in range(count)]


def test_planted_mode_4_a_table_cut_at_300_is_found() -> None:
    whole = lines(42)
    assert cut_length(whole) is None
    assert cut_length([text[:300] for text in whole]) == 300
    cut = text_rows([text[:300] for text in whole[:40]] + ["A short one."] * 2)["cut"]
    assert cut.sum() >= 38 and cut[-1] == 0


def test_texts_of_one_length_that_end_are_not_cut() -> None:
    assert (
        cut_length([f"The row of number {i:03d} is about a ship at sea." for i in range(50)])
        is None
    )
    assert cut_length(["ship", "tree", "song", "king"]) is None, "short words meet by chance"
    assert cut_length(["x" * 300] * 50) is None, "one text says nothing, however often"
    assert cut_length([]) is None


@pytest.mark.parametrize(
    ("text", "open_end"),
    [("It ends.", False), ("He said: “It ends.” ", False), ("It ends (so it does.)", False),
     ("It goes", True), ("It goes on…", True), ("It goes on...", True), ("", False)],
)  # fmt: skip
def test_unfinished(text: str, open_end: bool) -> None:
    assert unfinished(text) is open_end


def test_self_bleu_by_hand() -> None:
    """Of a b c d e against a b c d f: precisions 4/5, 3/4, 2/3, 1/2, product 1/5."""
    assert self_bleu(["a b c d e", "a b c d f"]) == pytest.approx([0.2**0.25] * 2)
    # b a against a b: 2/2 words, 0 of 1 pairs counts 0.1; a text too short for longer orders.
    assert self_bleu(["a b", "b a"]) == pytest.approx([0.1**0.5] * 2)
    # One of three words is in the shorter text, which is 2/3 as long: no penalty for being longer;
    # the shorter one pays e^(1 − 3/2). Pairs: 0.1 of 2, 0.1 of 1; threes: 0.1 of 1.
    found = self_bleu(["a b c", "a d"])
    assert found[0] == pytest.approx((1 / 3 * 0.1 / 2 * 0.1) ** (1 / 3))
    assert found[1] == pytest.approx((1 / 2 * 0.1) ** 0.5 * np.exp(-0.5))
    # Clipped: the other text has one a.
    assert self_bleu(["a a a a", "a"])[0] == pytest.approx(
        (1 / 4 * 0.1 / 3 * 0.1 / 2 * 0.1) ** 0.25
    )


def test_self_bleu_of_copies_of_strangers_and_of_nothing() -> None:
    assert self_bleu(["a whale"] * 5) == pytest.approx(np.ones(5))
    assert self_bleu(["a b c d", "e f g h"]).tolist() == [0.0, 0.0]
    found = self_bleu(["a b", "", "a b", "..."])
    assert np.isnan(found).tolist() == [False, True, False, True]
    assert np.isnan(self_bleu(["alone"])).all()
    many = self_bleu([f"text {i}" for i in range(2100)])
    assert np.isfinite(many).sum() == 2000


def test_distinct_pairs_by_hand() -> None:
    assert distinct_2(["a b a b", "b a"]) == pytest.approx(2 / 4)
    assert distinct_2(["a", ""]) is None


def test_planted_template_shows_in_every_measure() -> None:
    plain = lines(40)
    template = ["The text talks of things and of others, and in the end it is about " + text[-9:]
                for text in plain]  # fmt: skip
    few = template[:20] + template[:20]
    honest, planted = collapse_summary(plain), collapse_summary(few)
    assert planted["unique"]["40"] == pytest.approx(1 / 40)
    assert planted["duplicate_share"] == 1.0 and honest["duplicate_share"] == 0.0
    assert planted["self_bleu"] > 0.8 > 0.2 > honest["self_bleu"]
    assert planted["distinct_2"] < 0.2 < 0.5 < honest["distinct_2"]


def test_text_rows_and_summary_by_hand() -> None:
    texts = ["One, one, one.", "鲸 whale", "", "same here", "same here"]
    rows, found = text_rows(texts), collapse_summary(texts)
    assert rows["words"].tolist() == [3, 2, 0, 2, 2]
    assert rows["loop"].tolist() == [1, 0, 0, 0, 0]
    assert rows["cjk"].tolist() == [0, 1, 0, 0, 0]
    assert rows["other_script"].tolist() == [0, 0, 0, 0, 0], "one letter of six is under a fifth"
    assert rows["duplicate"].tolist() == [0, 0, 0, 1, 1]
    assert found["duplicate_share"] == pytest.approx(0.4)
    assert (found["mean_words"], found["cjk_share"], found["cut_share"]) == (1.8, 0.2, 0.0)
    assert found["self_bleu"] == pytest.approx(float(np.nanmean(rows["self_bleu"])))


def test_summary_of_no_texts() -> None:
    found = collapse_summary([])
    assert (found["rows"], found["self_bleu"], found["openings"]) == (0, None, [])
