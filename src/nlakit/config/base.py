"""What all settings share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

# Bounds on both sides of every number: what no run can use is refused when it is read, and not by
# a later stage. Two bounds rule out NaN and infinity as well.
MOST = 2**31 - 1  # a count or a position is an int32 in tables
LARGEST = 1e9  # for measures without a natural limit
Positive = Annotated[int, Field(gt=0, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=LARGEST)]
Measure = Annotated[float, Field(gt=0.0, le=LARGEST)]
Temperature = Annotated[float, Field(gt=0.0, le=100.0)]


class Section(BaseModel):
    """Base of all settings: immutable, and a misspelt key is an error, not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
