"""The table of settings in docs/rl.md is that of the models."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from nlakit.config.base import Section
from nlakit.config.rl import RLSettings
from tests.documents import ROOT

LINE = re.compile(r"^\| `rl\.([\w.]+)` \| `([^`]*)` \| \S", re.MULTILINE)


def defaults(model: type[Section], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting with its default; those of a section by their own names."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, Section):
            yield from defaults(type(field.default), f"{prefix}{name}.")
        else:
            yield prefix + name, field.default


def test_the_document_has_every_setting_once_with_its_default() -> None:
    text = (ROOT / "docs" / "rl.md").read_text(encoding="utf-8")
    lines = [(name, yaml.safe_load(shown)) for name, shown in LINE.findall(text)]
    assert lines == list(defaults(RLSettings))


def test_the_example_is_the_demo_with_rl_behind_it() -> None:
    """So that it goes on from a finished demo."""
    demo, joint = (
        yaml.safe_load((ROOT / "examples" / name).read_text(encoding="utf-8"))
        for name in ("demo.yaml", "demo-rl.yaml")
    )
    assert joint.pop("rl") and joint.pop("name") == "demo-rl"
    assert joint == {key: value for key, value in demo.items() if key != "name"}
