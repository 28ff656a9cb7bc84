"""Every command line and snippet of the documents runs as it stands, at toy size."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nlakit import NLA
from nlakit.cli.main import app
from nlakit.cli.use import serve
from nlakit.config.load import parse_config
from nlakit.publish.compare import figure
from nlakit.publish.hub.hub import push
from nlakit.run.folder import atomic_write
from tests import documents
from tests.commands import call
from tests.documents import LANGUAGES, PAGES, ROOT, Command, blocks, commands, commands_of
from tests.hubserver import logged_in
from tests.toyplace import OUTPUTS, SAME

COMMANDS = commands()
# What is not run, and why; `python FILE` is for tests/test_benchmarks.py.
NOT_RUN = {
    "export ": "sets keys",
    "hf download ": "fetches from a hub",
    "pip install ": "changes the environment; `make` does the same",
    "python -m pip install ": "changes the environment; `make` does the same",
    "python -m pytest ": "is a test",
    "python -m venv ": "makes an environment; `make` does the same",
}
# Options that make a command short; a later option wins over an earlier one.
SHORT = {
    "compare": ["--permutations", "50"],
    "layers": ["--documents", "40", "--steps", "1", "--rows", "16", "--dtype", "float32"],
    "push": ["--base-model", "owner/subject"],  # the toy is a folder
}
PAIRS = ["--set", "eval.rows=12", "--set", "eval.permutations=50"]  # evaluated; a run has its own
ALL = ["--layers", "1,3"]  # of a command that names none
# Exit codes that a toy gives: an untrained pair fails the gate, a limit ends with 4, of machines
# there are many, nothing is left to stop, and no token is set.
CODES = {
    "eval --gate": {3}, "labels --max-rows": {4}, "doctor": {0, 1}, "stop": {2}, "serve --host": {2}
}  # fmt: skip


def ran(command: Command) -> str:
    """Which test is for a command: nlakit, make, script or not; empty for none."""
    line = " ".join(command.words) + " "
    if any(line.startswith(start) for start in NOT_RUN):
        return "not"
    if command.words[0] == "python" and command.words[1].endswith(".py"):
        return "script"
    return command.words[0] if command.words[0] in ("make", "nlakit") else ""


def of_kind(kind: str) -> list[Command]:
    return [command for command in COMMANDS if ran(command) == kind]


def different(given: list[Command]) -> list[Command]:
    """One of those that differ only in names which stand for the same, or in where they write."""

    def meant(words: tuple[str, ...]) -> tuple[str, ...]:
        pairs = zip(("", *words), words, strict=False)
        bare = (w.removeprefix("./").rstrip("/") if o not in OUTPUTS else "" for o, w in pairs)
        return tuple(SAME.get(word, word) for word in bare)

    return list({meant(command.words): command for command in given}.values())


def test_every_line_of_a_block_is_a_known_command() -> None:
    assert [str(command) for command in COMMANDS if not ran(command)] == []
    assert len(of_kind("nlakit")) > 40, "the documents are not read as they were"


def test_no_exception_is_left_over() -> None:
    lines = [" ".join(command.words) + " " for command in COMMANDS]
    assert [x for x in NOT_RUN if not any(line.startswith(x) for line in lines)] == []


def test_an_unknown_command_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Words.\n\n    nlakit doctor\n    curl x  # y\n\n```\ngit pull && make a\n```\n"
    )
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "PAGES", [page])
    monkeypatch.setattr(documents, "SCRIPTS", [])
    monkeypatch.setattr(documents, "EXAMPLES", [])
    read = commands()
    assert [c.words[0] for c in read] == ["nlakit", "curl", "git", "make"]
    assert [c.place for c in read] == ["page.md:3"] * 2 + ["page.md:6"] * 2
    assert [ran(command) for command in read] == ["nlakit", "", "", "make"]


def test_a_line_is_read_as_a_shell_reads_it() -> None:
    line = "A=1 .venv/bin/nlakit corpus|split [CONFIG] [--out X] --set a.b='[1, 2]' > out  # why"
    found = [command.words for command in commands_of("page", line)]
    rest = ("CONFIG", "--out", "X", "--set", "a.b=[1, 2]")
    assert found == [("nlakit", "corpus", *rest), ("nlakit", "split", *rest)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A hub that this process is logged in to."""
    with logged_in(monkeypatch, tmp_path):
        yield


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("command", different(of_kind("nlakit")), ids=str)
def test_a_command_runs(
    command: Command, place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fifty figures take as long as all the rest; tests/publish draws one.
    monkeypatch.setattr(figure, "_save", lambda figure, path: atomic_write(path, "a figure"))
    monkeypatch.setattr(serve, "run", lambda *args: None)  # until Ctrl-C
    monkeypatch.setattr(serve, "listening", lambda *args: socket.socket())
    name, *words = command.words[1:]
    place(*(words[:1] if name == "pull" else words))
    words += SHORT.get(name, [])
    if name == "layers" and "--layers" not in words:
        words += ALL
    if name == "eval" and not words[0].startswith("runs/"):
        words += PAIRS
    if name == "pull":
        push("demo", words[0], base_model="owner/subject", send=True)
    said = call(name, *words)
    usual = {code for line, codes in CODES.items() for code in codes
             if set(line.split()) <= {name, *words}} or {0}  # fmt: skip
    assert said.crash == ""
    assert said.code in usual, (said.out[-2000:], said.err)


@pytest.mark.parametrize("command", of_kind("make"), ids=str)
def test_a_target_is_there(command: Command) -> None:
    """What it would do: doing it takes minutes, and `make test` is this."""
    words = [command.words[0], "-n", *command.words[1:]]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr


INLINE = [
    (f"{documents.name(page)} {found}", found)
    for page in PAGES
    for found in dict.fromkeys(
        re.findall(r"`nlakit ([^`]+)`", re.sub(r"\s+", " ", page.read_text(encoding="utf-8")))
    )
]


@pytest.mark.parametrize("line", [line for _, line in INLINE], ids=[place for place, _ in INLINE])
def test_a_command_in_a_sentence_has_these_options(line: str) -> None:
    import typer

    group: Any = typer.main.get_command(app)
    name, *words = line.split()
    assert name in group.commands
    known = {option for one in group.commands[name].params for option in one.opts}
    assert {word.strip("[],.") for word in words if word.strip("[").startswith("--")} <= known


def test_blocks_say_what_they_are() -> None:
    held = [block for page in PAGES for block in blocks(page)]
    assert {block.language for block in held} == set(LANGUAGES)


SNIPPETS = [b for page in PAGES for b in blocks(page) if b.language in ("python", "yaml")]
# A snippet that is a part of something larger: it is read, not run.
PARTS = ("CONTRIBUTING.md",)
# Of a service that runs: tests/serve/test_page.py.
SERVED = ("docs/service.md",)


@pytest.mark.parametrize("block", SNIPPETS, ids=lambda block: block.place)
def test_a_snippet_is_true(
    block: documents.Block, place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.language == "yaml":
        read_settings(yaml.safe_load(block.text))
        return
    code = compile(block.text, block.place, "exec")
    if block.place.startswith((*PARTS, *SERVED)):
        return
    place(*re.findall(r'"([^"]*)"', block.text))
    shown: list[Any] = []
    monkeypatch.setattr(NLA, "explain", noted(NLA.explain, shown))
    exec(code, {})
    assert shown


def noted(function: Callable[..., Any], shown: list[Any]) -> Callable[..., Any]:
    def noting(*args: Any, **options: Any) -> Any:
        shown.append(function(*args, **options))
        return shown[-1]

    return noting


def read_settings(data: Any) -> None:
    """A part of a configuration, a list of services, or a table of prices."""
    if isinstance(data, list):
        data = {"labels": {"labeler": "services", "services": data}}
    if "models" in data:
        assert all(set(price) == {"input", "output"} for price in data["models"].values())
        return
    parse_config({"name": "snippet", **data})
