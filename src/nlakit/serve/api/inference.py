"""The routes of Neuronpedia's inference server, for one pair."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import torch
from fastapi import APIRouter, Response

from nlakit.serve.answers import EventStream, answer, event
from nlakit.serve.api.asked import Counted, Pair, places, words_of
from nlakit.serve.api.continuing import Continuation, info_of
from nlakit.serve.api.examples import documented
from nlakit.serve.api.wire import (
    MOST_COMPLETED,
    POSITIONS,
    CompareRequest,
    CompareResponse,
    CompletionRequest,
    DescribeRequest,
    DescribeResponse,
    DescriptionResult,
    ExplainRequest,
    ExplainResponse,
    ExplainResult,
    ExtractResponse,
    ScoreRequest,
    Scores,
    ServerHealth,
    TextRequest,
    TokenActivation,
    TokenizeResponse,
    scores_of,
)
from nlakit.serve.api.writing import Part, Writing, Written
from nlakit.serve.pairs import Reading, Served

router = APIRouter(tags=["inference"])


@router.get("/", **documented("health", ServerHealth))
async def server(served: Pair) -> Response:
    """What this server has loaded, and how much it takes."""
    nla, engine = served.nla, served.engine
    device = str(nla.subject.device)
    return answer(
        ServerHealth(
            verbalizer_model=served.name,
            d_model=nla.contract.d_model,
            verbalizer_device=device,
            reconstructor_available=nla.ar is not None,
            reconstructor_device=device if nla.ar else None,
            source_model=served.model_id,
            extraction_layer=nla.contract.layer,
            source_device=device,
            num_cuda_devices=torch.cuda.device_count(),
            max_concurrent=engine.batch,
            max_concurrent_explains=engine.queue,
            max_describe_requests=engine.queue,
        )
    )


@router.post("/tokenize", **documented("tokenize", TokenizeResponse))
async def tokenize(asked: TextRequest, served: Pair) -> Response:
    """The tokens of a text, with the characters that several of them make up."""
    tokens = await served.tokens(words_of(asked), asked.special_tokens)
    infos = [info_of(token) for token in await served.described(tokens)]
    return answer(TokenizeResponse(tokens=infos, prompt_length=len(infos), text=tokens.text))


@router.post("/extract", **documented("extract", ExtractResponse))
async def extract(asked: TextRequest, served: Pair) -> Response:
    """The raw activation of each token, at the layer that the pair reads."""
    reading = await served.read(words_of(asked), asked.special_tokens)
    places(None, len(reading.tokens), POSITIONS, reverse=False)
    rows = [
        TokenActivation(
            token=token.token, token_id=token.token_id, position=token.position,
            activation=vector.tolist(), l2_norm=float(np.linalg.norm(vector)),
        )
        for token, vector in zip(reading.tokens, reading.vectors, strict=True)
    ]  # fmt: skip
    return answer(ExtractResponse(layer_index=served.nla.contract.layer, tokens=rows))


@router.post("/explain", **documented("explain", ExplainResponse, stream=True))
async def explain(asked: ExplainRequest, served: Pair, metrics: Counted) -> Response:
    """The activations of a text's tokens in words."""
    served.need_av()
    reading = await served.read(words_of(asked), asked.special_tokens)
    at = places(asked.positions, len(reading.tokens), POSITIONS, asked.reverse)
    decoding = served.decoding(asked.temperature, asked.max_new_tokens, asked.seed)
    writing = Writing(served, metrics, reading.vectors[at], at, decoding)
    if asked.stream:
        return EventStream(explain_events(served, reading, at, writing))
    results = [explained(reading, at, one) for one in await writing.all()]
    return answer(ExplainResponse(layer_index=served.nla.contract.layer, results=results))


async def explain_events(
    served: Served, reading: Reading, at: list[int], writing: Writing
) -> AsyncGenerator[str]:
    """What all will be, then texts as they grow; a whole one has a `description`."""
    yield event(
        {
            "layer_index": served.nla.contract.layer,
            "total": len(at),
            "prompt_length": len(reading.tokens),
        }
    )
    async for one in writing.events():
        if isinstance(one, Part):
            yield event({"position": at[one.at], "text": one.text, "done": False})
        else:
            yield event(explained(reading, at, one))


def explained(reading: Reading, at: list[int], one: Written) -> ExplainResult:
    position = at[one.at]
    fields: dict[str, Any] = {
        **vars(reading.tokens[position]), **scores_of(one.scored),
        "l2_norm": float(np.linalg.norm(reading.vectors[position])), "description": one.text,
    }  # fmt: skip
    return ExplainResult.model_validate(fields)


@router.post("/describe", **documented("describe", DescribeResponse, stream=True))
async def describe(asked: DescribeRequest, served: Pair, metrics: Counted) -> Response:
    """Raw activation vectors in words."""
    served.need_av()
    vectors = served.vectors(asked.activations, "activations")
    decoding = served.decoding(asked.temperature, asked.max_new_tokens, asked.seed)
    writing = Writing(served, metrics, vectors, range(len(vectors)), decoding)
    if asked.stream:
        return EventStream(describe_events(writing))
    results = [described(one) for one in await writing.all()]
    return answer(DescribeResponse(results=results))


async def describe_events(writing: Writing) -> AsyncGenerator[str]:
    async for one in writing.events():
        if isinstance(one, Part):
            yield event({"index": one.at, "text": one.text, "done": False})
        else:
            yield event({"index": one.at, **described(one).model_dump()})


def described(one: Written) -> DescriptionResult:
    return DescriptionResult.model_validate({"description": one.text, **scores_of(one.scored)})


@router.post("/score", **documented("score", Scores))
async def score(asked: ScoreRequest, served: Pair) -> Response:
    """How well a text carries an activation."""
    served.need_ar()
    vector = served.vectors([asked.activation], "activation")[0]
    found = await served.score(asked.description, vector)
    return answer(Scores.model_validate(scores_of(found)))


@router.post("/compare", **documented("compare", CompareResponse))
async def compare(asked: CompareRequest, served: Pair, metrics: Counted) -> Response:
    """The difference a − b of two activations in words."""
    served.need_av()
    a = served.vectors([asked.activation_a], "activation_a")
    b = served.vectors([asked.activation_b], "activation_b")
    difference = served.vectors((a - b).tolist(), "activation_a - activation_b")
    decoding = served.decoding(asked.temperature, asked.max_new_tokens, asked.seed)
    [one] = await Writing(served, metrics, difference, [0], decoding).all()
    norm = float(np.linalg.norm(difference))
    fields = {"description": one.text, "diff_norm": norm, **scores_of(one.scored)}
    return answer(CompareResponse.model_validate(fields))


@router.post("/completion", **documented("completion", TokenizeResponse, stream=True))
async def completion(asked: CompletionRequest, served: Pair) -> Response:
    """The subject continues a text."""
    prompt = await served.tokens(words_of(asked), asked.special_tokens)
    count = min(asked.completion_tokens, MOST_COMPLETED)
    going = Continuation(served, prompt, count, asked.temperature, asked.seed)
    if asked.stream:
        return EventStream(going.events())
    return answer(await going.whole())
