"""The AR: explanation in, activation out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from nlakit.config import LoraConfig
from nlakit.core.contract import FILE, Contract
from nlakit.core.prompts import check_suffix, encode
from nlakit.errors import ContractError
from nlakit.models.lora import (
    add_lora,
    adopt_adapter,
    load_adapter,
    read_lora_config,
    read_tensors,
    save_adapter,
)
from nlakit.models.subject import Subject, sliced_decoder

HEAD_FILE = "head.safetensors"


def pad_right(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> torch.Tensor:
    """Token lists to `(b, t)`, filled on the right."""
    width = max(len(row) for row in rows)
    padded = [[*row, *[fill] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.long, device=device)


class Reconstructor(nn.Module):
    """The subject's first blocks with adapters, no final norm, and a `Linear(d, d)` head.

    The head starts as the identity and has no bias; it reads the last token of the AR prompt.
    """

    def __init__(self, subject: Subject, contract: Contract, lora: LoraConfig, seed: int) -> None:
        super().__init__()
        self.contract, self.tokenizer, self.device = contract, subject.tokenizer, subject.device
        contract.check_width(subject.d_model, "the subject")
        contract.check_tokenizer(subject.tokenizer)
        self.suffix = contract.tokens.critic_suffix_ids
        self.decoder: Any = add_lora(sliced_decoder(subject.model, contract.ar_blocks), lora, seed)
        self.head = nn.Linear(subject.d_model, subject.d_model, bias=False, device=self.device)
        nn.init.eye_(self.head.weight)

    def encode(self, explanation: str, max_tokens: int) -> list[int]:
        """Prompt ids of an explanation; a long explanation is cut, never the suffix.

        Raises ContractError if the ids do not end in the suffix of the contract.
        """
        ids = encode(self.tokenizer, self.contract.ar_prompt(explanation.strip()), special=True)
        check_suffix(ids, self.suffix)
        if len(ids) > max_tokens:
            ids = ids[: max_tokens - len(self.suffix)] + list(self.suffix)
        return ids

    def forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Prompt ids, b rows, to reconstructions `(b, d)` in float32 (direction only counts)."""
        ids = pad_right(rows, 0, self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = (torch.arange(ids.shape[1], device=self.device)[None] < lengths[:, None]).long()
        hidden = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        last = hidden[torch.arange(len(rows), device=self.device), lengths - 1]
        return self.head(last.float())

    @torch.no_grad()
    def reconstruct(
        self, texts: Sequence[str], *, tokens_per_batch: int = 4096, max_tokens: int = 256
    ) -> NDArray[np.float32]:
        """Reconstructions `(n, d)` of n explanations, in their order."""
        rows = [self.encode(text, max_tokens) for text in texts]
        made = np.zeros((len(rows), self.contract.d_model), dtype=np.float32)
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end - start + 1) * len(rows[order[end]]) <= max(
                tokens_per_batch, len(rows[order[end]])
            ):
                end += 1
            picked = order[start:end]
            made[picked] = self([rows[row] for row in picked]).cpu().numpy()
            start = end
        return made

    def save(self, folder: Path) -> None:
        """Adapter, head (bfloat16) and sidecar. The sliced blocks themselves are never saved."""
        folder.mkdir(parents=True, exist_ok=True)
        save_adapter(self.decoder, folder)
        weight = self.head.weight.detach().to(torch.bfloat16).cpu().contiguous()
        save_file({"weight": weight}, folder / HEAD_FILE)
        self.contract.write(folder / FILE)

    @classmethod
    def load(cls, subject: Subject, contract: Contract, folder: Path) -> Reconstructor:
        """Load what `save` wrote; ContractError if it does not fit the subject."""
        made = cls(subject, contract, read_lora_config(folder), seed=0)
        load_adapter(made.decoder, folder)
        made._load_head(folder)
        return made.eval()

    def adopt(self, folder: Path) -> None:
        """Go on from another AR's adapter and head; the contract names it as the parent."""
        adopt_adapter(self.decoder, self.contract, folder)
        self._load_head(folder)

    def _load_head(self, folder: Path) -> None:
        weight = read_tensors(folder / HEAD_FILE).get("weight")
        if weight is None or weight.shape != self.head.weight.shape:
            raise ContractError(
                f"the head in {folder} does not fit",
                found=None if weight is None else tuple(weight.shape),
                do=f"it must be {tuple(self.head.weight.shape)}",
            )
        with torch.no_grad():
            self.head.weight.copy_(weight.float())
