"""What the pages hold while the service runs, and how they are added to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from nlakit.errors import ContractError, DataError
from nlakit.serve.engine import Engine
from nlakit.serve.pages.pairs import Pair, Reading
from nlakit.serve.pages.shown import HEADERS, STATIC
from nlakit.serve.pages.streams import Jobs


class Explorer:
    """The pairs by name, the first one being shown first, and what visitors wait for."""

    def __init__(
        self, engines: Mapping[str, Engine], sources: Mapping[str, str | Path] | None = None
    ) -> None:
        places = sources or {}
        self.pairs = {
            name: Pair(name, engine, places.get(name, name)) for name, engine in engines.items()
        }
        for name, pair in self.pairs.items():
            if pair.nla.av is None:
                raise ContractError(f"{name} holds no AV", do="explore a pair, or the AV's folder")
        self.jobs = Jobs()

    def pair(self, name: str) -> Pair:
        """The pair of a name, the first one for none; DataError for an unknown one."""
        found = self.pairs.get(name) if name else next(iter(self.pairs.values()))
        if found is None:
            raise DataError("no such pair is loaded", found=name[:80], do="reload the page")
        return found

    async def read(self, pair: str, text: str, kind: str) -> Reading:
        return await self.pair(pair).read(text, kind)


class Files(StaticFiles):
    """The page's own files, with the page's headers."""

    async def get_response(self, path: str, scope: Scope):  # type: ignore[override]
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
    from nlakit.serve.pages.routes import router

    app.state.explorer = Explorer(engines, sources)
    app.include_router(router)
    app.mount("/explore/static", Files(directory=STATIC), name="explorer-files")

    @app.get("/", include_in_schema=False)
    async def begin(request: Request) -> RedirectResponse:
        return RedirectResponse(f"{request.scope.get('root_path', '')}/explore")
