"""Recomputed blocks are switched on by the name that the installed transformers has."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from nlakit.train.ar import enable_checkpointing


class _Old:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        self.calls.append(options)

    def enable_input_require_grads(self) -> None:
        self.calls.append("inputs")


def test_an_older_library_has_the_older_name() -> None:
    old = _Old()
    enable_checkpointing(old)
    assert old.calls == [{"gradient_checkpointing_kwargs": {"use_reentrant": False}}, "inputs"]


def test_no_name_is_a_deprecated_one(toy_subject: Callable[..., Any]) -> None:
    model = toy_subject("llama").model
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        enable_checkpointing(model)
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
