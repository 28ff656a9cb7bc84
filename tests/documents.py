"""Command lines and snippets of the documents, as a reader pastes them."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    ROOT / "docs" / "results" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
SCRIPTS = sorted(p for f in ("benchmarks", "scripts", "examples") for p in (ROOT / f).glob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
LANGUAGES = ("", "python", "sh", "text", "yaml")  # of blocks; one without a language holds commands
PROGRAMS = ("export", "hf", "make", "nlakit", "pip", "python")
SETTING = re.compile(r"[A-Z_]+=\S+")  # of the environment, before a command


@dataclass(frozen=True)
class Block:
    place: str
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command line, without what the shell takes for itself."""

    place: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place} {shlex.join(self.words)}"


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path) -> Iterator[Block]:
    """Fenced blocks of a page, and those set in by four spaces."""
    language, begun, held, blank = None, 0, [], True
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), "end"], 1):
        fence = line.startswith("```")
        inset = language is None and line.startswith("    ") and (blank or bool(held))
        if fence and language is None:
            language, begun, held = line[3:].strip(), number, []
        elif fence or (language is None and held and not inset):
            yield Block(f"{name(path)}:{begun}", language or "", "\n".join(held))
            language, held = None, []
        elif language is not None or inset:
            begun = begun if held or language is not None else number
            held.append(line)
        blank = not line.strip()


def listed(text: str) -> Iterator[str]:
    """The command lines of comments and docstrings: whole lines that begin with a program."""
    for line in re.sub(r"\\\n[# ]*", "", text).splitlines():
        bare = line.lstrip("# ")
        first = SETTING.sub("", bare).split()[:1]
        if first and first[0] in PROGRAMS and len(bare.split()) > 1:
            yield bare


def commands_of(place: str, line: str) -> Iterator[Command]:
    """A line as commands: comments, redirections and brackets gone, `a|b` one after the other."""
    line = re.sub(r"(?<=\s)\[((?:--|[A-Z])[^\[\]]*)\](?=\s|$)", r"\1", line)
    words = list(itertools.dropwhile(SETTING.fullmatch, shlex.split(line, comments=True)))
    for last, group in itertools.groupby(words, "&&".__eq__):
        if last:
            continue
        kept = itertools.takewhile(lambda word: word != ">", group)
        choices = [w.split("|") if re.fullmatch(r"\w+(\|\w+)+", w) else [w] for w in kept]
        for one in itertools.product(*choices):
            first = one[0].removeprefix(".venv/bin/")
            yield Command(place, (first, *one[1:]))


def found() -> Iterator[Command]:
    for path in PAGES:
        for block in blocks(path):
            for line in block.text.splitlines() if block.language == "" else ():
                if line.strip():
                    yield from commands_of(block.place, line.strip())
    for path in SCRIPTS:
        for line in listed(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""):
            yield from commands_of(name(path), line)
    for path in EXAMPLES:
        comments = [x for x in path.read_text(encoding="utf-8").splitlines() if x[:1] == "#"]
        for line in listed("\n".join(comments)):
            yield from commands_of(name(path), line)


def commands() -> list[Command]:
    """Every command of the documents, each once."""
    return list({command.words: command for command in reversed(list(found()))}.values())[::-1]
