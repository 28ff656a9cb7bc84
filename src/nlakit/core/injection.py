"""How the vector enters the AV. The one path for training, generation and log-probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from nlakit.errors import ContractError

if TYPE_CHECKING:  # a contract is read where no model is
    import torch


class Injection(BaseModel):
    """Where the vector enters, and how.

    embedding: the marker's embedding row is replaced. blocks: those whose outputs are changed at
    the marker's row: replaced by the injected direction at the norm `block_scale`, or, with `how`
    add, h becomes h + |h| v/|v| (norm-matched, as EasyNLA does behind block 1).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding: bool = True
    blocks: tuple[int, ...] = ()
    how: Literal["replace", "add"] = "replace"
    block_scale: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def plain(self) -> bool:
        """Whether the embedding row alone is replaced, which is all that the reference does."""
        return self.embedding and not self.blocks

    def described(self) -> str:
        """In words, for a line of a card or an error."""
        if self.plain:
            return "in place of the marker's embedding"
        blocks = named_blocks(self.blocks)
        if self.how == "add":
            return f"added at the norm of the marker's row behind {blocks}"
        first = "the marker's embedding and " if self.embedding else ""
        return f"in place of {first}the marker's row behind {blocks}"


# What EasyNLA and nanoNLA train.
NORM_MATCHED = Injection(embedding=False, blocks=(1,), how="add")


def named_blocks(blocks: tuple[int, ...]) -> str:
    """`block 1`, `blocks 0 to 12` or `blocks 0, 5`."""
    if len(blocks) == 1:
        return f"block {blocks[0]}"
    if blocks == tuple(range(blocks[0], blocks[-1] + 1)):
        return f"blocks {blocks[0]} to {blocks[-1]}"
    return f"blocks {', '.join(map(str, blocks))}"


def marker_rows(
    input_ids: torch.Tensor, marker: int, left: int, right: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch and token index `(count,)` of each marker in `input_ids` `(b, t)`.

    Raises ContractError unless there are `count` markers, one a row, each between its neighbours.
    """
    rows, columns = (input_ids == marker).nonzero(as_tuple=True)
    if len(rows) != count or len(rows.unique()) != count:
        raise ContractError(
            "the number of markers differs from the number of vectors",
            found=f"{len(rows)} markers in {len(input_ids)} rows, {count} vectors",
            do="one marker a prompt; texts must not contain the marker character",
        )
    inside = (columns > 0) & (columns < input_ids.shape[1] - 1)
    at = columns.clamp(1, input_ids.shape[1] - 2)
    ok = inside & (input_ids[rows, at - 1] == left) & (input_ids[rows, at + 1] == right)
    if not bool(ok.all()):
        bad = int((~ok).nonzero()[0])
        around = input_ids[rows[bad], max(int(columns[bad]) - 1, 0) : int(columns[bad]) + 2]
        raise ContractError(
            "the marker does not stand between its neighbours",
            found=f"{around.tolist()} instead of {[left, marker, right]}",
            do="the tokenizer differs from the one in nla_meta.yaml",
        )
    return rows, columns


def inject(
    hidden: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, vectors: torch.Tensor
) -> torch.Tensor:
    """A copy of `hidden` `(b, t, d)` with `[rows, columns]` replaced by `vectors` `(n, d)`."""
    changed = hidden.clone()
    changed[rows, columns] = vectors.to(changed.dtype).to(changed.device)
    return changed


def norm_matched(
    hidden: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, vectors: torch.Tensor
) -> torch.Tensor:
    """A copy of `hidden` `(b, t, d)` whose rows h at `[rows, columns]` are h + |h| v/|v|, in
    float32; v `(n, d)`, a zero v leaves its row as it is."""
    here = hidden[rows, columns].float()
    vectors = vectors.to(here)
    sizes = vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return inject(hidden, rows, columns, here + here.norm(dim=-1, keepdim=True) * vectors / sizes)
