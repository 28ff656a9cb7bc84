"""Use a trained pair, or one half of it: text or vectors in, explanations and scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nlakit.config import SubjectConfig, precision_settings
from nlakit.core.contract import FILE, Contract, read_contract
from nlakit.core.metrics import centred_cosine, cosine, fve_rows, mse_normalised
from nlakit.core.prompts import encode
from nlakit.errors import ContractError, DataError
from nlakit.models.lora import read_tensors
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, capture, load_subject, sliced_decoder
from nlakit.models.verbalizer import Verbalizer

Positions = Literal["last", "all"] | Sequence[int]


@dataclass(frozen=True)
class Score:
    """How near a reconstruction comes to a vector. `fve` is against the stored baseline."""

    cosine: float
    centred_cosine: float
    fve: float
    mse: float


@dataclass(frozen=True)
class Explained:
    """One explained activation; token and position are None for a bare vector, the scores are
    None without an AR. `floor` is the centred cosine of the empty text on the same vector."""

    explanation: str
    l2_norm: float
    position: int | None = None
    token: str | None = None
    token_id: int | None = None
    cosine: float | None = None
    centred_cosine: float | None = None
    fve: float | None = None
    mse: float | None = None
    floor: float | None = None


class Explanations(list[Explained]):
    """Explained activations; shows itself as a table in a notebook."""

    def as_dicts(self) -> list[dict[str, Any]]:
        return [asdict(item) for item in self]

    def __repr__(self) -> str:
        lines = []
        for item in self:
            place = "vector" if item.position is None else f"{item.position:4d} {item.token!r}"
            score = "" if item.centred_cosine is None else f"  centred {item.centred_cosine:+.2f}"
            lines.append(f"{place}{score}  {item.explanation}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "<tr><th>position</th><th>token</th><th>explanation</th>"
        head += "<th>centred cosine</th><th>floor</th><th>FVE</th></tr>"
        rows = []
        for item in self:
            cells = [
                "" if item.position is None else str(item.position),
                "" if item.token is None else f"<code>{escape(item.token)}</code>",
                escape(item.explanation),
                "" if item.centred_cosine is None else f"{item.centred_cosine:.3f}",
                "" if item.floor is None else f"{item.floor:.3f}",
                "" if item.fve is None else f"{item.fve:.3f}",
            ]
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        return f"<table>{head}{''.join(rows)}</table>"


class NLA:
    """A verbalizer and a reconstructor over one shared subject; either may be absent."""

    def __init__(
        self, subject: Subject, av: Verbalizer | None, ar: Reconstructor | None, mean: Any
    ) -> None:
        self.subject, self.av, self.ar = subject, av, ar
        self.mean = np.asarray(mean, dtype=np.float64)
        half = av or ar
        assert half is not None, "a pair has at least one half"
        self.contract: Contract = half.contract
        self._reader: Any = None

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", base_model: str | None = None) -> NLA:
        """Load a pair from a run folder, a pair folder (`av/` and `ar/`), or one half's folder;
        `demo` is the pair in the box.

        base_model replaces the subject named in the contract (a moved folder, say).
        Raises ContractError if nothing usable lies there or the halves do not belong together.
        """
        halves = find_halves(path)
        contracts = {role: read_contract(folder) for role, folder in halves.items()}
        one = next(iter(contracts.values()))
        for other in contracts.values():
            _check_same(one, other)
        subject = load_subject(
            SubjectConfig.model_validate(
                {
                    "model": base_model or one.extraction.base_model,
                    "layer": one.layer,
                    **precision_settings(one.nlakit.subject_precision),
                    "device": device,
                }
            )
        )
        means = {role: _read_mean(halves[role], contracts[role]) for role in halves}
        av = ar = None
        if "av" in halves:
            av = Verbalizer.load(subject, contracts["av"], means["av"], halves["av"])
        if "ar" in halves:
            ar = Reconstructor.load(subject, contracts["ar"], halves["ar"])
        return cls(subject, av, ar, means.get("ar", next(iter(means.values()))))

    def explain(
        self,
        what: str | NDArray[Any],
        positions: Positions = "last",
        *,
        batch: int = 32,
    ) -> Explanations:
        """Explain activations of a text at token positions, or raw vectors `(n, d)`.

        positions: `last`, `all`, or token indices (0 is the first token, BOS included where the
        tokenizer adds it; negative counts from the end). Raises DataError for a position that is
        not there and for empty text, ContractError without an AV or for another width.
        """
        if self.av is None:
            raise ContractError("this folder holds no AV", do="load a pair, or the AV's folder")
        if isinstance(what, str):
            ids, places, vectors = self.activations(what, positions)
        else:
            ids, places, vectors = [], [], np.atleast_2d(np.asarray(what, dtype=np.float32))
        texts = self.av.explain(vectors, batch=batch)
        scores = self.score(texts, vectors) if self.ar is not None else None
        floors = self.score([""] * len(texts), vectors) if self.ar is not None else None
        result = Explanations()
        for row, text in enumerate(texts):
            found: dict[str, Any] = asdict(scores[row]) if scores else {}
            if floors:
                found["floor"] = floors[row].centred_cosine
            if places:
                token = ids[places[row]]
                spelled = self.subject.tokenizer.decode([token])
                found |= {"position": places[row], "token_id": token, "token": spelled}
            norm = float(np.linalg.norm(vectors[row]))
            result.append(Explained(explanation=text, l2_norm=norm, **found))
        return result

    def activations(
        self, text: str, positions: Positions = "all"
    ) -> tuple[list[int], list[int], NDArray[np.float32]]:
        """Token ids, resolved positions, and raw activations `(n, d)` of layer K there."""
        import torch

        ids = encode(self.subject.tokenizer, text, special=True)
        if not text.strip():
            raise DataError("the text is empty", do="give some text to read")
        places = resolve_positions(positions, len(ids))
        layer = self.contract.layer
        if self._reader is None:
            self._reader = sliced_decoder(self.subject.model, layer + 1)
        with torch.no_grad(), capture(self._reader, [layer]) as found:
            self._reader(input_ids=torch.tensor([ids], device=self.subject.device), use_cache=False)
        return ids, places, found[layer][0, places].float().cpu().numpy()

    def reconstruct(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Reconstructions `(n, d)` of explanations. Only their direction is trained.

        Raises ContractError without an AR.
        """
        if self.ar is None:
            raise ContractError("this folder holds no AR", do="load a pair, or the AR's folder")
        return self.ar.reconstruct(list(texts))

    def score(self, texts: Sequence[str], vectors: NDArray[Any]) -> list[Score]:
        """How well n explanations carry raw vectors `(n, d)`: one score a row.

        Raises DataError if the counts differ or a vector has no direction.
        """
        rows = [texts] if isinstance(texts, str) else list(texts)
        real = np.atleast_2d(np.asarray(vectors))
        self.contract.check_width(real.shape[1], "the vectors")
        if len(rows) != len(real):
            raise DataError(
                "one vector a text is needed", found=f"{len(rows)} texts, {len(real)} vectors"
            )
        made = self.reconstruct(rows)
        base = self.contract.nlakit.baseline
        if base is None:
            raise ContractError("the contract stores no FVE baseline", do="evaluate the pair")
        columns = (
            cosine(real, made),
            centred_cosine(real, made, self.mean),
            fve_rows(real, made, base),
            mse_normalised(real, made),
        )
        return [Score(*map(float, row)) for row in zip(*columns, strict=True)]

    def __repr__(self) -> str:
        halves = " + ".join(n for n, half in (("AV", self.av), ("AR", self.ar)) if half)
        base, layer = self.contract.extraction.base_model, self.contract.layer
        return f"NLA({halves} of {base}, layer {layer}, d = {self.contract.d_model})"


def resolve_positions(positions: Positions, tokens: int) -> list[int]:
    """Token indices `0 ≤ p < tokens`; DataError for one outside."""
    if positions == "last":
        return [tokens - 1]
    if positions == "all":
        return list(range(tokens))
    found = []
    for position in positions:
        if isinstance(position, str) or not -tokens <= position < tokens:
            raise DataError(
                "no such token position",
                found=f"{position} in a text of {tokens} tokens",
                do=f"give 0 to {tokens - 1}, or a negative one",
            )
        found.append(position % tokens)
    return found


def find_halves(path: str | Path) -> dict[str, Path]:
    """Folders of the halves at a path, by role."""
    root = Path(path)
    if str(path) == "demo" and not root.exists():
        root = Path(str(files("nlakit") / "box"))
    for candidate in (root / "08_pair", root):
        halves = {r: candidate / r for r in ("av", "ar") if (candidate / r / FILE).exists()}
        if halves:
            return halves
    for candidate in (root, root / "07_av", root / "06_ar"):
        if (candidate / FILE).exists():
            role = read_contract(candidate).nlakit.role
            if role in ("av", "ar"):
                return {role: candidate}
    raise ContractError(
        f"no trained pair or half in {path}",
        found="no nla_meta.yaml" if root.exists() else "no such folder",
        do="give a run folder, a folder with av/ and ar/, or `demo` for the pair in the box",
    )


def _check_same(one: Contract, other: Contract) -> None:
    for name, left, right in (
        ("subject", one.extraction.base_model, other.extraction.base_model),
        ("layer", one.layer, other.layer),
        ("width", one.d_model, other.d_model),
    ):
        if left != right:
            raise ContractError(
                f"the halves differ in their {name}",
                found=f"{left} and {right}",
                do="load two halves made for the same activations",
            )


def _read_mean(folder: Path, contract: Contract) -> NDArray[np.float32]:
    name = Path(contract.nlakit.mean_unit_file or "mean_unit.safetensors").name
    found = read_tensors(folder / name).get("mean_unit")
    if found is None:
        raise ContractError(f"{folder / name} holds no mean_unit", do="copy it from the run")
    contract.check_width(len(found), "the mean unit vector")
    return found.float().numpy()
