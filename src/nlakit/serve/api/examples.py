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
    "tokenize": {"text": "🐋"},
    "extract": {"text": TEXT},
    "explain": {"text": TEXT, "positions": [-1], "temperature": 0},
    "describe": {"activations": [[0.25, -1.5, 0.75]], "temperature": 0},
    "score": {"description": "The text is about France.", "activation": [0.25, -1.5, 0.75]},
    "compare": {"activation_a": [0.25, -1.5, 0.75], "activation_b": [0.5, 1.0, -0.25]},
    "completion": {"text": TEXT, "completion_tokens": 8, "temperature": 0},
    "web_completion": {
        "modelId": "gemma-3-270m", "nlaSourceId": "demo", "text": TEXT, "completion_tokens": 8,
        "temperature": 0,
    },
    "web_explain": {
        "modelId": "gemma-3-270m", "nlaSourceId": "demo", "text": TEXT, "positions": [4, 6],
        "temperature": 0,
    },
    "steer": {
        "nlaSourceId": "demo", "text": "She opened the letter and began to",
        "original": "A passage on love.", "edit": {"love": "war"}, "alphas": [0.5],
    },
    "reconstruct": {
        "nlaSourceId": "demo",
        "descriptions": ["The text is about France.", "The text is about whales."],
    },
}  # fmt: skip
EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "JSON; the last one is `[DONE]`"}},
}
# As the pair in the box answers, with numbers shortened and vectors cut to three.
SCORES: dict[str, Any] = {
    "mse": 0.116, "cosine_similarity": 0.942, "centred_cosine": 0.456, "fve": 0.492,
    "floor": {
        "mse": 0.17, "cosine_similarity": 0.915, "centred_cosine": -0.009, "fve": 0.252
    },
}  # fmt: skip
SAID = (
    "A passage on city, city, 18th and 19th. It speaks of city, new, 20th and year. It stops at "
    "“of the Paris Opera”; likely next: a full stop, a comma, a semicolon, and or in."
)
PARIS: dict[str, Any] = {
    "token": " Paris", "token_id": 9079, "position": 6, "fragment_index": 0, "fragment_count": 1,
    "role": None, "section": None, "channel": None, "message_index": None,
}  # fmt: skip
RECORD = {**PARIS, **SCORES, "l2_norm": 11902.296, "description": SAID, "generated": False}
NEXT = {**PARIS, "token": " the", "token_id": 506, "position": 7}
NO_SCORES = dict.fromkeys(SCORES)
ANSWERS: dict[str, Any] = {
    "health": {
        "status": "ok", "verbalizer_model": "demo", "d_model": 640,
        "verbalizer_quantization": None, "verbalizer_kv_cache_dtype": None,
        "verbalizer_cuda_graph_max_bs": None, "verbalizer_torch_compile": False,
        "verbalizer_device": "cpu", "reconstructor_available": True, "reconstructor_fp8": False,
        "reconstructor_int4": False, "reconstructor_device": "cpu",
        "source_model": "gemma-3-270m", "extraction_layer": 12, "source_truncated": False,
        "source_fp8": False, "source_device": "cpu", "completion_available": True,
        "num_cuda_devices": 0, "max_concurrent": 32, "max_concurrent_explains": 256,
        "source_max_concurrent": 1, "reconstructor_max_concurrent": 1,
        "max_describe_requests": 256,
        "limits": {
            "max_input_chars": 65536, "max_positions_per_request": 512, "max_new_tokens": 1024,
            "max_describe_batch": 512, "max_description_chars": 8192, "max_completion_tokens": 512,
        },
    },
    "alive": {"status": "ok", "version": "0.1.0", "pairs": ["demo"], "seconds": 12.5},
    "sources": {"sources": [{
        "modelId": "gemma-3-270m", "id": "demo", "displayName": "demo",
        "description": "a pair over gemma-3-270m, layer 12", "url": "", "author": "",
        "av": "demo/av", "ar": "demo/ar", "layerNum": 12, "norm": 26.035,
        "createdAt": "2026-11-28T14:22:47.458945Z",
        "model": {
            "id": "gemma-3-270m", "displayName": "gemma-3-270m", "openRouterAvailable": False
        },
        "d_model": 640,
    }]},
    "tokenize": {
        "tokens": [{**PARIS, "token": "<bos>", "token_id": 2, "position": 0},
                   {**PARIS, "token": "🐋", "token_id": 251485, "position": 1}],
        "prompt_length": 2, "text": "🐋",
    },
    "extract": {"layer_index": 12, "tokens": [{
        "token": " Paris", "token_id": 9079, "position": 6, "activation": [-21.5, -290.0, 15.125],
        "l2_norm": 11902.296,
    }]},
    "explain": {"layer_index": 12, "results": [RECORD]},
    "describe": {"results": [{**SCORES, "description": SAID}]},
    "score": {
        "mse": 0.155, "cosine_similarity": 0.922, "centred_cosine": 0.279, "fve": 0.317,
        "floor": SCORES["floor"],
    },
    "compare": {**SCORES, "description": SAID, "diff_norm": 13571.2},
    "completion": {"tokens": [PARIS, NEXT], "prompt_length": 1, "text": " Paris the"},
    "web_explain": {"layer_index": 12, "results": [RECORD], "prompt_length": 7},
    "web_completion": {
        "completion": " the", "full_text": " Paris the", "tokens": [PARIS, NEXT]
    },
    "steer": {
        "layer_index": 12, "original": "A passage on love.", "edited": "A passage on war.",
        "words": ["war"], "at": [7], "unsteered": " read. It was", "unsteered_log_p": -12.4,
        "unsteered_own_log_p": -1.6, "chance": 0.091,
        "sizes": [{
            "alpha": 0.5, "continuation": " fight. The war", "log_p": -9.2, "rise": 3.2,
            "gain": 14.8, "success": True, "next_log_p": -9.9, "own_log_p": -7.3,
            "random_log_p": [-25.1, -22.9], "random_own_log_p": [-20.4, -18.8],
            "random_continuations": [" the", " of"],
        }],
    },
    "reconstruct": {"layer_index": 12, "results": [{
        **NO_SCORES, "description": "The text is about France.",
        "reconstruction": [0.057, -0.006, 0.001],
    }]},
}  # fmt: skip


def documented(name: str, model: type[BaseModel], stream: bool = False) -> dict[str, Any]:
    """What the OpenAPI document says of a route: its answers, with examples."""
    content: dict[str, Any] = {"application/json": {}}
    if name in ANSWERS:
        content["application/json"]["example"] = ANSWERS[name]
    if stream:
        content["text/event-stream"] = {"schema": EVENT}
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
