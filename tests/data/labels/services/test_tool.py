"""Command-line tools as labelers, with stand-ins that behave as the real ones do."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from nlakit.config.labels import ServiceConfig
from nlakit.data.labels.services.answers import LabelAnswer
from nlakit.data.labels.services.faults import UNKNOWN, Fault
from nlakit.data.labels.services.prompts import Prompt
from nlakit.data.labels.services.service import Reply
from nlakit.data.labels.services.tool import TOOLS, ToolService, read_output
from nlakit.errors import ConfigError, ServiceError

PROMPT = Prompt("Be brief.", "The whale“ \U0001f40b rose")
# What `gemini` 0.5x prints, in an empty home, with exit code 41.
LOGIN = {"error": {"message": "Please set an Auth method in your settings.json", "code": 41}}


def stand_in(folder: Path, name: str, body: str) -> Path:
    """A program on the PATH that runs a piece of Python; on Windows a .CMD shim, as npm makes."""
    script = folder / f"{name}.py"
    script.write_text(f"import json, os, sys, time\n{body}\n", encoding="utf-8")
    if os.name == "nt":
        program = folder / f"{name}.cmd"
        program.write_text(f'@"{sys.executable}" "{script}" %*\n')
    else:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
        program.chmod(0o755)
    return program


def service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, name: str = "gemini", **more: object
) -> ToolService:
    stand_in(tmp_path, name, body)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    config = ServiceConfig.model_validate({"kind": "tool", "command": [name]} | more)
    return ToolService(config, timeout=20)


def ask(tool: ToolService) -> Reply:
    async def work() -> Reply:
        try:
            return await tool.ask(PROMPT, LabelAnswer)
        finally:
            await tool.close()

    return asyncio.run(work())


def test_the_prompt_goes_to_standard_input_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
text = sys.stdin.buffer.read().decode()
found = [text, sys.argv[1:], os.listdir(), open("../deny-all.toml").read()]
print(json.dumps({"response": json.dumps(found)}))
"""
    tool = service(tmp_path, monkeypatch, body, model="flash")
    text, options, listing, policy = json.loads(ask(tool).text)
    assert text.startswith("Be brief.\n\nThe whale“ \U0001f40b rose")
    assert '"features"' in text  # the form of the answer
    assert listing == []
    assert options == [*TOOLS["gemini"], "--model", "flash"]
    assert "deny" in policy
    assert not Path(tool.folder.name).exists()


def test_a_users_own_options_are_used_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "print(json.dumps({'result': ' '.join(sys.argv[1:])}))"
    tool = service(tmp_path, monkeypatch, body, "claude", command=["claude", "-p", "--effort=low"])
    assert ask(tool).text == "-p --effort=low"


def test_plain_output_is_the_answer() -> None:
    answer = '{"features": ["a", "b"]}'
    assert read_output(f" {answer}\n") == (Reply(answer, None, UNKNOWN), False)
    assert read_output("words\n") == (Reply("words", None, UNKNOWN), False)
    said = 'Loaded cached credentials.\n{"response": "x"}'
    assert read_output(said) == (Reply("x", None, UNKNOWN), False)


def test_tokens_of_both_tools_are_counted() -> None:
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "output_tokens": 7}
    assert read_output(json.dumps({"result": "x", "usage": usage}))[0].tokens == (43, 7)
    stats = {"models": {"pro": {"tokens": {"prompt": 5, "candidates": 2}}}}
    assert read_output(json.dumps({"response": "x", "stats": stats}))[0].tokens == (5, 2)


def test_a_tool_that_is_not_installed() -> None:
    config = ServiceConfig.model_validate({"kind": "tool", "command": ["no-such-tool-here"]})
    with pytest.raises(ConfigError, match="no-such-tool-here is not installed; found: not on the"):
        ToolService(config, 5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"sys.exit(print({json.dumps(LOGIN)!r}) or 41)", "asks for a login"),
        ("sys.exit('Error: Quota exceeded: requests per day')", "quota"),
        ("print('Loaded cached credentials.'); sys.exit('503 unavailable')", "overloaded"),
        ("sys.exit('You have hit your limit, resets 3pm')", "quota"),
        ("print(json.dumps({'result': 'Claude usage limit reached', 'is_error': True}))", "quota"),
        ("print(json.dumps({'result': 'Please run /login', 'is_error': True}))", "for a login"),
        ("sys.exit('429 Too Many Requests')", "rate_limit"),
        ("sys.exit('503 overloaded')", "overloaded"),
        ("sys.exit('TypeError: undefined')", "server"),
        ("print(json.dumps({'result': 'API Error', 'is_error': True}))", "server"),
        ("sys.stdout.buffer.write(b'\\xff\\xfe{}')", "unreadable"),
        ("sys.stdout.write('x' * 5_000_000)", "too_large"),
    ],
)
def test_troubles_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str
) -> None:
    tool = service(tmp_path, monkeypatch, body)
    with pytest.raises((Fault, ServiceError), match=expected):
        ask(tool)


def test_a_tool_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(os.environ["PID_FILE"], "w").write(str(child.pid))
time.sleep(600)
"""
    monkeypatch.setenv("PID_FILE", str(tmp_path / "pid"))
    tool = service(tmp_path, monkeypatch, body)
    tool.timeout = 2
    started = time.monotonic()
    with pytest.raises(Fault, match="timeout"):
        ask(tool)
    assert time.monotonic() - started < 15
    child = int((tmp_path / "pid").read_text())
    gone = not psutil.pid_exists(child)
    assert gone or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
