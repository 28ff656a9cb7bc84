"""Texts to begin with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    name: str
    kind: str
    text: str


EXAMPLES = (
    Example(
        "A letter",
        "text",
        "She opened the letter and began to read it aloud, but after the second line her voice"
        " failed, and she handed it to her brother without a word.",
    ),
    Example(
        "A ship",
        "text",
        "The captain ordered the crew to lower the boats. Two of them had been stove in by the"
        " ice, and the third leaked so badly that it had to be bailed all night.",
    ),
    Example(
        "Code",
        "text",
        "def mean(values):\n    if not values:\n        raise ValueError(\"no values\")\n"
        "    return sum(values) / len(values)\n",
    ),
    Example(
        "A recipe",
        "text",
        "Melt the butter over a low flame, stir in the flour, and add the milk little by little."
        " Season with salt and a pinch of nutmeg.",
    ),
    Example(
        "Facts",
        "text",
        "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is",
    ),
    Example(
        "A conversation",
        "conversation",
        "user: My sourdough does not rise. What am I doing wrong?\n"
        "assistant: Most often the starter is too young or the kitchen too cold. Feed it twice a"
        " day for a week, and let the dough stand where it is warm.\n",
    ),
)  # fmt: skip
