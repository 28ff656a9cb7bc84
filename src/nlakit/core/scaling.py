"""What is injected: which direction, at which norm, and the gate on that norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlakit.errors import ModelError

if TYPE_CHECKING:  # a contract is read where no model is
    import torch

GATE = 20.0


@dataclass(frozen=True)
class Scaling:
    """Injected vector = scale · direction(h); direction is u, or u − ū made unit if centred.

    `scale` None injects the raw activation.
    """

    scale: float | None
    centred: bool

    def apply(self, vectors: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Raw activations `(n, d)` and ū `(d,)` to injected vectors `(n, d)`, float32."""
        from torch.nn.functional import normalize

        vectors = vectors.float()
        if self.scale is None and not self.centred:
            return vectors
        u = normalize(vectors, dim=-1)
        if self.centred:
            u = normalize(u - mean.float(), dim=-1)
        return u * (self.scale if self.scale is not None else vectors.norm(dim=-1, keepdim=True))


def check_scale(scale: float, embedding_norm: float, activation_norm: float) -> dict[str, float]:
    """Ratios of the injection scale to the two measured norms.

    Raises ModelError if the scale is more than 20 times away from both: such vectors make the AV
    write empty or constant text.
    """
    ratios = {
        "to_embedding_norm": scale / embedding_norm,
        "to_activation_norm": scale / activation_norm,
    }
    if all(not 1 / GATE <= ratio <= GATE for ratio in ratios.values()):
        raise ModelError(
            f"the injection scale {scale:g} is far from every norm of the subject",
            found=f"embedding norm {embedding_norm:.4g} (ratio {ratios['to_embedding_norm']:.4g}), "
            f"activation norm {activation_norm:.4g} (ratio {ratios['to_activation_norm']:.4g})",
            do="use av.scale: embedding, or set av.allow_any_scale",
        )
    return ratios
