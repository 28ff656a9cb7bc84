"""The routes of Neuronpedia's web interface: which pairs there are, and what they say."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from nlakit.serve.answers import EventStream, answer
from nlakit.serve.api.asked import Counted, named_pair, places, words_of
from nlakit.serve.api.continuing import Continuation
from nlakit.serve.api.examples import documented
from nlakit.serve.api.inference import explain_events, explained
from nlakit.serve.api.wire import (
    MOST_COMPLETED,
    NEW_TOKENS,
    POSITIONS,
    CompletionTokens,
    ExplainResponse,
    Seed,
    Temperature,
    TextRequest,
    TokenInfo,
    Wire,
)
from nlakit.serve.api.writing import Writing
from nlakit.serve.pairs import Served

router = APIRouter(prefix="/api/nla", tags=["NLA"])


class SourceModel(Wire):
    id: str
    displayName: str  # noqa: N815 - the interface's spelling, here and below
    openRouterAvailable: bool  # noqa: N815


class Source(Wire):
    """A pair. `norm` is that to which activations are scaled before the AV reads them; null where
    they are raw."""

    modelId: str  # noqa: N815
    id: str = Field(description="`nlaSourceId` in requests")
    displayName: str  # noqa: N815
    description: str
    url: str = ""
    author: str = ""
    av: str | None
    ar: str | None
    layerNum: int  # noqa: N815
    norm: float | None
    createdAt: datetime  # noqa: N815
    model: SourceModel
    d_model: int


class Sources(Wire):
    sources: list[Source]


class Named(Wire):
    """Which pair is asked; the first that fits, unless both are given."""

    modelId: str | None = Field(None, max_length=256)  # noqa: N815
    nlaSourceId: str | None = Field(None, max_length=256)  # noqa: N815


class WebTextRequest(Named, TextRequest):
    add_generation_prompt: bool | None = Field(
        None, description="Unless given: where the last message is not the assistant's."
    )

    @model_validator(mode="after")
    def _open(self) -> WebTextRequest:
        if self.add_generation_prompt is None and self.messages:
            last = self.messages[-1].role != "assistant"
            self.add_generation_prompt = last and not self.continue_final_message
        return self


class WebExplainRequest(WebTextRequest):
    positions: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=POSITIONS)
    temperature: Temperature = 0.7
    stream: bool = False
    seed: Seed = 0


class WebExplainResponse(ExplainResponse):
    prompt_length: int


class WebCompletionRequest(WebTextRequest):
    completion_tokens: CompletionTokens = 16
    temperature: Temperature = 0.7
    seed: Seed = 0


class WebCompletionResponse(Wire):
    completion: str
    full_text: str = Field(description="`text` of a request to /api/nla/explain")
    tokens: list[TokenInfo]


@router.get("/sources", **documented("sources", Sources))
async def sources(request: Request) -> Response:
    """The pairs that are served; the first one is the default."""
    pairs: dict[str, Served] = request.app.state.pairs
    return answer(Sources(sources=[source_of(served) for served in pairs.values()]))


def source_of(served: Served) -> Source:
    nla, model = served.nla, served.model_id
    halves = "a pair" if nla.av and nla.ar else "a verbalizer" if nla.av else "a reconstructor"
    about = f"{halves} over {model}, layer {nla.contract.layer}"
    template = getattr(nla.subject.tokenizer, "chat_template", None)
    can_chat = bool(template or nla.contract.nlakit.chat_template)
    return Source(
        modelId=model,
        id=served.name,
        displayName=served.name,
        description=about,
        av=f"{served.name}/av" if nla.av else None,
        ar=f"{served.name}/ar" if nla.ar else None,
        layerNum=nla.contract.layer,
        norm=nla.contract.scaling.scale,
        createdAt=served.since,
        model=SourceModel(id=model, displayName=model, openRouterAvailable=can_chat),
        d_model=nla.contract.d_model,
    )


@router.post("/explain", **documented("web_explain", WebExplainResponse, stream=True))
async def explain(asked: WebExplainRequest, request: Request, metrics: Counted) -> Response:
    """The activations at token positions in words, by position."""
    served = named_pair(request, asked.modelId, asked.nlaSourceId)
    served.need_av()
    reading = await served.read(words_of(asked), asked.special_tokens)
    at = places(sorted(set(asked.positions)), len(reading.tokens), POSITIONS, reverse=False)
    decoding = served.decoding(asked.temperature, NEW_TOKENS, asked.seed)
    writing = Writing(served, metrics, reading.vectors[at], at, decoding)
    if asked.stream:
        return EventStream(explain_events(served, reading, at, writing))
    results = [explained(reading, at, one) for one in await writing.all()]
    layer = served.nla.contract.layer
    return answer(
        WebExplainResponse(layer_index=layer, results=results, prompt_length=len(reading.tokens))
    )


@router.post("/completion", **documented("web_completion", WebCompletionResponse))
async def completion(asked: WebCompletionRequest, request: Request) -> Response:
    """The subject continues a text; the tokens of both are those that `/api/nla/explain` counts."""
    served = named_pair(request, asked.modelId, asked.nlaSourceId)
    prompt = await served.tokens(words_of(asked), asked.special_tokens)
    count = min(asked.completion_tokens, MOST_COMPLETED)
    going = Continuation(served, prompt, count, asked.temperature, asked.seed)
    whole = await going.whole()
    made = await served.do(lambda: served.nla.subject.tokenizer.decode(going.text.ids))
    return answer(WebCompletionResponse(completion=made, full_text=whole.text, tokens=whole.tokens))
