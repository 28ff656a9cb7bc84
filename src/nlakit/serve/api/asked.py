"""Which pair a request means, and which text."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from starlette.exceptions import HTTPException

from nlakit.core.text.messages import Conversation
from nlakit.models.using.reading import Read
from nlakit.serve.api.wire import TextRequest
from nlakit.serve.metrics import Metrics
from nlakit.serve.pairs import Served


def pair_of_route(request: Request) -> Served:
    """The pair of `/pairs/NAME/...`; the first one elsewhere."""
    pairs: dict[str, Served] = request.app.state.pairs
    name = request.path_params.get("pair", next(iter(pairs)))
    if name not in pairs:
        raise HTTPException(404, "Not Found")
    return pairs[name]


def metrics_of(request: Request) -> Metrics:
    return request.app.state.metrics


Pair = Annotated[Served, Depends(pair_of_route)]
Counted = Annotated[Metrics, Depends(metrics_of)]


def named_pair(request: Request, model: str | None, source: str | None) -> Served:
    """The pair of a model and a source id as `/api/nla/sources` lists them; the first one that fits
    what is given. HTTPException 404 if none does."""
    pairs: dict[str, Served] = request.app.state.pairs
    for served in pairs.values():
        if source in (None, "", served.name) and model in (None, "", served.model_id):
            return served
    raise HTTPException(404, "no such model and source; GET /api/nla/sources lists them")


def words_of(asked: TextRequest) -> Read:
    """The conversation of a request, or its text. HTTPException 400 without either."""
    if asked.messages:
        return Conversation(
            [one.model_dump(exclude_none=True) for one in asked.messages],
            bool(asked.add_generation_prompt), asked.continue_final_message, asked.enable_thinking,
        )  # fmt: skip
    if not asked.text:
        raise HTTPException(400, "Provide either `text` or `messages`.")
    return asked.text


def places(positions: list[int] | None, tokens: int, most: int, reverse: bool) -> list[int]:
    """Token positions from 0, all of them if none are named. HTTPException 400 for one that is not
    there, or for more than a request may have."""
    for position in positions or []:
        if not -tokens <= position < tokens:
            raise HTTPException(400, f"Position {position} out of range (0..{tokens - 1})")
    found = [position % tokens for position in positions or range(tokens)]
    if len(found) > most:
        raise HTTPException(
            400,
            f"{len(found)} positions of a text of {tokens} tokens, and at most {most} a request: "
            "name some in `positions`",
        )
    return found[::-1] if reverse else found
