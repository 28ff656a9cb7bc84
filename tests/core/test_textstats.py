"""Statistics of texts, with the failures they must see planted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlakit.core.textstats import (
    collapse_summary,
    has_loop,
    longest_copied_run,
    other_script_share,
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
