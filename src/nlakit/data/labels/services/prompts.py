"""The personas' prompts: files with placeholders, versioned by hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from nlakit.config.labels import PromptsConfig
from nlakit.data.labels.labeler import LabelRequest
from nlakit.errors import ConfigError

SPLIT = "=== user ==="
PLACEHOLDER = re.compile(r"\{(rubric|text|token|expected|label)\}")
NEEDED = {"labeler": ("text",), "auditor": ("text", "label")}


@dataclass(frozen=True)
class Prompt:
    """What one request says: fixed instructions, and the message that differs from row to row."""

    instructions: str
    message: str


@dataclass(frozen=True)
class Template:
    """A persona with the rubric filled in. `version` names it in every row."""

    instructions: str
    message: str
    version: str

    def fill(self, values: Mapping[str, str]) -> Prompt:
        """Put values in place of the placeholders, in one pass: a text keeps its braces."""

        def value(match: re.Match[str]) -> str:
            return values.get(match[1], match[0])

        return Prompt(
            PLACEHOLDER.sub(value, self.instructions), PLACEHOLDER.sub(value, self.message)
        )


@dataclass(frozen=True)
class Prompts:
    labeler: Template
    auditor: Template


def load_prompts(config: PromptsConfig) -> Prompts:
    """The personas of the configuration; nlakit's own where it names no file.

    Raises ConfigError for a file that cannot be read or lacks a placeholder.
    """
    rubric = _read("rubric", config.rubric).strip()
    return Prompts(
        _template("labeler", config.labeler, rubric), _template("auditor", config.auditor, rubric)
    )


def _read(name: str, path: str | None) -> str:
    if path is None:
        return (
            files("nlakit.data.labels.services")
            .joinpath(f"prompts/{name}.md")
            .read_text(encoding="utf-8")
        )
    try:
        return Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the {name} prompt {path}",
            found=error,
            do="give a UTF-8 text file that you may read, or leave the setting out",
        ) from error


def _template(name: str, path: str | None, rubric: str) -> Template:
    text = _read(name, path)
    where = path or f"nlakit's own {name}.md"
    found = set(PLACEHOLDER.findall(text))
    for placeholder in NEEDED[name]:
        if placeholder not in found:
            raise ConfigError(
                f"the {name} prompt {where} has no {{{placeholder}}}",
                found=", ".join(f"{{{item}}}" for item in sorted(found)) or "no placeholder",
                do=f"put {{{placeholder}}} where the {placeholder} of the row belongs",
            )
    text = text.replace("{rubric}", rubric)
    instructions, split, message = text.partition(f"\n{SPLIT}\n")
    if not split:
        instructions, message = "", text
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Template(instructions.strip(), message.strip(), version)


def row_values(request: LabelRequest, max_characters: int) -> dict[str, str]:
    """What the placeholders of a row stand for. Only the end of a long text is shown."""
    text = request.text[-max_characters:]
    expected = ", ".join(json.dumps(token, ensure_ascii=False) for token, _ in request.expected)
    token = json.dumps(request.token, ensure_ascii=False)
    return {"text": fenced(text, "text"), "token": token, "expected": expected}


def fenced(text: str, tag: str) -> str:
    """Text that cannot close the tag around it."""
    return re.sub(rf"<(?=\s*/\s*{tag}\b)", "‹", text, flags=re.IGNORECASE)
