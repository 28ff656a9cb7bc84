"""What a service must answer, as types; whatever is not of the type never becomes a label."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nlakit.core.text.lint import REFUSAL
from nlakit.data.labels.services.faults import Fault

Feature = Annotated[str, Field(min_length=1, max_length=400)]
Score = Annotated[int, Field(ge=1, le=5)]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


Kind = TypeVar("Kind", bound=BaseModel)


class LabelAnswer(Answer):
    """A label: two or three features, the last about the very end of the text."""

    features: list[Feature] = Field(min_length=2, max_length=3)


class Scores(Answer):
    integrated: Score
    specific: Score
    checkable: Score
    ending: Score

    @property
    def mean(self) -> float:
        return (self.integrated + self.specific + self.checkable + self.ending) / 4


class Verdict(Answer):
    """An audit. The reasons come first, so that the verdict follows from them."""

    reasons: str = Field(max_length=800)
    scores: Scores
    verdict: Literal["KEEP", "REVISE", "REJECT"]
    features: list[Feature] = Field(max_length=3)

    @model_validator(mode="after")
    def _revised(self) -> Self:
        if self.verdict == "REVISE" and len(self.features) < 2:
            raise ValueError("REVISE carries the two or three features of the new label")
        return self


@cache
def schema(kind: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of an answer, made once: it takes as long as half a request."""
    return kind.model_json_schema()


def parse(text: str, kind: type[Kind]) -> Kind:
    """The typed answer in a service's text. Raises Fault empty, unreadable, refusal or invalid."""
    if not text.strip():
        raise Fault("empty")
    bare = text.strip()
    if bare.startswith("```"):
        bare = bare.removeprefix("```").removeprefix("json").removesuffix("```")
    try:
        data = json.loads(bare)
        # Checked on what the escapes stand for: a lone surrogate cannot be stored or tokenised.
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Fault("unreadable", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Fault("refusal" if REFUSAL.search(text) else "invalid", str(error)) from error
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise Fault("invalid", str(error)) from error


def explanation(features: list[str]) -> str:
    """The features as one text, each a closed sentence."""
    sentences = (" ".join(feature.split()) for feature in features)
    return " ".join(
        sentence if sentence.endswith((".", "!", "?", ".”", '."', "…")) else f"{sentence}."
        for sentence in sentences
        if sentence
    )
