"""Replace the marker's embedding row. The one path for training, generation and log-probs."""

from __future__ import annotations

import torch

from nlakit.errors import ContractError


def marker_rows(
    input_ids: torch.Tensor, marker: int, left: int, right: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch and token index `(count,)` of each marker in `input_ids` `(b, t)`.

    Raises ContractError unless there are `count` markers, one a row, each between its neighbours.
    """
    rows, columns = torch.nonzero(input_ids == marker, as_tuple=True)
    if len(rows) != count or len(torch.unique(rows)) != count:
        raise ContractError(
            "the number of markers differs from the number of vectors",
            found=f"{len(rows)} markers in {len(input_ids)} rows, {count} vectors",
            do="one marker a prompt; texts must not contain the marker character",
        )
    inside = (columns > 0) & (columns < input_ids.shape[1] - 1)
    at = columns.clamp(1, input_ids.shape[1] - 2)
    ok = inside & (input_ids[rows, at - 1] == left) & (input_ids[rows, at + 1] == right)
    if not bool(ok.all()):
        bad = int(torch.nonzero(~ok)[0])
        around = input_ids[rows[bad], max(int(columns[bad]) - 1, 0) : int(columns[bad]) + 2]
        raise ContractError(
            "the marker does not stand between its neighbours",
            found=f"{around.tolist()} instead of {[left, marker, right]}",
            do="the tokenizer differs from the one in nla_meta.yaml",
        )
    return rows, columns


def inject(
    embeddings: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, vectors: torch.Tensor
) -> torch.Tensor:
    """A copy of `embeddings` `(b, t, d)` with `[rows, columns]` replaced by `vectors` `(n, d)`."""
    changed = embeddings.clone()
    changed[rows, columns] = vectors.to(changed.dtype).to(changed.device)
    return changed
