"""Planted bad labels are found under their names; good ones, the offline labeler's too, pass."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import nlakit.data
from nlakit.core.text.lint import FAULTS, HARD, Limits, copied_words, first_hard, lint
from nlakit.core.text.stats import words
from nlakit.data.labels.labeler import LabelRequest
from nlakit.data.labels.offline import Background, OfflineLabeler

SOURCE = (
    "Call me Ishmael. Some years ago, having little or no money in my purse, and nothing "
    "particular to interest me on shore, I thought I would sail about a little and see the watery "
    "part of the world. The whale was not seen by the harpooner, but the captain said that"
)
GOOD = (
    "A penniless narrator goes to sea in a wry, confiding voice. The harpooner's failure to see "
    "the whale is set against another claim. The clause “the captain said that” now needs a "
    "subject: what he reported."
)
START = "The harpooner has missed the whale, so the other man's report must contradict him. "

PLANTED = {
    "white space": (" \n\t", "empty"),
    "control character": (GOOD.replace(" claim", "\x07claim"), "unreadable"),
    "carriage return": (GOOD.replace(". ", ".\r"), "unreadable"),
    "lone surrogate": (GOOD + " \udc80.", "unreadable"),
    "replacement character": (GOOD.replace("’", "").replace("sea", "s�a"), "unreadable"),
    "apology": ("I'm sorry, but I can't describe what the captain said here.", "refusal"),
    "curly apology": ("I’m sorry, but I can’t help with the captain's words here.", "refusal"),
    "as an AI": ("As an AI language model, I do not sail next to any captain.", "refusal"),
    "inside": (START + "I cannot assist with the rest of it.", "refusal"),
    "quoted whole": ('"I am unable to say what the captain said next here."', "refusal"),
    "nothing given": ("Please provide the text which the captain is to end.", "refusal"),
    "N: KEEP": ("N: KEEP. " + GOOD, "auditor_leakage"),
    "bare verdict": (GOOD + " REJECT.", "auditor_leakage"),
    "verdict": ("Verdict: revise. " + GOOD, "auditor_leakage"),
    "judgement": (GOOD + " The label is specific and checkable.", "auditor_leakage"),
    "score": (GOOD + " Score: 4/5.", "auditor_leakage"),
    "a key alone": (GOOD + " reasons.", "auditor_leakage"),
    "rubric": (GOOD + " This satisfies the rubric.", "auditor_leakage"),
    "JSON": ('The captain said more next. {"verdict": "good"}.', "auditor_leakage"),
    "revised": ("Revised label: " + GOOD, "auditor_leakage"),
    "labeler": (GOOD + " The labeler overlooked the whale.", "auditor_leakage"),
    "five words": ("The captain speaks next here.", "too_short"),
    "rambling": (" ".join(f"The captain expects whale{k}." for k in range(80)), "too_long"),
    "no full stop": (START + "The captain said that the whale", "unclosed"),
    "open quote": (START + "It stops at “the captain said.", "unclosed"),
    "open straight quote": (START + 'It stops at "the captain said.', "unclosed"),
    "open bracket": (START + "The captain's claim comes next (the second after his.", "unclosed"),
    "bullets": ("- The harpooner saw no whale.\n- The captain now says that one was there.",
                "unclosed"),
    "heading": ("## Features\nThe harpooner saw no whale; the captain said more.", "unclosed"),
    "fence": ("```\nThe harpooner saw no whale; the captain said more.\n```", "unclosed"),
    "Chinese": ("船长说话之前 the captain 没有人看见那条鲸鱼 一二 三四 五六。", "other_language"),
    "Russian": ("Гарпунёр не видел кита, но the captain теперь сказал, что.", "other_language"),
    "copied": (f"The captain's report comes next: {SOURCE[-105:]}.", "copied_source"),
    "loop": ("The captain speaks of trumpets, trumpets, trumpets next.", "loop"),
    "loop of two": ("The captain said a whale a whale a whale comes next.", "loop"),
    "this text is about": ("This text is about a captain who said that he saw a whale.",
                           "boilerplate_opening"),
    "the passage discusses": ("The passage discusses what the captain said of a whale.",
                              "boilerplate_opening"),
    "here is": ("Here is the explanation of what the captain said last.", "boilerplate_opening"),
    "sure": ("Sure, the captain said that the whale was there to be seen.", "boilerplate_opening"),
    "in this excerpt": ("In this excerpt, the captain said that a whale was there.",
                        "boilerplate_opening"),
}  # fmt: skip


@pytest.mark.parametrize(("label", "fault"), PLANTED.values(), ids=PLANTED.keys())
def test_planted_labels_have_exactly_their_fault(label: str, fault: str) -> None:
    assert lint(label, SOURCE) == [fault]


def test_a_label_without_letters_is_unreadable() -> None:
    assert lint("12 34 56 78 90 12 34.", "count: 12") == ["unreadable"]


ALLOWED = {
    "good": (GOOD, SOURCE),
    "lines of Windows": (GOOD.replace(". ", ".\r\n"), SOURCE),
    "apology in the text": (
        "“I’m sorry, but I can’t stay,” he tells her, and the apology turns the quarrel. She is "
        "about to answer, and the unfinished clause forces a verb of speech.",
        "He took his hat. \"I'm sorry, but I can't stay,\" he said, and she",
    ),
    "somebody apologises": (
        "The clerk apologises for a late parcel, saying sorry twice. The sentence stops before "
        "the reason, so a cause has to follow.",
        "We are so sorry, sorry indeed, that your parcel is late, because",
    ),
    "text by an assistant": (
        "A chatbot refuses: “As an AI, I cannot feel.” The turn ends, and the user speaks next.",
        "User: do you feel pain? Assistant: As an AI, I cannot feel. User:",
    ),
    "keeps and rejects": (
        "She keeps the letter and will reject his offer, as the verdict of her father was to "
        "revise nothing. The clause awaits the person whom she tells.",
        "Her father had judged. She would keep the letter and reject the offer, she told",
    ),
    "a sign in capitals": (
        "The boys reach a gate whose sign warns them off. The text stops inside the sign, "
        "“KEEP”, which forces a preposition such as “OUT”.",
        "At the gate the boys saw a board with red letters: KEEP",
    ),
    "verdict of a court": (
        "A jury returns after two days. The verdict: guilty, as the foreman is about to say of "
        "the second count.",
        "The jury came back. On the first count: guilty. On the second count the foreman said",
    ),
    "last four words": (
        "A calm narrator turns from himself to the crew. It stops at “the captain said that”; "
        "a report follows.",
        SOURCE,
    ),
    "enumeration": (
        "A list of three duties is being counted: (1) to pump, (2) to reef, (3) to steer. The "
        "third item is still without its verb, so an infinitive comes next.",
        "The duties are three: (1) to pump, (2) to reef, and (3) to",
    ),
    "numbered features": (
        "1. A penniless narrator turns to the sea.\n2. The harpooner saw nothing.\n"
        "3. The captain's claim must now be given.",
        SOURCE,
    ),
    "half a bracket quoted": (
        "Code that opens a file and reads it whole. The last token, `open(path`, expects a comma "
        "or “)”. The call 'read(' is next to be closed.",
        "def load(path):\n    with open(path",
    ),
    "an inch mark": (
        'A plumber compares pipes; the 6" pipe has just leaked. The next word names a tool.',
        'He turned to the 6" pipe with his',
    ),
    "a loop that the text has": (
        "A clown laughs, “ha ha ha ha”, at the mayor. His laugh is about to be answered.",
        "The clown looked up at the mayor and laughed: ha ha ha ha",
    ),
    "quoted JSON": (
        'A record of a film review. The key "score": stands without its number, which is next.',
        '{"title": "Jaws", "score":',
    ),
    "another script in the source": (
        "Гарпунёр не видел кита, но капитан возражает. Ждут слова «кит».",
        "Гарпунёр не видел кита, но капитан сказал, что видел",
    ),
    "a quotation in another script": (
        "A traveller reads a sign. It stops inside “Не курить в вагоне”; a noun ends it.",
        "The conductor, who spoke no English, pointed at the sign over the door of the carriage "
        "and read it to the travellers: Не курить в вагоне",
    ),
    "an explanation in the text": (
        "The explanation does not satisfy the teacher, who suspects a copied essay. What follows "
        "“because” must be the pupil's excuse.",
        "The teacher was not satisfied with the explanation that the essay was late because",
    ),
}


@pytest.mark.parametrize(("label", "source"), ALLOWED.values(), ids=ALLOWED.keys())
def test_good_labels_have_no_fault(label: str, source: str) -> None:
    assert lint(label, source) == []


def test_planted_mode_7_short_labels_are_refused() -> None:
    for label in ("End of text first.", "The captain.", "Next: a whale, surely."):
        assert first_hard(lint(label, SOURCE)) == "too_short"
    six = "The captain now reports the whale."
    assert lint(six, SOURCE) == []
    assert lint(six, SOURCE, Limits(min_words=7)) == ["too_short"]


@pytest.mark.parametrize(
    "left", ["N: KEEP", "1: KEEP", "KEEP", "Verdict: REVISE", "**REJECT**", '"verdict": "keep"']
)
def test_planted_mode_8_an_auditors_words_are_refused_wherever_they_stand(left: str) -> None:
    half = GOOD.index(" The clause")
    for label in (f"{left} {GOOD}", f"{GOOD} {left}.", f"{GOOD[:half]} {left}.{GOOD[half:]}"):
        assert first_hard(lint(label, SOURCE)) == "auditor_leakage"


@pytest.mark.parametrize(
    "label",
    [
        "Nautical fiction with themes of adventure, solitude and the lure of distant oceans.",
        "A first-person novel in which a poor man, bored of the land, goes to sea on a ship.",
        "Whaling in the last century, its armed forces of sailors, and the years to come.",
    ],
)
def test_planted_mode_14_topic_summaries_are_suspected(label: str) -> None:
    assert lint(label, SOURCE) == ["topic_summary"]
    assert first_hard(["topic_summary"]) is None  # a suspicion is reported, not refused
    assert lint(label + " It breaks off before a reported claim.", SOURCE) == []
    assert lint(label + " A captain is speaking.", SOURCE) == []


def test_faults_come_gravest_first_and_all_are_planted() -> None:
    both = "This text is about trumpets, trumpets, trumpets and KEEP and the sea"
    expected = ["auditor_leakage", "unclosed", "loop", "boilerplate_opening", "topic_summary"]
    assert lint(both, SOURCE) == expected
    assert first_hard(expected) == "auditor_leakage"
    assert first_hard(["boilerplate_opening", "loop"]) == "loop"
    assert first_hard([]) is None
    assert {fault for _, fault in PLANTED.values()} == set(FAULTS) - {"topic_summary"}
    assert set(FAULTS) - HARD == {"boilerplate_opening", "topic_summary"}


def test_copied_words_by_hand() -> None:
    source = "a b c d e f g h i j".split()
    assert copied_words("x a b c d e f x".split(), source) == 6
    assert copied_words("a b c d x e f g h".split(), source) == 0  # two runs of four
    assert copied_words("a b c d e x f g h i j".split(), source) == 10
    assert copied_words("a b c d".split(), source) == 0
    assert copied_words([], source) == 0


def test_copying_is_refused_by_run_and_by_share() -> None:
    numbered = [f"word{k}" for k in range(200)]
    source = " ".join(numbered)
    own = "the next thing that must come is something else entirely after all of this said"

    def label(run: int) -> str:
        return f"{own} {own.replace('thing', 'matter')} {' '.join(numbered[:run])}."

    assert lint(label(12), source) == []
    assert lint(label(13), source) == ["copied_source"]
    assert lint(label(13), source, Limits(max_copied_words=13)) == []
    pieces = " and ".join(" ".join(numbered[k : k + 6]) for k in (0, 20, 194))  # 18 of 20 words
    assert lint(f"{pieces}.", source) == ["copied_source"]
    assert lint(f"{pieces}. {own}.", source) == []  # 18 of 35


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    path = Path(nlakit.data.__file__).parent / "demo" / "corpus.parquet"
    return random.Random(0).sample(pq.read_table(path)["text"].to_pylist(), 200)


def test_labels_of_the_offline_labeler_have_no_fault(corpus: list[str]) -> None:
    rng = random.Random(1)
    requests = []
    for document, text in enumerate(corpus):
        for cut in rng.sample(range(150, max(len(text), 160)), 4):
            piece = text[cut : cut + 6].split(" ")
            expected = [(piece[0] or " " + piece[-1], 0.6), (" (self", 0.1), ("“", 0.05)]
            expected += [(" a", 0.05), ("a", 0.02), ("\n", 0.02), ('"', 0.01), ("[", 0.01)]
            rest = tuple(expected[: rng.randrange(9)])
            requests.append(LabelRequest(f"{document}:{cut}", text[:cut], text[cut - 1], rest))
    labels = OfflineLabeler(Background(corpus)).label(requests)
    made = [
        (label.explanation, lint(label.explanation, request.text))
        for label, request in zip(labels, requests, strict=True)
        if label.explanation is not None
    ]
    assert len(made) > 700
    assert [pair for pair in made if pair[1]] == []


def test_ten_thousand_labels_take_seconds(corpus: list[str]) -> None:
    found = words(" ".join(corpus))
    rows = [
        (" ".join(found[k * 7 + 300 : k * 7 + 360]) + ".", " ".join(found[k * 7 : k * 7 + 250]))
        for k in range(2000)
    ]
    start = time.process_time()
    for label, source in rows:
        lint(label, source)
    assert time.process_time() - start < 3  # a fifth of the labels; usually under a second


@given(st.text(), st.text())
@example("\ud800", "")
@example("(((((“\"'`", "“")
@example("; x next: ", "; x next: ")
def test_lint_never_raises_and_keeps_the_order(label: str, source: str) -> None:
    found = lint(label, source)
    assert found == [fault for fault in FAULTS if fault in found]


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=40))
def test_any_character_is_bearable(label: str) -> None:
    assert isinstance(lint(label, label), list)
