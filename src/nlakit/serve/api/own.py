"""Routes that only nlakit has."""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

from nlakit import __version__
from nlakit.serve.answers import answer
from nlakit.serve.api.asked import Counted, named_pair
from nlakit.serve.api.examples import documented
from nlakit.serve.api.web import Named
from nlakit.serve.api.wire import Description, Scores, Vector, Wire, scores_of

MOST_TEXTS = 64
router = APIRouter(tags=["nlakit"])


class Health(Wire):
    status: str = "ok"
    version: str = __version__
    pairs: list[str]
    seconds: float = Field(description="since the service began")


class ReconstructRequest(Named):
    descriptions: list[Description] = Field(min_length=1, max_length=MOST_TEXTS)
    activation: Annotated[
        Vector | None, Field(description="A raw vector, on which each description is scored.")
    ] = None


class Reconstruction(Scores):
    """`reconstruction` is a unit vector: only the direction is trained. Scores are null without an
    `activation`."""

    description: str
    reconstruction: list[float]


class ReconstructResponse(Wire):
    layer_index: int
    results: list[Reconstruction]


@router.get("/health", **documented("alive", Health))
async def health(request: Request) -> Response:
    """Whether the service is alive; needs no token."""
    state = request.app.state
    return answer(Health(pairs=list(state.pairs), seconds=time.monotonic() - state.began))


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(counted: Counted) -> Response:
    """Counters for Prometheus."""
    return Response(counted.text(), media_type=CONTENT_TYPE_LATEST)


@router.post("/api/nla/reconstruct", **documented("reconstruct", ReconstructResponse))
async def reconstruct(asked: ReconstructRequest, request: Request) -> Response:
    """Which direction each description stands for, and how near it comes to an activation."""
    served = named_pair(request, asked.modelId, asked.nlaSourceId)
    served.need_ar()
    texts, scored = asked.descriptions, [None] * len(asked.descriptions)
    vectors = served.vectors([asked.activation], "activation") if asked.activation else None
    made = await served.do(lambda: served.nla.reconstruct(texts))
    if vectors is not None:
        scored = [await one for one in [served.score(text, vectors[0]) for text in texts]]
    units = made / np.linalg.norm(made, axis=1, keepdims=True)
    results = [
        Reconstruction.model_validate(
            {"description": text, "reconstruction": row.tolist(), **scores_of(found)}
        )
        for text, row, found in zip(texts, units, scored, strict=True)
    ]
    return answer(ReconstructResponse(layer_index=served.nla.contract.layer, results=results))
