"""An example of each route, for the OpenAPI document: a request, and what the pair in the box
answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from nlakit.serve.api.wire import Refusal

TEXT = "The capital of France is Paris"
REFUSALS = {
    400: "A field has a value that does not fit the rest.",
    401: "A token is needed, and none or another was shown.",
    403: "Without a token the service answers to the names of its own machine only.",
    404: "No such route, pair or source.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    422: "A field is missing or faulty; `detail` lists which.",
    429: "Too many requests of one client; Retry-After says when.",
    503: "Too many requests wait, or the pair lacks a half.",
    504: "The request took too long.",
}
REQUESTS: dict[str, dict[str, Any]] = {
    "tokenize": {"text": "a naïve 🐋"},
    "extract": {"text": TEXT},
    "explain": {"text": TEXT, "positions": [-1], "temperature": 0},
    "describe": {"activations": [[0.25, -1.5, 0.75]], "temperature": 0},
    "score": {"description": "The text is about France.", "activation": [0.25, -1.5, 0.75]},
    "compare": {"activation_a": [0.25, -1.5, 0.75], "activation_b": [0.5, 1.0, -0.25]},
    "completion": {"text": TEXT, "completion_tokens": 8, "temperature": 0},
    "web_explain": {
        "modelId": "gemma-3-270m", "nlaSourceId": "demo", "text": TEXT, "positions": [4, 6],
        "temperature": 0,
    },
    "reconstruct": {
        "nlaSourceId": "demo",
        "descriptions": ["The text is about France.", "The text is about whales."],
    },
}  # fmt: skip
ANSWERS: dict[str, Any] = {}


def documented(name: str, model: type[BaseModel], stream: bool = False) -> dict[str, Any]:
    """What the OpenAPI document says of a route: its answers, with examples."""
    content: dict[str, Any] = {"application/json": {}}
    if name in ANSWERS:
        content["application/json"]["example"] = ANSWERS[name]
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    made: dict[str, Any] = {
        "response_model": None,
        "responses": {
            200: {"model": model, "content": content, "description": "Done."},
            **{code: {"model": Refusal, "description": text} for code, text in REFUSALS.items()},
        },
    }
    if name in REQUESTS:
        body = {"content": {"application/json": {"example": REQUESTS[name]}}}
        made["openapi_extra"] = {"requestBody": body}
    return made
