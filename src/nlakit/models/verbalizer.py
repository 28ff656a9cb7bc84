"""The AV: activation in, explanation out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nlakit.config.sections import LoraConfig
from nlakit.core.batches import batches_by_length
from nlakit.core.contract import FILE, Contract
from nlakit.core.injection import inject, marker_rows, norm_matched
from nlakit.core.prompts import check_room, encode
from nlakit.core.text.characters import cut_whole
from nlakit.errors import ContractError, DataError
from nlakit.models.decode import Decoding, Running, Text
from nlakit.models.families import active_stream, changed_output
from nlakit.models.head import head_of
from nlakit.models.reconstructor import pad_right
from nlakit.models.subject import Subject, blocks_of, decoder_of, shared_copy
from nlakit.models.weights import adopt, load_trainable, save_trainable, saved_lora, trainable


class Verbalizer(nn.Module):
    """The whole subject with adapters; the marker's row carries the activation.

    With `lora` None it is a copy whose weights are all trained. mean: ū `(d,)`, subtracted from
    unit vectors if the contract says so; None where it is not known and not needed.
    """

    def __init__(
        self,
        subject: Subject,
        contract: Contract,
        mean: NDArray[Any] | None,
        lora: LoraConfig | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.contract, self.tokenizer, self.device = contract, subject.tokenizer, subject.device
        contract.check_width(subject.d_model, "the subject")
        if mean is None and contract.nlakit.centring != "none":
            raise ContractError(
                "the AV was trained on centred vectors and its mean unit vector is missing",
                do="copy mean_unit.safetensors beside its nla_meta.yaml",
            )
        mean = np.zeros(contract.d_model) if mean is None else mean
        contract.check_width(len(mean), "the mean unit vector")
        contract.check_bos(subject.config.bos)
        contract.check_tokenizer(subject.tokenizer)
        self.mean = torch.as_tensor(np.asarray(mean), dtype=torch.float32, device=self.device)
        self.model: Any = trainable(shared_copy(subject.model), lora, seed)
        model = self.model if lora is None else self.model.get_base_model()
        self.decoder: Any = decoder_of(model)
        self.prompt = encode(self.tokenizer, contract.av_prompt(), special=True, parse=True)
        self.close = encode(self.tokenizer, contract.nlakit.av_close, special=False, parse=True)
        self.positions = subject.positions
        self._pending: torch.Tensor | None = None
        # Rows, columns and vectors for the blocks of the forward that runs. Blocks that are
        # recomputed in the backward pass need them again, so they stay until the next forward.
        self._placed: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        model.get_input_embeddings().register_forward_hook(self._at_embedding)
        self._hook_blocks()

    def _hook_blocks(self) -> None:
        injection, blocks = self.contract.injection, blocks_of(self.decoder)
        if beyond := [at for at in injection.blocks if at >= len(blocks)]:
            raise ContractError(
                "the vector enters behind a block that the subject does not have",
                found=f"block {beyond[0]} of {len(blocks)}",
                do="set av.injection_blocks to blocks that it has",
            )
        for at in injection.blocks:
            blocks[at].register_forward_hook(self._at_block)

    def _at_embedding(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> Any:
        self._placed = None
        ids, vectors, tokens = args[0], self._pending, self.contract.tokens
        # A decode step: the marker lies in the cache already, and one that was sampled is text.
        if vectors is None or ids.shape[1] == 1:
            return None
        rows, columns = marker_rows(
            ids,
            tokens.injection_token_id,
            tokens.injection_left_neighbor_id,
            tokens.injection_right_neighbor_id,
            len(vectors),
        )
        order = torch.argsort(rows)
        rows, columns = rows[order], columns[order]
        self._placed = rows, columns, self._behind_blocks(vectors)
        here = self.contract.injection.embedding
        return inject(output, rows, columns, vectors) if here else None

    def _behind_blocks(self, vectors: torch.Tensor) -> torch.Tensor:
        """The same directions at the norm of blocks; what is added takes the norm of its row."""
        norm, scale = self.contract.injection.block_scale, self.contract.scaling.scale
        return vectors * (norm / scale) if norm and scale else vectors

    def _at_block(self, module: nn.Module, args: Any, output: Any) -> Any:
        """A block's output with the marker's row changed; of several streams the active one."""
        if self._placed is None:
            return None
        placed = self._placed
        change = norm_matched if self.contract.injection.how == "add" else inject
        return changed_output(output, active_stream(self.decoder), lambda h: change(h, *placed))

    @contextmanager
    def injecting(self, injected: torch.Tensor | None) -> Iterator[None]:
        """Forwards inside the body take in `injected` `(b, d)` at the marker's rows; None leaves
        these as they are (the no-injection control)."""
        self._pending = injected
        try:
            yield
        finally:
            self._pending = None

    def scaled(
        self, vectors: NDArray[Any] | torch.Tensor, mean: NDArray[Any] | None = None
    ) -> torch.Tensor:
        """Raw activations `(n, d)` to injected vectors `(n, d)` on the AV's device. mean: ū `(d,)`
        of their layer, where it is another than the AV's.

        Raises ContractError for another width, DataError for zero or non-finite rows.
        """
        raw = torch.as_tensor(np.asarray(vectors), dtype=torch.float32, device=self.device)
        self.contract.check_width(raw.shape[-1], "the vectors")
        norms = raw.norm(dim=-1)
        if not bool((torch.isfinite(norms) & (norms > 0)).all()):
            raise DataError(
                "vectors without a direction (zero or not finite)",
                found=f"{int((~(torch.isfinite(norms) & (norms > 0))).sum())} of {len(raw)} rows",
                do="drop these rows",
            )
        own = self.mean if mean is None else torch.as_tensor(mean, device=self.device)
        return self.contract.scaling.apply(raw, own)

    def response_ids(self, explanation: str, max_tokens: int) -> list[int]:
        """Token ids that follow the prompt: the explanation (behind the opening tag, where the AV
        writes that itself), cut behind a whole character if long, and the closing tag.

        Raises ConfigError if `max_tokens` leaves no room between the prompt and the tag.
        """
        max_tokens = min(max_tokens, self.positions or max_tokens)
        taken = len(self.prompt) + len(self.close)
        check_room(max_tokens, taken, "the AV prompt and the closing tag")
        # Encoded apart, so that the tag never merges with the text before it.
        text = self.contract.nlakit.av_open + explanation.strip()
        ids = encode(self.tokenizer, text, special=False)
        return cut_whole(self.tokenizer, ids, max_tokens - taken) + self.close

    def nll(
        self,
        injected: torch.Tensor | None,
        responses: Sequence[Sequence[int]],
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """−log p of each response token in nats, all rows in one vector, row after row; where they
        are drawn at another `temperature`, as there."""
        rows = [[*self.prompt, *response] for response in responses]
        if any(self.contract.tokens.injection_token_id in response for response in responses):
            raise ContractError("a label contains the marker", do="drop such rows")
        ids = pad_right(rows, 0, self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        places = torch.arange(ids.shape[1], device=self.device)[None]
        mask = (places < lengths[:, None]).long()
        with self.injecting(injected):
            hidden = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        labelled = (places >= len(self.prompt)) & (places < lengths[:, None])
        before = torch.roll(labelled, -1, dims=1)
        before[:, -1] = False
        return head_of(self.model).nll(hidden[before], ids[labelled], temperature)

    @torch.no_grad()
    def label_loss(
        self,
        injected: torch.Tensor,
        texts: Sequence[str],
        *,
        max_tokens: int | None = None,
        tokens_per_batch: int = 2048,
    ) -> NDArray[np.float64]:
        """Mean −log p a token of each explanation given its injected vector: `(n,)` nats."""
        limit = max_tokens or self.contract.nlakit.max_tokens
        responses = [self.response_ids(text, limit) for text in texts]
        lengths = [len(self.prompt) + len(response) for response in responses]
        means = np.zeros(len(texts))
        for picked in batches_by_length(lengths, tokens_per_batch):
            chunk = [responses[row] for row in picked]
            losses = self.nll(injected[picked], chunk)
            means[picked] = [float(p.mean()) for p in losses.split([len(row) for row in chunk])]
        return means

    @torch.no_grad()
    def explain(
        self,
        vectors: NDArray[Any] | torch.Tensor | None,
        *,
        count: int | None = None,
        batch: int = 32,
        decoding: Decoding | None = None,
        on_batch: Any = None,
    ) -> list[str]:
        """Explanations of raw activations `(n, d)`, in their order.

        With `vectors` None, `count` texts are written without injection (a control).
        """
        injected = None if vectors is None else self.scaled(vectors)
        return self.write(injected, count or 0, batch, decoding or self.decoding(), on_batch)

    @torch.no_grad()
    def write(
        self,
        injected: torch.Tensor | None,
        count: int,
        batch: int,
        decoding: Decoding,
        on_batch: Any = None,
    ) -> list[str]:
        """Explanations of injected vectors `(n, d)`, already scaled."""
        total = count if injected is None else len(injected)
        texts = [Text(decoding, row) for row in range(total)]
        return self.written(injected, texts, batch, on_batch)

    @torch.no_grad()
    def written(
        self,
        injected: torch.Tensor | None,
        texts: Sequence[Text],
        batch: int,
        on_batch: Any = None,
    ) -> list[str]:
        """Explanations of injected vectors `(n, d)`, each in its own way of decoding."""
        running = self.running()
        for start in range(0, len(texts), batch):
            some = texts[start : start + batch]
            self.begin(running, None if injected is None else injected[start : start + batch], some)
            while running.texts:
                running.step()
            if on_batch:
                on_batch(len(some))
        return [self.text_of(text.ids) for text in texts]

    def running(self) -> Running:
        """What writes texts for this AV, none of them yet."""
        return Running(self.model, self.decoder, self.close, self.words)

    def begin(
        self, running: Running, injected: torch.Tensor | None, texts: Sequence[Text]
    ) -> list[Text]:
        """Let texts of injected vectors `(n, d)` join those that run, equally many of each vector;
        returns those that end at once. Raises DataError if outputs at the prompt are not finite."""
        count = len(texts) if injected is None else len(injected)
        prompt = torch.tensor([self.prompt] * count, device=self.device)
        with self.injecting(injected):
            return running.join(prompt, texts)

    def text_of(self, ids: Sequence[int]) -> str:
        """The explanation in the tokens that were written."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text.strip().removeprefix(self.contract.nlakit.av_open.strip()).strip()

    def decoding(self, limit: int | None = None) -> Decoding:
        """Greedy decoding with the limits of the contract, or another, and of the subject's
        positions."""
        recorded = self.contract.nlakit
        room = (self.positions or math.inf) - len(self.prompt)
        limit = int(min(limit or recorded.max_new_tokens, room))
        return Decoding(
            limit,
            no_repeat_ngram=recorded.no_repeat_ngram,
            repetition_penalty=recorded.repetition_penalty,
        )

    @cached_property
    def words(self) -> torch.Tensor:
        """Which token ids `(v,)` hold a letter."""
        size = len(head_of(self.model).weight)  # some heads are longer than their vocabulary
        pieces = self.tokenizer.convert_ids_to_tokens(range(min(size, len(self.tokenizer))))
        found = [piece is not None and any(map(str.isalpha, piece)) for piece in pieces]
        found += [False] * (size - len(found))
        return torch.tensor(found, device=self.device)

    def save(self, folder: Path) -> None:
        """Adapter or own weights, and sidecar."""
        folder.mkdir(parents=True, exist_ok=True)
        save_trainable(self.model, folder)
        self.contract.write(folder / FILE)

    def adopt(self, folder: Path) -> None:
        """Go on from another AV's weights; the contract names it as the parent."""
        adopt(self.model, self.contract, folder)

    @classmethod
    def load(
        cls, subject: Subject, contract: Contract, mean: NDArray[Any] | None, folder: Path
    ) -> Verbalizer:
        """Load what `save` wrote; ContractError if it does not fit the subject."""
        made = cls(subject, contract, mean, saved_lora(folder), seed=0)
        load_trainable(made.model, folder)
        return made.eval()
