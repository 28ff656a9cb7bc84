"""What a service allows: who may ask, how much at once, for how long."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True)
class Settings:
    """Limits of one service. The sizes of single fields are those of the schema, in `api/wire.py`.

    token: what a client must show; None serves whoever reaches the address, and then only under
    `hosts`, so that a page of another site cannot ask by way of a name that it points here.
    tokens: of a text, whatever its subject could read. rate: requests a minute a client, with as
    many at once; 0 is without a limit. requests: how many are answered at a time.
    """

    token: str | None = None
    hosts: tuple[str, ...] = LOOPBACK
    body_bytes: int = 8 * 2**20
    body_seconds: float = 20.0
    seconds: float = 300.0
    rate: int = 600
    requests: int = 512
    tokens: int = 8192
