"""How a service says no: one shape for every refusal, without traces, paths or what was sent.

`error` is a sentence, as in the web interface of Neuronpedia; `detail` is that sentence, or the
faulty fields, as in its inference server: a client of either finds what it looks for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from nlakit.errors import ConfigError, ContractError, DataError, NlakitError
from nlakit.serve.engine import Busy, Closed

# Routes whose documented answer to a faulty field is 400 and not 422.
BAD_REQUEST = ("/api/nla/explain", "/api/nla/completion")
SHOWN = 20  # faulty fields of one request
SOON = {"Retry-After": "2"}
FAILED = "the service failed; its log says why"
log = logging.getLogger("nlakit.serve")


def refusal(
    status: int, error: str, detail: Any = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"detail": detail or error, "error": error}, status, headers)


def handle_errors(app: FastAPI) -> None:
    """Register what becomes of each kind of error."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(NlakitError, _mistaken)
    app.add_exception_handler(Exception, _failed)


async def _refused(request: Request, error: Any) -> JSONResponse:
    return refusal(error.status_code, str(error.detail), headers=error.headers)


async def _invalid(request: Request, error: Any) -> JSONResponse:
    """The faulty fields, without their values: those may be large, and no JSON (NaN)."""
    faults = [{key: one[key] for key in ("type", "loc", "msg")} for one in error.errors()[:SHOWN]]
    first = faults[0]
    place = ".".join(str(part) for part in first["loc"][1:]) or "body"
    status = 400 if request.url.path in BAD_REQUEST else 422
    return refusal(status, f"{place}: {first['msg']}", faults)


async def _mistaken(request: Request, error: Any) -> JSONResponse:
    """A mistake of the user, by its first sentence: what was found may name files."""
    if isinstance(error, Busy | Closed):
        return refusal(503, error.what, headers=SOON)
    if isinstance(error, DataError | ConfigError | ContractError):
        return refusal(422, error.what)
    return await _failed(request, error)


async def _failed(request: Request, error: Any) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return refusal(500, FAILED)


def answer(made: BaseModel) -> Response:
    """A model as it is, without a second look at what may be thousands of vectors."""
    return Response(made.model_dump_json(), media_type="application/json")


def event(made: BaseModel | Mapping[str, Any]) -> str:
    """A server-sent event."""
    text = made.model_dump_json() if isinstance(made, BaseModel) else json.dumps(made)
    return f"data: {text}\n\n"


class EventStream(StreamingResponse):
    """Server-sent events of an async generator, which ends with the answer, however that ends.

    What goes wrong behind the first event is an event too, and no `[DONE]` follows it.
    """

    def __init__(self, lines: AsyncGenerator[str]) -> None:
        headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(_to_the_end(lines), media_type="text/event-stream", headers=headers)
        self._lines = lines

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._lines.aclose()


async def _to_the_end(lines: AsyncGenerator[str]) -> AsyncGenerator[str]:
    try:
        async for line in lines:
            yield line
        yield "data: [DONE]\n\n"
    except Exception as error:
        log.error("a stream failed", exc_info=error)
        said = error.what if isinstance(error, NlakitError) else FAILED
        yield event({"error": said})
