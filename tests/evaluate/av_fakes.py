"""An AV and an AR that know six rows by heart, and a real pair of toy halves."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from nlakit.core.metrics import mean_unit
from nlakit.evaluate.bench import Bench
from nlakit.models.decode import Decoding
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer
from tests.conftest import SMALL_LORA, build_contract, toy_tokenizer
from tests.evaluate.benches import text_bench

# Six rows of three documents in the six directions of an octahedron; their mean is zero.
VECTORS = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32) * 5
DOCUMENTS = ["a", "a", "b", "b", "c", "c"]
Write = Callable[[torch.Tensor | None, int], str]


class KnowingAR:
    """Reads "row i" as row i's vector and anything else as one odd direction."""

    def reconstruct(self, texts: Sequence[str]) -> np.ndarray:
        found = [re.match(r"row (\d)", text) for text in texts]
        odd = np.array([1, 2, 3], dtype=np.float32)
        return np.stack([VECTORS[int(one[1])] if one else odd for one in found])


class FakeAV:
    """Writes `say(vector, place in the call)`; injects at norm 2. Loss of a label: `loss(vector,
    label)`."""

    def __init__(self, say: Write, loss: Callable[[torch.Tensor, str], float]) -> None:
        self.say, self.loss = say, loss
        self.seen: list[Decoding] = []
        record = SimpleNamespace(centring="none", embedding_norm=1.0)
        self.contract = SimpleNamespace(nlakit=record, tokens=SimpleNamespace(injection_char="㊗"))
        self.model, self.tokenizer = object(), toy_tokenizer()

    def scaled(self, vectors: Any, mean: Any = None) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.as_tensor(vectors), dim=-1) * 2

    def decoding(self) -> Decoding:
        return Decoding(5)

    def write(
        self, injected: torch.Tensor | None, count: int, batch: int, how: Decoding, tick: Any = None
    ) -> list[str]:
        self.seen.append(how)
        rows = [None] * count if injected is None else list(injected)
        return [self.say(row, place) for place, row in enumerate(rows)]

    def label_loss(self, injected: torch.Tensor, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.loss(v, text) for v, text in zip(injected, texts, strict=True)])


def nearest_row(vector: torch.Tensor | None, place: int = 0) -> str:
    """An honest AV: names the row whose vector is nearest; nothing for a vector of no row."""
    if vector is None or not bool(vector.norm() > 0):
        return "nothing"
    near = torch.nn.functional.normalize(torch.as_tensor(VECTORS), dim=-1) @ vector
    return f"row {int(near.argmax())}" if near.max() > 0.95 * vector.norm() else "nothing"


def honest_loss(vector: torch.Tensor, label: str) -> float:
    return 1.0 if nearest_row(vector) == label else 3.0


def fake_bench(av: Any, **more: Any) -> Bench:
    """Six rows whose label is "row i", with the texts the AV writes."""
    texts = av.write(av.scaled(VECTORS), 6, 6, av.decoding()) if av else ["row 0"] * 6
    given = {
        "labels": [f"row {i}" for i in range(6)], "documents": DOCUMENTS, "vectors": VECTORS.copy(),
        "mean": mean_unit(VECTORS), "av": av, "ar": KnowingAR(),
    }  # fmt: skip
    return text_bench([f"some text {i}" for i in range(6)], texts, **{**given, **more})


def toy_bench(toy_subject: Any, vectors: np.ndarray, **more: Any) -> Bench:
    """Eight rows with a real AV and AR of random weights; the AV's adapters do something."""
    subject = toy_subject("gemma3")
    contract = build_contract(subject, max_new_tokens=8)
    mean = mean_unit(vectors)
    av = Verbalizer(subject, contract, mean, SMALL_LORA, 0).eval()
    stir(av)
    ar = Reconstructor(subject, contract, SMALL_LORA, 0).eval()
    texts = av.explain(vectors)
    sources = [f"The {word} waits near mark {i}." for i, word in enumerate(["whale", "tax"] * 4)]
    given = {
        "labels": [f"label {i}" for i in range(8)], "documents": list("aabbccdd"),
        "vectors": vectors, "mean": mean, "av": av, "ar": ar,
        "settings": {"control_rows": 4, "samples": 2, "profile": "full"},
    }  # fmt: skip
    return text_bench(sources, texts, **{**given, **more})


def stir(av: Verbalizer) -> None:
    """Give the adapters weights that change what the AV writes."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in av.model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter))
