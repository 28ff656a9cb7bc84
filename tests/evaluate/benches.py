"""A bench of a few rows of text, and judges that follow a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nlakit.config.sections import EvalConfig
from nlakit.evaluate.bench import Bench
from nlakit.files.rows import TableRows


def text_bench(
    sources: Sequence[str],
    texts: Sequence[str],
    labels: Sequence[str] | None = None,
    documents: Sequence[str] | None = None,
    vectors: Any = None,
    **more: Any,
) -> Bench:
    """Rows r0, r1, ... of documents d0, d1, ...; unit vectors along the first axis."""
    n = len(sources)
    rows = TableRows(
        [f"r{i}" for i in range(n)],
        list(documents or [f"d{i}" for i in range(n)]),
        list(labels or texts),
        list(sources),
        ["prose"] * n,
        ["x"] * n,
        [1] * n,
        np.tile(np.eye(1, 2, dtype=np.float32), (n, 1)) if vectors is None else vectors,
    )
    settings = EvalConfig(**more.pop("settings", {}))
    given = {"mean": np.zeros(2, dtype=np.float32), "seed": 0, "folder": Path(), **more}
    return Bench(rows, list(texts), settings=settings, **given)


class Scripted:
    """A judge whose answers are a function of the form's name and the prompt; None: it fails."""

    def __init__(self, script: Callable[[str, str], Any]) -> None:
        self.script = script
        self.asked: list[tuple[str, str]] = []

    def ask(self, prompts: Sequence[str], form: Any) -> list[Any]:
        self.asked += [(form.__name__, prompt) for prompt in prompts]
        found = [self.script(form.__name__, prompt) for prompt in prompts]
        return [None if one is None else form.model_validate(one) for one in found]
