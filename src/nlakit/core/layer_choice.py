"""Which layer to take: what lies far below its neighbours, what cannot be told apart, and why that
layer.

All comparisons are paired by row, with intervals over documents. The rule is in docs/layers.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.statistics import Estimate, estimate, paired_difference
from nlakit.errors import ConfigError, DataError

FAR_BELOW = 0.6
MOST = 10_000  # no model is as deep
SPAN = re.compile(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?")


def layers_named(asked: str) -> list[int]:
    """Numbers and spans like `0,4,8-12`, ascending. Raises ConfigError for anything else."""
    found: set[int] = set()
    for name in asked.split(","):
        one = SPAN.fullmatch(name, endpos=12)
        first, last = (int(one[1]), int(one[2] or one[1])) if one else (1, 0)
        if not first <= last < MOST:
            raise ConfigError(
                "--layers takes numbers and spans", found=repr(asked), do="for example 0,4,8-12"
            )
        found |= set(range(first, last + 1))
    return sorted(found)


@dataclass(frozen=True)
class Compared:
    """One measure of several layers on the same n rows.

    documents: one for each row. values: layer → `(n,)`, higher is better. floor: the mean that a
    layer without the information has.
    """

    name: str
    documents: Sequence[str]
    values: Mapping[int, NDArray[np.floating]]
    floor: float = 0.0

    def mean(self, layer: int) -> float:
        return float(np.mean(self.values[layer]))

    def estimate(self, layer: int) -> Estimate:
        return estimate(self.values[layer], self.documents)

    def far_below(self, layer: int, other: int) -> bool:
        """Whether `layer` is under 60% of `other`, with an interval that says so."""
        if self.mean(other) <= self.floor:
            return False
        short = paired_difference(
            FAR_BELOW * self.values[other], self.values[layer], self.documents
        )
        return short.low > 0

    def tied(self, best: int, layers: Sequence[int]) -> list[int]:
        """Those of `layers` whose difference to `best` has an interval that touches 0."""
        return [
            layer
            for layer in layers
            if paired_difference(self.values[best], self.values[layer], self.documents).low <= 0
        ]


def two_thirds(blocks: int) -> int:
    """The block at two thirds of the depth."""
    return 2 * blocks // 3


def warnings(measures: Sequence[Compared]) -> list[dict[str, Any]]:
    """An entry for each layer and measure far below the better of the measured layers beside it."""
    found = []
    for measure in measures:
        layers = sorted(measure.values)
        for place, layer in enumerate(layers):
            beside = layers[max(place - 1, 0) : place] + layers[place + 1 : place + 2]
            if not beside:
                continue
            best = max(beside, key=measure.mean)
            if measure.far_below(layer, best):
                own, other = measure.mean(layer), measure.mean(best)
                text = (
                    f"layer {layer}: {measure.name} {own:.3f} is far below the {other:.3f} of "
                    f"layer {best} beside it"
                )
                entry = {"layer": layer, "measure": measure.name, "value": own}
                found.append({**entry, "neighbour": best, "neighbour_value": other, "text": text})
    return found


def recommend(measure: Compared, blocks: int, warned: Collection[int]) -> dict[str, Any]:
    """One layer with its reason.

    Among the layers without a warning, those that cannot be told apart from the one with the
    highest mean; among these, the nearest to two thirds of the depth, or the deeper of two. `layer`
    is None if the highest mean is not above the floor. Raises DataError if nothing was measured.
    """
    layers = sorted(measure.values)
    if not layers:
        raise DataError(f"no layer has a {measure.name}", do="measure at least one layer")
    usable = [layer for layer in layers if layer not in warned] or layers
    best, middle = max(usable, key=measure.mean), two_thirds(blocks)
    top = measure.estimate(best)
    made: dict[str, Any] = {"layer": None, "two_thirds": middle, "by": measure.name, "best": best}
    if top.low <= measure.floor:
        reason = (
            f"no layer can be recommended: the highest {measure.name}, {_shown(top)} of layer "
            f"{best}, does not stay above its floor {measure.floor:.3f}; two thirds of the depth "
            f"is layer {middle}"
        )
        return {**made, "tied": [], "reason": reason}
    tied = measure.tied(best, usable)
    layer = min(tied, key=lambda k: (abs(k - middle), -k))
    reason = _why(measure, layer, best, tied) + _default(measure, layer, middle)
    return {**made, "layer": layer, "tied": tied, "reason": reason}


def _shown(found: Estimate) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _why(measure: Compared, layer: int, best: int, tied: Sequence[int]) -> str:
    own = f"{measure.name} {_shown(measure.estimate(layer))}"
    if len(measure.values) == 1:
        return f"layer {layer}: the only one measured, with a {own}"
    if len(tied) == 1:
        return f"layer {layer}: the highest {own}, beyond every other layer without a warning"
    highest = _shown(measure.estimate(best))
    rank = (
        f"the highest {own}" if layer == best else f"{own}; layer {best} has the highest, {highest}"
    )
    return (
        f"layer {layer}: {rank}; layers {listed(tied)} cannot be told apart on these rows, and "
        f"{layer} is the nearest of them to the usual depth"
    )


def _default(measure: Compared, layer: int, middle: int) -> str:
    """What two thirds of the depth would have been."""
    if layer == middle:
        return f"; layer {middle} is at two thirds of the depth"
    if middle not in measure.values:
        return f"; two thirds of the depth, layer {middle}, was not measured"
    far = ", far below" if measure.far_below(middle, layer) else ""
    return (
        f"; two thirds of the depth would have been layer {middle} with "
        f"{measure.mean(middle):.3f}{far}"
    )


def listed(layers: Sequence[int]) -> str:
    """0–2, 5: runs of neighbours joined."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
