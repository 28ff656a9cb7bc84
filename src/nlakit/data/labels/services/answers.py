"""What a service must answer, as types; whatever is not of the type never becomes a label."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nlakit.core.text.lint import REFUSAL
from nlakit.data.labels.services.faults import Fault

Feature = Annotated[str, Field(min_length=1, max_length=400)]
Score = Annotated[int, Field(ge=1, le=5)]
MOST_TRIES = 100  # braces at which a JSON object is looked for
MOST_ROUNDS = 3  # mending may uncover more


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


Kind = TypeVar("Kind", bound=BaseModel)


@dataclass(frozen=True)
class Parsed(Generic[Kind]):
    """A typed answer; repaired: as it came, it did not have the form."""

    value: Kind
    repaired: bool


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


def parse(text: str, kind: type[Kind]) -> Parsed[Kind]:
    """The typed answer in a service's text: the JSON object that it is, or the last one of the kind
    that stands in it. Raises Fault empty, unreadable, refusal or invalid."""
    if not text.strip():
        raise Fault("empty")
    bare = text.strip()
    if bare.startswith("```"):
        bare = bare.removeprefix("```").removeprefix("json").removesuffix("```")
    problem: Exception | None = None
    try:
        found, around = [json.loads(bare)], False
    except (ValueError, RecursionError) as error:
        found, around, problem = list(objects_in(text)), True, error
    for data in reversed(found):
        try:
            # Checked on what the escapes stand for: a lone surrogate cannot be stored or tokenised.
            json.dumps(data, ensure_ascii=False).encode()
            value, mended = _typed(data, kind)
            return Parsed(value, around or mended)
        except UnicodeEncodeError as error:
            raise Fault("unreadable", str(error)) from error
        except ValidationError as error:
            problem = error
    refused = around and REFUSAL.search(text)
    raise Fault("refusal" if refused else "invalid", str(problem)) from problem


def objects_in(text: str) -> Iterator[Any]:
    """The JSON objects in a text, one after the other."""
    decoder, at = json.JSONDecoder(), text.find("{")
    for _ in range(MOST_TRIES):
        if at < 0:
            return
        try:
            found, end = decoder.raw_decode(text, at)
            yield found
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)


def _typed(data: Any, kind: type[Kind]) -> tuple[Kind, bool]:
    """Data as a kind of answer, and whether it had to be mended. Raises ValidationError."""
    for rounds in range(MOST_ROUNDS):
        try:
            return kind.model_validate(data), rounds > 0
        except ValidationError as error:
            data = copy.deepcopy(data)
            if not sum(_mend(data, one) for one in error.errors(include_url=False)):
                raise
    return kind.model_validate(data), True


def _mend(data: Any, error: Any) -> bool:
    """Mend, in place, what is plainly meant: a number where a text belongs, more items than are
    taken, a key of the service's own. Returns whether this is such an error."""
    if not error["loc"]:
        return False
    *path, last = error["loc"]
    given = error["input"]
    try:
        for step in path:
            data = data[step]
        if error["type"] == "string_type" and type(given) in (int, float):
            data[last] = str(given)
        elif error["type"] == "too_long" and isinstance(given, list):
            data[last] = data[last][: error["ctx"]["max_length"]]
        elif error["type"] == "extra_forbidden":
            del data[last]
        else:
            return False
    except (LookupError, TypeError):  # the place has a name that is not in the data
        return False
    return True


def explanation(features: list[str]) -> str:
    """The features as one text, each a closed sentence."""
    sentences = (" ".join(feature.split()) for feature in features)
    return " ".join(
        sentence if sentence.endswith((".", "!", "?", ".”", '."', "…")) else f"{sentence}."
        for sentence in sentences
        if sentence
    )
