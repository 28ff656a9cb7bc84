"""The AR: explanation in, activation out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from nlakit.config.sections import LoraConfig
from nlakit.core.batches import batches_by_length, padded
from nlakit.core.contract import FILE, Contract
from nlakit.core.prompts import ar_ids, check_room, check_suffix
from nlakit.core.text.characters import cut_whole
from nlakit.errors import ContractError, ModelError
from nlakit.models.lora import read_tensors
from nlakit.models.precision import check_finite
from nlakit.models.subject import Subject, sliced_decoder
from nlakit.models.weights import adopt, load_trainable, save_trainable, saved_lora, trainable

HEAD_FILE = "head.safetensors"


def pad_right(rows: Sequence[Sequence[int]], fill: int, device: torch.device) -> torch.Tensor:
    """Token lists to `(b, t)`, filled on the right; t is a multiple of 8.

    Batches of few widths ask for blocks of memory of few sizes, and what one leaves free fits the
    next: on a CPU the resident memory of a training stays level, where it would otherwise grow by
    half.
    """
    width = padded(max(len(row) for row in rows))
    filled = [[*row, *[fill] * (width - len(row))] for row in rows]
    return torch.tensor(filled, dtype=torch.long, device=device)


class Reconstructor(nn.Module):
    """The subject's first blocks with adapters, no final norm, and a `Linear(d, d)` head.

    With `lora` None the blocks are a copy whose weights are all trained. The head starts as the
    identity and has no bias (one that is read from a file is kept); it reads the last token of
    the AR prompt.
    """

    def __init__(
        self, subject: Subject, contract: Contract, lora: LoraConfig | None, seed: int
    ) -> None:
        super().__init__()
        self.contract, self.tokenizer, self.device = contract, subject.tokenizer, subject.device
        contract.check_width(subject.d_model, "the subject")
        contract.check_bos(subject.config.bos)
        contract.check_tokenizer(subject.tokenizer)
        self.suffix, self.precision = contract.tokens.critic_suffix_ids, subject.config.precision
        if contract.ar_blocks > subject.blocks:
            raise ModelError(
                "the AR cannot be deeper than the subject",
                found=f"{contract.ar_blocks} blocks of {subject.blocks}",
                do=f"set --ar-blocks, or ar.blocks of the configuration, to 1 to {subject.blocks}",
            )
        self.positions = subject.positions
        blocks = sliced_decoder(subject.model, contract.ar_blocks)
        self.decoder: Any = trainable(blocks, lora, seed)
        self.head = nn.Linear(subject.d_model, subject.d_model, bias=False, device=self.device)
        nn.init.eye_(self.head.weight)

    def encode(self, explanation: str, max_tokens: int) -> list[int]:
        """Prompt ids of an explanation; one that is too long for `max_tokens`, or for the subject,
        is cut behind a whole character, never the suffix.

        Raises ContractError if the ids do not end in the suffix of the contract, ConfigError if
        `max_tokens` leaves no room for more than the suffix.
        """
        template = self.contract.prompt_templates.ar
        bos = self.contract.nlakit.ar_bos
        ids = ar_ids(self.tokenizer, template, explanation.strip(), bos)
        check_suffix(ids, self.suffix)
        max_tokens = min(max_tokens, self.positions or max_tokens)
        check_room(max_tokens, len(self.suffix), "the suffix of the AR prompt")
        if len(ids) > max_tokens:
            ids = cut_whole(self.tokenizer, ids, max_tokens - len(self.suffix)) + list(self.suffix)
        return ids

    def forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Prompt ids, b rows, to reconstructions `(b, d)` in float32 (only their direction
        counts)."""
        ids = pad_right(rows, 0, self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        mask = (torch.arange(ids.shape[1], device=self.device)[None] < lengths[:, None]).long()
        hidden = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        last = hidden[torch.arange(len(rows), device=self.device), lengths - 1]
        return self.head(last.float())

    @torch.no_grad()
    def reconstruct(
        self, texts: Sequence[str], *, tokens_per_batch: int = 2048, max_tokens: int | None = None
    ) -> NDArray[np.float32]:
        """Reconstructions `(n, d)` of n explanations, in their order.

        Raises DataError if a number of them is not finite.
        """
        limit = max_tokens or self.contract.nlakit.max_tokens
        rows = [self.encode(text, limit) for text in texts]
        made = np.zeros((len(rows), self.contract.d_model), dtype=np.float32)
        for picked in batches_by_length([len(row) for row in rows], tokens_per_batch):
            found = self([rows[row] for row in picked])
            check_finite(found, "reconstructions", self.precision)
            made[picked] = found.cpu().numpy()
        return made

    def save(self, folder: Path, head_dtype: torch.dtype = torch.bfloat16) -> None:
        """Adapter or own weights, head and sidecar. Shared blocks themselves are never saved."""
        folder.mkdir(parents=True, exist_ok=True)
        save_trainable(self.decoder, folder)
        state = {name: tensor.to(head_dtype).cpu() for name, tensor in self.head_state().items()}
        save_file(state, folder / HEAD_FILE)
        self.contract.write(folder / FILE)

    @classmethod
    def load(cls, subject: Subject, contract: Contract, folder: Path) -> Reconstructor:
        """Load what `save` wrote; ContractError if it does not fit the subject."""
        made = cls(subject, contract, saved_lora(folder), seed=0)
        load_trainable(made.decoder, folder)
        made.set_head(read_tensors(folder / HEAD_FILE), str(folder))
        return made.eval()

    def adopt(self, folder: Path) -> None:
        """Go on from another AR's weights and head; the contract names it as the parent."""
        adopt(self.decoder, self.contract, folder)
        self.set_head(read_tensors(folder / HEAD_FILE), str(folder))

    def head_state(self) -> dict[str, torch.Tensor]:
        """`weight` `(d, d)`, and `bias` `(d,)` if there is one."""
        return {name: t.detach().contiguous() for name, t in self.head.state_dict().items()}

    def set_head(self, found: Mapping[str, torch.Tensor], where: str) -> None:
        """Take over the head's weight and bias; a bias of zeros is none.

        Raises ContractError if they are anything but a `Linear(d, d)`.
        """
        size = self.contract.d_model
        shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
        if shapes not in ({"weight": (size, size)}, {"weight": (size, size), "bias": (size,)}):
            raise ContractError(
                f"the head in {where} does not fit",
                found=shapes or "no tensors",
                do=f"it must hold weight ({size}, {size}) and at most a bias ({size},)",
            )
        with torch.no_grad():
            self.head.weight.copy_(found["weight"].float())
        bias = found.get("bias")
        if bias is not None and bool(bias.any()):
            self.head.bias = nn.Parameter(bias.detach().float().to(self.device))
