"""The explorer as a part of a service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from nlakit.serve.engine import Engine
from nlakit.serve.pages import enter
from nlakit.serve.pages.explorer import Explorer
from nlakit.serve.pages.routes import router
from nlakit.serve.pages.shown import HEADERS, STATIC


class Files(StaticFiles):
    """The page's own files, with the page's headers."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS | {"Cache-Control": "max-age=3600"})
        return response


def add_pages(
    app: FastAPI, engines: Mapping[str, Engine], sources: Mapping[str, str | Path] | None = None
) -> None:
    """Add the explorer to a service. sources: where the pairs lie whose names do not say it, so
    that evaluation and rows beside them are found.

    Raises ContractError for a pair without an AV.
    """
    app.state.explorer = Explorer(engines, sources)
    app.include_router(router)
    app.include_router(enter.router)
    app.mount("/explore/static", Files(directory=STATIC), name="explorer-files")
