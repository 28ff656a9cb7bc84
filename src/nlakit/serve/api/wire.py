"""What goes over the wire, in the words of Neuronpedia's inference server and its web interface.

Names, types, defaults and bounds are those of their schema, so that a client of theirs works
unchanged; what nlakit adds is optional in requests and stands beside theirs in answers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nlakit.serve.pairs import Scored

CHARACTERS = 65_536
POSITIONS = 512
NEW_TOKENS = 1024
MOST_COMPLETED = 512
DESCRIPTION = 8192
WIDTH = 65_536

Text = Annotated[str, Field(max_length=CHARACTERS)]
Description = Annotated[str, Field(max_length=DESCRIPTION)]
Vector = Annotated[list[float], Field(min_length=1, max_length=WIDTH)]
Temperature = Annotated[float, Field(ge=0, le=5, description="0 is greedy.")]
NewTokens = Annotated[
    int, Field(gt=0, le=NEW_TOKENS, description="At most; never beyond the pair's own limit.")
]
Seed = Annotated[
    int, Field(ge=0, lt=2**31, description="Of the draws. The same request has the same answer.")
]
CompletionTokens = Annotated[
    int, Field(ge=1, le=2**31, description=f"At most {MOST_COMPLETED} are written.")
]
SpecialTokens = Annotated[
    Literal["parse", "text"],
    Field(description="Whether a `<eos>` in the text is that token, or letters."),
]


class Wire(BaseModel):
    """Numbers are finite."""

    model_config = ConfigDict(protected_namespaces=(), allow_inf_nan=False)


class Message(Wire):
    role: str = Field(max_length=64, description="user, assistant, system, ...")
    content: Text = ""
    channel: str | None = Field(None, max_length=64)


class TextRequest(Wire):
    """A text, or the messages of a conversation, which the subject's template turns into one."""

    text: Text | None = None
    messages: list[Message] | None = Field(None, max_length=1024)
    add_generation_prompt: bool | None = True
    continue_final_message: bool = False
    enable_thinking: bool | None = None
    special_tokens: SpecialTokens = "parse"


class ExplainRequest(TextRequest):
    positions: list[int] | None = Field(
        None, max_length=POSITIONS,
        description="Token positions, negative ones from the end; all unless given.",
    )  # fmt: skip
    temperature: Temperature = 0.7
    max_new_tokens: NewTokens = 200
    reverse: bool = Field(True, description="Last position first.")
    stream: bool = Field(False, description="Server-sent events.")
    seed: Seed = 0


class DescribeRequest(Wire):
    activations: list[Vector] = Field(min_length=1, max_length=POSITIONS)
    temperature: Temperature = 0.7
    max_new_tokens: NewTokens = 200
    stream: bool = False
    seed: Seed = 0


class ScoreRequest(Wire):
    description: Description
    activation: Vector


class CompareRequest(Wire):
    activation_a: Vector
    activation_b: Vector
    temperature: Temperature = 0.7
    max_new_tokens: NewTokens = 200
    seed: Seed = 0


class CompletionRequest(TextRequest):
    completion_tokens: CompletionTokens = 16
    temperature: Temperature = 0.7
    stream: bool = False
    seed: Seed = 0


class Floor(Wire):
    """What the reconstructor scores on the same vector when it has read nothing."""

    mse: float
    cosine_similarity: float
    centred_cosine: float | None = None
    fve: float | None = None


class Scores(Wire):
    """null without a reconstructor; `centred_cosine` and `fve` also for a pair that stores no mean
    unit vector."""

    mse: float | None = Field(None, description="2 − 2 cos, from 0 to 4.")
    cosine_similarity: float | None = None
    centred_cosine: float | None = Field(
        None, description="The cosine of what differs from the mean: about 0 tells nothing."
    )
    fve: float | None = Field(None, description="Fraction of variance explained, of this row.")
    floor: Floor | None = Field(None, description="The same scores of an empty text.")


class TokenPlace(Wire):
    token: str
    token_id: int
    position: int


class Fragment(Wire):
    """Tokens that make up one character bear it together."""

    fragment_index: int = 0
    fragment_count: int = 1


class Span(Wire):
    """Where a token of a conversation belongs; null in a plain text."""

    role: str | None = None
    section: str | None = Field(None, description="header, content, thinking, footer or scaffold")
    channel: str | None = None
    message_index: int | None = None


class TokenInfo(Span, Fragment, TokenPlace):
    pass


class TokenizeResponse(Wire):
    tokens: list[TokenInfo]
    prompt_length: int
    text: str


class TokenActivation(TokenPlace):
    activation: list[float]
    l2_norm: float


class ExtractResponse(Wire):
    layer_index: int
    tokens: list[TokenActivation]


class ExplainResult(Scores, Span, Fragment, TokenPlace):
    l2_norm: float
    description: str
    generated: bool = False


class ExplainResponse(Wire):
    layer_index: int
    results: list[ExplainResult]


class DescriptionResult(Scores):
    description: str


class DescribeResponse(Wire):
    results: list[DescriptionResult]


class CompareResponse(Scores):
    description: str
    diff_norm: float


class Refusal(Wire):
    """Every answer that is not 200."""

    error: str
    detail: str | list[dict[str, object]]


class Limits(Wire):
    max_input_chars: int = CHARACTERS
    max_positions_per_request: int = POSITIONS
    max_new_tokens: int = NEW_TOKENS
    max_describe_batch: int = POSITIONS
    max_description_chars: int = DESCRIPTION
    max_completion_tokens: int = MOST_COMPLETED


class ServerHealth(Wire):
    """What Neuronpedia's clients ask of an inference server; null is what nlakit does not have."""

    status: str = "ok"
    verbalizer_model: str
    d_model: int
    verbalizer_quantization: str | None = None
    verbalizer_kv_cache_dtype: str | None = None
    verbalizer_cuda_graph_max_bs: int | None = None
    verbalizer_torch_compile: bool = False
    verbalizer_device: str
    reconstructor_available: bool
    reconstructor_fp8: bool = False
    reconstructor_int4: bool = False
    reconstructor_device: str | None
    source_model: str
    extraction_layer: int
    source_truncated: bool = False
    source_fp8: bool = False
    source_device: str
    completion_available: bool = True
    num_cuda_devices: int
    max_concurrent: int
    max_concurrent_explains: int
    source_max_concurrent: int = 1
    reconstructor_max_concurrent: int = 1
    max_describe_requests: int
    limits: Limits = Limits()


def scores_of(found: Scored | None) -> dict[str, object]:
    """The fields of `Scores`."""
    if found is None:
        return {}
    both = [
        {
            "mse": one.mse,
            "cosine_similarity": one.cosine,
            "centred_cosine": one.centred_cosine,
            "fve": one.fve,
        }
        for one in (found.score, found.floor)
    ]
    return {**both[0], "floor": both[1]}
