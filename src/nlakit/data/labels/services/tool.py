"""Command-line tools such as `claude` and `gemini` as labelers: one process a request.

The texts are untrusted, so a tool runs in an empty folder, without a shell, with its own abilities
switched off where nlakit knows how (TOOLS), and within a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel

from nlakit.config.labels import ServiceConfig
from nlakit.data.labels.services.answers import schema
from nlakit.data.labels.services.client import MOST_BYTES
from nlakit.data.labels.services.faults import UNKNOWN, Fault, Tokens
from nlakit.data.labels.services.prompts import Prompt
from nlakit.data.labels.services.service import DAILY, Reply, plain
from nlakit.errors import ConfigError, ServiceError

# What follows the program where the configuration names the program alone.
TOOLS = {
    "claude": (
        "--print", "--output-format", "json", "--tools", "", "--strict-mcp-config",
        "--setting-sources", "", "--no-session-persistence",
    ),
    "gemini": (
        "--output-format", "json", "--extensions", "none", "--approval-mode", "default",
        "--policy", "../deny-all.toml",
    ),
}  # fmt: skip
DENY_ALL = '[[rule]]\ntoolName = "*"\ndecision = "deny"\npriority = 999\n'
LOGIN = re.compile(
    r"\b(?:log|sign)[ -]?in\b|/login|auth method|not authenticated|(?:invalid|missing|no) api key"
    r"|(?:invalid|missing|no) credentials",
    re.IGNORECASE,
)
LIMITED = re.compile(r"quota|rate.?limit|\b429\b|exhausted|too many requests", re.IGNORECASE)
USED_UP = re.compile(r"usage limit|hit your (?:\w+ )?limit|limit reached", re.IGNORECASE)
GRACE_SECONDS = 5.0
BUSY = re.compile(r"overloaded|unavailable|\b50[0-9]\b|ECONNRESET|ETIMEDOUT", re.IGNORECASE)
FORM = """

Answer with one JSON object and nothing else, of this JSON schema:
{schema}
"""


class ToolService:
    """A tool of the configuration. Raises ConfigError if it is not installed."""

    def __init__(self, config: ServiceConfig, timeout: float) -> None:
        self.name, self.timeout = config.name, timeout
        self.identity = config.identity
        program, *given = config.command
        # shutil.which finds Windows' .CMD shims, which a bare name does not start.
        found = shutil.which(program)
        if found is None:
            raise ConfigError(
                f"the tool {program} is not installed",
                found="not on the PATH",
                do="install it, or give its full path in labels.services",
            )
        known = TOOLS.get(Path(program).stem, ())
        model = ("--model", config.model) if config.model and known and not given else ()
        # Absolute: it is started in another folder.
        self.command = [str(Path(found).absolute()), *(given or known), *model]
        self.folder = tempfile.TemporaryDirectory(prefix="nlakit-tool-", ignore_cleanup_errors=True)
        (Path(self.folder.name) / "deny-all.toml").write_text(DENY_ALL, encoding="utf-8")

    async def ask(self, prompt: Prompt, kind: type[BaseModel]) -> Reply:
        form = FORM.format(schema=json.dumps(schema(kind)))
        text = f"{prompt.instructions}\n\n{prompt.message}{form}"
        empty = await asyncio.to_thread(tempfile.mkdtemp, dir=self.folder.name)
        try:
            code, out, err = await self._start(text.encode("utf-8", errors="replace"), empty)
        except OSError as error:
            raise ServiceError(
                f"{self.name} cannot be started", found=error, do="check labels.services"
            ) from error
        finally:
            await asyncio.to_thread(shutil.rmtree, empty, ignore_errors=True)
        reply, failed = read_output(out)
        if code != 0 or failed:
            raise self._trouble(code, f"{err} {out}")
        return reply

    async def _start(self, text: bytes, folder: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            # Ctrl-C is for nlakit, which lets what is in flight come in.
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(text), self.timeout)
        except TimeoutError as error:
            raise Fault("timeout", f"no answer in {self.timeout:.0f} s") from error
        finally:
            if process.returncode is None:
                await asyncio.to_thread(_end, process.pid)
                # Python waits for the pipes too, which a grandchild may hold open.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        if len(out) > MOST_BYTES:
            raise Fault("too_large", f"{len(out)} bytes")
        try:
            return process.returncode or 0, out.decode(), err.decode(errors="replace")
        except UnicodeDecodeError as error:
            raise Fault("unreadable", str(error)) from error

    def _trouble(self, code: int, said: str) -> Exception:
        text = plain(said) or f"exit code {code}"
        if USED_UP.search(said):
            return Fault("quota", text)
        if LIMITED.search(said):
            return Fault("quota" if DAILY.search(said) else "rate_limit", text)
        if LOGIN.search(said):
            return ServiceError(
                f"{self.name} asks for a login", found=text, do="start it once by hand and log in"
            )
        if BUSY.search(said):
            return Fault("overloaded", text)
        return Fault("server", f"exit code {code}: {text}")

    async def close(self) -> None:
        self.folder.cleanup()


def _end(pid: int) -> None:
    """End a tool and what it started: a shim's child outlives the shim."""
    with contextlib.suppress(psutil.Error):
        tool = psutil.Process(pid)
        for process in [*tool.children(recursive=True), tool]:
            with contextlib.suppress(psutil.Error):
                process.kill()


def read_output(out: str) -> tuple[Reply, bool]:
    """The answer in a tool's output, and whether the tool calls it an error: plain text, or JSON
    around it with its counts of tokens, after whatever the tool says first."""
    try:
        data = json.loads(out[out.index("{") :])
    except (ValueError, RecursionError):
        return Reply(out.strip(), None, UNKNOWN), False
    text = data.get("result", data.get("response"))
    if not isinstance(text, str):
        return Reply(out.strip(), None, UNKNOWN), False
    return Reply(text, None, _tokens(data)), bool(data.get("is_error"))


def _tokens(data: dict[str, Any]) -> Tokens:
    """claude: usage.input_tokens and the like; gemini: stats.models.NAME.tokens."""
    usage = data.get("usage")
    try:
        if isinstance(usage, dict) and "output_tokens" in usage:
            names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
            return sum(int(usage.get(name) or 0) for name in names), int(usage["output_tokens"])
        models = [model["tokens"] for model in data["stats"]["models"].values()]
        return sum(m["prompt"] for m in models), sum(m["candidates"] for m in models)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return UNKNOWN
