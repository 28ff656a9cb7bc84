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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is not YAML",
            found=str(error).replace("\n", " "),
            do="mend the file there; examples/ has some that are",
        ) from error
    if not isinstance(data, dict):
        raise ConfigError(
            f"{path} is not a mapping of settings",
            found=type(data).__name__,
            do="write SECTION: {SETTING: VALUE} in it; examples/ has some",
        )
    data = with_overrides(data, overrides)
    data.setdefault("name", re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "run")
    return parse_config(data, where=str(path))


def with_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with `a.b=c` settings in it; ConfigError for one of another form, or where
    an anchor contains itself."""
    try:
        made = _unshared(data)
    except RecursionError as error:
        raise ConfigError("a setting holds itself", do="mend the anchors (&, *)") from error
    for override in overrides:
        _apply_override(made, override)
    return made


def _unshared(node: Any) -> Any:
    """A copy in which every use of a YAML alias is a value of its own: a change to one must not
    reach the others."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def parse_config(data: dict[str, Any], where: str = "configuration") -> RunConfig:
    """Validate a mapping; every problem goes into one ConfigError."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems: dict[str, list[str]] = {}
        inputs: dict[str, Any] = {}
        for item in error.errors():
            name = _setting(data, item["loc"])
            problems.setdefault(name, []).append(item["msg"])
            inputs[name] = item["input"]
        told = [
            f"{name}: {' or '.join(messages)}"
            + (f" (got {inputs[name]!r})" if not isinstance(inputs[name], dict) else "")
            for name, messages in problems.items()
        ]
        raise ConfigError(
            f"{where} has {len(told)} bad setting(s)",
            found=" | ".join(told),
            do="`nlakit config` prints every setting with its meaning and default",
        ) from error


def _setting(data: Any, loc: Sequence[int | str]) -> str:
    """The setting an error is about. Where a value may be of two kinds, pydantic reports each
    separately, with the kind at the end of the place: they are one bad setting."""
    names = []
    for part in loc:
        if isinstance(data, dict):
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            break
        names.append(str(part))
    return ".".join(names) or "top level"


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            "--set takes a.b=value", found=override, do="for example --set ar.batch_rows=8"
        )
    *parents, leaf = key.split(".")
    node: Any = data
    for part in parents:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            raise ConfigError(
                f"--set {key}: {part} is not a section",
                found=override,
                do="give SECTION.SETTING=VALUE, for example ar.batch_rows=8",
            )
    try:
        node[leaf] = _unshared(yaml.load(value, Loader=_UniqueKeys))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"--set {key}: the value is not YAML", found=value, do="close its quotes and brackets"
        ) from error


def dump_config(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
