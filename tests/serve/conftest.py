"""A toy pair that is served, and clients of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn

from nlakit import NLA
from nlakit.config.sections import LoraConfig, SubjectConfig
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.serve.app import create_app
from nlakit.serve.engine import Engine
from nlakit.serve.settings import Settings
from tests.conftest import D, build_contract

HERE = "http://127.0.0.1"


@pytest.fixture(scope="session")
def toy_nla(toy_folder: Callable[[str], Path]) -> NLA:
    """A pair of random weights over a toy subject."""
    settings = {"model": str(toy_folder("llama")), "dtype": "float32", "device": "cpu", "layer": 1}
    subject = load_subject(SubjectConfig.model_validate(settings))
    contract, lora = build_contract(subject), LoraConfig(r=2, alpha=4)
    mean = np.random.default_rng(0).standard_normal(D) / 20
    av = Verbalizer(subject, contract, mean, lora, 0).eval()
    ar = Reconstructor(subject, contract, lora, 0).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for half in (av, ar):
            for name, parameter in half.named_parameters():
                if "lora" in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return NLA(subject, av, ar, mean)


@pytest.fixture
def engine(toy_nla: NLA) -> Iterator[Engine]:
    made = Engine(toy_nla)
    yield made
    made.close()


class Client:
    """Requests to an application in this process, one event loop a request."""

    def __init__(self, app: Any, headers: dict[str, str] | None = None) -> None:
        self.app, self.headers = app, headers or {}

    def __call__(self, method: str, path: str, **given: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(
                transport=transport, base_url=HERE, headers=self.headers
            ) as client:
                return await client.request(method, path, **given)

        return asyncio.run(ask())

    def get(self, path: str, **given: Any) -> httpx.Response:
        return self("GET", path, **given)

    def post(self, path: str, json: Any = None, **given: Any) -> httpx.Response:
        return self("POST", path, json=json, **given)


@pytest.fixture
def client(engine: Engine) -> Client:
    return Client(create_app({"toy": engine}))


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """A real server in a thread, for what needs sockets; gives its address."""
    config = uvicorn.Config(app, port=0, log_level="critical", ws="none", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"{HERE}:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def serving(engine: Engine) -> Iterator[str]:
    with listening(create_app({"toy": engine}, Settings(rate=0))) as url:
        yield url


@pytest.fixture
def slowly(engine: Engine) -> Callable[..., list[float]]:
    """`slowly(seconds)`: that much before each token; gives the times of the steps."""

    def slow(seconds: float, which: Engine = engine) -> list[float]:
        running, steps = which._running, []
        assert running is not None
        step = running.step

        def slow_step() -> Any:
            time.sleep(seconds)
            steps.append(time.monotonic())
            return step()

        running.step = slow_step
        return steps

    return slow


def soon(done: Callable[[], Any], seconds: float = 20) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never was"
        time.sleep(0.005)
