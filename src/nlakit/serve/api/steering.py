"""What the subject does when a word of an explanation is changed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from nlakit.serve.answers import answer
from nlakit.serve.api.asked import named_pair
from nlakit.serve.api.examples import documented
from nlakit.serve.api.web import Named
from nlakit.serve.api.wire import (
    POSITIONS,
    Description,
    Seed,
    SpecialTokens,
    Temperature,
    Text,
    Wire,
)

router = APIRouter(prefix="/api/nla", tags=["nlakit"])


class SteerRequest(Named):
    """`edited`, or the words to exchange. All of it is one piece of work, and others wait for it:
    the bounds are lower than those of `nlakit steer`."""

    text: Text
    special_tokens: SpecialTokens = "parse"
    original: Description | None = Field(
        None, description="The explanation that is edited; the pair's own unless given."
    )
    edited: Description | None = Field(None, description="The whole explanation, edited.")
    edit: dict[Annotated[str, Field(max_length=256)], Annotated[str, Field(max_length=256)]] = (
        Field({}, max_length=16, description="Words of the original → words in their place.")
    )
    positions: Literal["last", "all"] | Annotated[list[int], Field(max_length=POSITIONS)] = "last"
    alphas: list[float] = Field(
        [0.25, 0.5, 1.0], min_length=1, max_length=5,
        description="Sizes of the push, of the activation's own norm.",
    )  # fmt: skip
    random: int = Field(10, ge=0, le=40, description="Random directions to compare with.")
    window: int = Field(8, ge=1, le=32, description="Places at which words are listened for.")
    new_tokens: int = Field(24, ge=0, le=64)
    temperature: Temperature = 0.0
    seed: Seed = 0


class Size(Wire):
    """What the push of one size does, in nats; the edit beside random directions."""

    alpha: float
    continuation: str
    log_p: float | None = Field(description="Of the edited-in words.")
    rise: float | None = Field(description="Of it above no steering.")
    gain: float | None = Field(description="Of it above the mean of random directions.")
    success: bool | None = Field(description="Above no steering, and above all but 5% of random.")
    next_log_p: float | None
    own_log_p: float = Field(description="Of what the subject writes unsteered: the push's cost.")
    random_log_p: list[float]
    random_own_log_p: list[float]
    random_continuations: list[str]


class SteerResponse(Wire):
    layer_index: int
    original: str
    edited: str
    words: list[str] = Field(description="That the edit brings in.")
    at: list[int] = Field(description="Steered tokens of the text.")
    unsteered: str
    unsteered_log_p: float | None
    unsteered_own_log_p: float
    chance: float | None = Field(description="How often a random direction counts as a success.")
    sizes: list[Size]


@router.post("/steer", **documented("steer", SteerResponse))
async def steer(asked: SteerRequest, request: Request) -> Response:
    """The subject's continuation, pushed from what one explanation says to what another says."""
    served = named_pair(request, asked.modelId, asked.nlaSourceId)
    served.need_ar()
    if asked.original is None:
        served.need_av()
    await served.tokens(asked.text, asked.special_tokens)
    own: Any = asked.edit if asked.edited is None else asked.edited
    found = await served.do(
        lambda: served.nla.steer(
            asked.text, asked.original, own, positions=asked.positions, alphas=asked.alphas,
            random=asked.random, seed=asked.seed, window=asked.window,
            new_tokens=asked.new_tokens, temperature=asked.temperature,
            special_tokens=asked.special_tokens,
        )
    )  # fmt: skip
    sizes = [{**vars(one), "gain": one.gain, "success": one.success} for one in found.sizes]
    fields = {**vars(found), "layer_index": served.nla.contract.layer, "sizes": sizes}
    return answer(SteerResponse.model_validate(fields))
