"""The service as an ASGI application."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from starlette.routing import Mount

from nlakit import __version__
from nlakit.serve.answers import handle_errors
from nlakit.serve.api import inference, own, steering, web
from nlakit.serve.engine import Engine
from nlakit.serve.guard import Guard
from nlakit.serve.metrics import Metrics
from nlakit.serve.pages.mount import add_pages
from nlakit.serve.pairs import Served
from nlakit.serve.settings import Settings

ABOUT = """Natural language autoencoders over HTTP: activations in words, and words in activations.

`/api/nla/explain` and `/api/nla/sources` are those of Neuronpedia's web interface; `/explain`,
`/describe`, `/score`, `/compare`, `/extract`, `/tokenize` and `/completion` those of its inference
server, for the first pair, and below `/pairs/NAME` for each. Every score stands beside its floor:
what the reconstructor scores on the same vector when it has read nothing."""


def create_app(
    engines: Mapping[str, Engine],
    settings: Settings | None = None,
    explored: Mapping[str, str | Path] | None = None,
) -> FastAPI:
    """The service of loaded pairs by their names; the first one is the default. explored: adds the
    explorer's pages, with where each pair lies."""
    settings = settings or Settings()
    app = FastAPI(
        title="nlakit", version=__version__, description=ABOUT, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    metrics = Metrics()
    app.state.engines = engines
    app.state.settings, app.state.metrics, app.state.began = settings, metrics, time.monotonic()
    app.state.pairs = {
        name: Served(name, engine, settings.tokens) for name, engine in engines.items()
    }
    for name, engine in engines.items():
        _watch(metrics, name, engine)
    handle_errors(app)
    for router in (inference.router, web.router, own.router, steering.router):
        app.include_router(router)
    app.router.routes.append(Mount("/pairs/{pair}", routes=inference.router.routes))
    if explored is not None:
        add_pages(app, engines, explored)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    return app


def _watch(metrics: Metrics, name: str, engine: Engine) -> None:
    metrics.gauge("nlakit_queue_length", "Explanations that wait.", lambda: engine.waiting, name)
    metrics.gauge("nlakit_batch_size", "Explanations being written.", lambda: engine.writing, name)
