"""`nlakit serve`: refused in a line before a model is loaded, or a service at an address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from nlakit.cli.use import serve
from nlakit.cli.use.serve import TOKEN, is_loopback, names_of
from nlakit.serve.app import create_app
from tests.commands import call

SECRET = "a-secret-of-this-test"


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_need_a_token(host: str) -> None:
    said = call("serve", "demo", "--host", host)
    assert said.code == 2
    assert "there is no token; do: set NLAKIT_TOKEN" in said.err


@pytest.mark.parametrize("token", ["short", "with spaces in it, but long", "é" * 20])
def test_a_token_is_no_word_to_be_guessed(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, token)
    said = call("serve", "demo")
    assert (said.code, "is no good secret" in said.err, token in said.err) == (2, True, False)


def test_a_port_that_is_taken_costs_no_loading() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = call("serve", "demo", "--port", str(taken.getsockname()[1]))
    assert said.code == 2
    assert "cannot listen at 127.0.0.1" in said.err


def test_loopback_is_known_by_its_addresses() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org")))


def test_pairs_are_called_by_the_last_part_of_their_names() -> None:
    given = ["demo", "runs/mine/", "owner/name/mine", "./runs/other/08_pair", "C:\\x\\demo", ".."]
    assert names_of(given) == ["demo", "mine", "mine-2", "other", "demo-2", "pair"]


def test_pairs_are_loaded_and_served(
    place: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place("runs/demo")
    monkeypatch.setenv(TOKEN, SECRET)
    seen: dict[str, Any] = {}

    def run(engines: Any, settings: Any, place: socket.socket) -> None:
        transport = httpx.ASGITransport(create_app(engines, settings))
        seen.update(names=list(engines), queue=engines["demo"].queue, settings=settings)
        seen.update(place=place.getsockname(), transport=transport)

    monkeypatch.setattr(serve, "run", run)
    said = call("serve", "runs/demo", "demo", "--port", "0", "--queue", "7", "--seconds", "5")
    assert (said.code, said.crash) == (0, "")
    assert (seen["names"], seen["queue"]) == (["demo", "demo-2"], 7)
    assert (seen["settings"].token, seen["settings"].seconds) == (SECRET, 5)
    assert seen["place"][0] == "127.0.0.1"


@pytest.mark.slow
def test_ctrl_c_ends_it(place: Callable[..., Path]) -> None:
    """As a process of its own: it says where it is, answers there, and ends without a traceback."""
    place("runs/demo")
    words = [sys.executable, "-m", "nlakit", "serve", "runs/demo", "--port", "0"]
    how: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What a shell runs in the background ignores Ctrl-C, and so does what that starts.
    how["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(words, env={**os.environ, "PYTHONUNBUFFERED": "1"}, **how) as running:
        try:
            assert running.stdout is not None
            said = running.stdout.readline()
            assert said.startswith("serving demo at http://127.0.0.1:")
            url = said.split()[-1]
            assert httpx.get(f"{url}/health", timeout=30).json()["pairs"] == ["demo"]
            running.send_signal(signal.SIGINT)
            _, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, "Traceback" in err) == (130, False), err
