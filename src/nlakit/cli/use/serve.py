"""The commands that serve pairs over HTTP: to programs, and to people."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nlakit.cli.use.pair import (
    HUB_ID,
    ArBlocks,
    ArBos,
    BaseModel,
    Chat,
    Device,
    Injection,
    Precision,
    load_pair,
)
from nlakit.errors import ConfigError, ExitCode, ModelError

if TYPE_CHECKING:
    from nlakit.serve.engine import Engine
    from nlakit.serve.settings import Settings

TOKEN = "NLAKIT_TOKEN"
SHORTEST = 16  # characters of a token
Pairs = Annotated[
    list[str],
    typer.Argument(metavar="PAIR...", help=f"pairs, halves or run folders; {HUB_ID}; demo"),
]
Host = Annotated[
    str, typer.Option(help=f"address to listen at; any but this machine's own needs {TOKEN}")
]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")]
Batch = Annotated[int, typer.Option(min=1, help="explanations written at once")]
Queue = Annotated[int, typer.Option(min=1, help="explanations that may wait")]
Rate = Annotated[int, typer.Option(min=0, help="requests a minute a client; 0: no limit")]
Seconds = Annotated[float, typer.Option(min=1, help="that a request may take")]


def serve(
    pairs: Pairs,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    batch: Batch = 32,
    queue: Queue = 256,
    rate: Rate = 600,
    seconds: Seconds = 300,
    base_model: BaseModel = None,
    precision: Precision = None,
    ar_blocks: ArBlocks = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
    device: Device = "auto",
) -> None:
    """Serve pairs over HTTP, in the words of Neuronpedia's NLA interface; see docs/service.md."""
    check_installed()
    settings, place = settings_for(host, rate, seconds), listening(host, port)
    names = names_of(pairs)
    with place, loaded(names, pairs, batch, queue, base_model, precision, ar_blocks, injection,
                       chat, ar_bos, device) as engines:  # fmt: skip
        run(engines, settings, place)


def explore(
    pairs: Pairs,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    base_model: BaseModel = None,
    precision: Precision = None,
    ar_blocks: ArBlocks = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
    device: Device = "auto",
) -> None:
    """Look at pairs in a browser: tokens, explanations, floors, edits; see docs/explorer.md."""
    check_installed()
    settings, place = settings_for(host, 0, 3600), listening(host, port)
    names = names_of(pairs)
    with place, loaded(names, pairs, 32, 256, base_model, precision, ar_blocks, injection,
                       chat, ar_bos, device) as engines:  # fmt: skip
        run(engines, settings, place, dict(zip(names, pairs, strict=True)))


@contextmanager
def loaded(
    names: list[str], pairs: list[str], batch: int, queue: int, *how: Any
) -> Iterator[dict[str, Engine]]:
    """The engines of pairs by name; `how` they are loaded: the last arguments of `load_pair`."""
    from nlakit.serve.engine import Engine

    engines: dict[str, Engine] = {}
    try:
        for name, pair in zip(names, pairs, strict=True):
            engines[name] = Engine(load_pair(pair, None, *how), batch=batch, queue=queue)
        yield engines
    finally:
        for engine in engines.values():
            engine.close()


def run(
    engines: dict[str, Any],
    settings: Settings,
    place: socket.socket,
    explored: Mapping[str, str] | None = None,
) -> None:
    """Answer requests until Ctrl-C; with the explorer's pages if it is known where pairs lie."""
    import uvicorn

    from nlakit.serve.app import create_app

    host, port = place.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    page = "/explore" if explored else ""
    line = f"serving {', '.join(engines)} at http://{shown}:{port}{page}"
    Console(highlight=False).print(line, soft_wrap=True)
    config = uvicorn.Config(
        create_app(engines, settings, explored), log_level="warning", access_log=False,
        server_header=False, ws="none", timeout_graceful_shutdown=5,
    )  # fmt: skip
    try:
        uvicorn.Server(config).run(sockets=[place])
    except KeyboardInterrupt:  # it has answered what it could, and says so once more
        raise typer.Exit(ExitCode.STOPPED) from None


def check_installed() -> None:
    """ModelError where the packages of the service are not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "the service needs packages that are not installed",
            found=str(error),
            do='pip install "nlakit[serve]"',
        ) from error


def settings_for(host: str, rate: int, seconds: float) -> Settings:
    """Settings of a service at an address. ConfigError for one that others reach without a token,
    or a token that is easily guessed."""
    from nlakit.serve.settings import Settings

    token = os.environ.get(TOKEN) or None
    if token is None and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and there is no token",
            do=f"set {TOKEN} to a secret of {SHORTEST} characters or more",
        )
    if token is not None and (len(token) < SHORTEST or not token.isascii() or " " in token):
        raise ConfigError(
            f"{TOKEN} is no good secret",
            found=f"{len(token)} characters",
            do=f"use {SHORTEST} or more, in ASCII and without spaces",
        )
    return Settings(token=token, rate=rate, seconds=seconds)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, before models are loaded; ConfigError where that cannot be."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[
            0
        ]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {host}, port {port}",
            found=error.strerror,
            do="choose another --port; 0 takes a free one",
        ) from error
    made.set_inheritable(False)
    return made


def names_of(pairs: list[str]) -> list[str]:
    """What each pair is called: the last part of its name; a number tells the same ones apart."""
    names: list[str] = []
    for pair in pairs:
        parts = [part for part in pair.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        name = parts[-1] if parts else "pair"
        if len(parts) > 1 and name == "08_pair":
            name = parts[-2]
        same = sum(known == name or known.startswith(f"{name}-") for known in names)
        names.append(f"{name}-{same + 1}" if same else name)
    return names


def register(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(explore)
