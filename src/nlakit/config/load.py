"""A run's configuration: YAML plus `--set a.b=c`, checked as a whole, and its hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nlakit.config.sections import RunConfig
from nlakit.errors import ConfigError


def config_hash(config: RunConfig, sections: Sequence[str]) -> str:
    """SHA-256 of the named sections: what a stage's result depends on besides its parents."""
    data = config.model_dump(mode="json")
    picked = {name: data[name] for name in sections if data[name] is not None}
    return hashlib.sha256(json.dumps(picked, sort_keys=True).encode()).hexdigest()


class _UniqueKeys(yaml.SafeLoader):
    """YAML keeps the last of two equal keys without a word; a setting given twice is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        own = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        keys = [self.construct_object(key, deep=True) for key in own]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(
                "a setting is given twice",
                found=f"{', '.join(twice)} near line {node.start_mark.line + 1}",
                do="keep one",
            )
        return super().construct_mapping(node, deep)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a YAML configuration and apply `a.b=c` overrides (values are parsed as YAML).

    Raises ConfigError for a missing file, broken YAML, an unknown key or a bad value.
    """
    path = Path(path)
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the configuration {path}",
            found=str(error),
            do="give the path of a YAML file; examples/ has some",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML", found=str(error).replace("\n", " ")) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is not a mapping of settings", found=type(data).__name__)
    with_overrides(data, overrides)
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "run")
    return parse_config(data, where=str(path))


def with_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with `a.b=c` settings in it; ConfigError for one that is none."""
    for override in overrides:
        _apply_override(data, override)
    return data


def parse_config(data: dict[str, Any], where: str = "configuration") -> RunConfig:
    """Validate a mapping; every problem goes into one ConfigError."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(part) for part in item['loc']) or 'top level'}: {item['msg']}"
            + (f" (got {item['input']!r})" if not isinstance(item["input"], dict) else "")
            for item in error.errors()
        ]
        raise ConfigError(
            f"{where} has {len(problems)} bad setting(s)",
            found=" | ".join(problems),
            do="`nlakit config` prints every setting with its meaning and default",
        ) from error


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError("--set takes a.b=value", found=override)
    *parents, leaf = key.split(".")
    node: Any = data
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {part} is not a section", found=override)
    try:
        node[leaf] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not YAML", found=value) from error


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
