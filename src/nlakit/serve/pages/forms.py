"""What a browser posts: read within limits, from this page alone, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nlakit.errors import DataError

BODY = 2_000_000  # bytes
FIELDS = 8_192
LETTERS = 100_000  # of a text
SIDES = ("a", "b")


class Refused(DataError):
    """A request that this page does not send."""


class Pane(BaseModel):
    """One side of the page, as a link keeps it. explained: token positions."""

    model_config = ConfigDict(extra="ignore")

    pair: str = ""
    kind: str = "text"
    text: str = Field(default="", max_length=LETTERS)
    chosen: int | None = None
    explained: list[int] = Field(default_factory=list, max_length=FIELDS)
    edited: str = Field(default="", max_length=LETTERS)


class View(BaseModel):
    """What a link restores."""

    panes: list[Pane] = Field(min_length=1, max_length=2)


class Fields:
    """Posted fields by name; a name may have several values."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self.values = values

    def all(self, name: str) -> list[str]:
        return [text.replace("\r\n", "\n") for text in self.values.get(name, [])]

    def get(self, name: str, default: str = "") -> str:
        return next(iter(self.all(name)), default)

    def number(self, name: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number from low to high; DataError for anything else."""
        given = self.get(name, "" if default is None else str(default))
        # More digits than any count has would take long to read.
        if len(given) < 10 and given.removeprefix("-").isdecimal() and low <= int(given) <= high:
            return int(given)
        raise DataError(
            f"{name} is no whole number from {low} to {high}",
            found=repr(given[:40]),
            do=f"give one from {low} to {high}",
        )

    def numbers(self, name: str) -> list[int]:
        """Every whole number of a name; what is none is passed over."""
        return [int(one) for one in self.all(name) if one.isdecimal() and len(one) < 10]

    @property
    def side(self) -> str:
        side = self.get("side", "a")
        return side if side in SIDES else "a"


async def posted(request: Request) -> Fields:
    """The fields of a form. Raises Refused for one that another site sent, DataError for one that
    is too large or no text.

    A browser names the site of the page that posts: without this check any page that is open in it
    could make a service on this machine work.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise Refused("this form was sent by another site", do="use the explorer's own page")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY:
            raise DataError(
                "the form is too large", found=f"over {BODY:,} bytes", do="send a shorter text"
            )
    try:
        return Fields(parse_qs(body.decode(), keep_blank_values=True, max_num_fields=FIELDS))
    except ValueError as error:
        raise DataError(
            "the form cannot be read",
            found="no UTF-8, or too many fields",
            do="send it as the page does",
        ) from error


def view_of(text: str) -> View:
    """The view that a link holds; DataError if it holds none."""
    try:
        return View.model_validate_json(text)
    except ValidationError as error:
        raise DataError(
            "the link holds no view of the explorer", do="copy the link again"
        ) from error
