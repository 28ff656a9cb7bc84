"""Use a trained pair, or one half of it: text or vectors in, explanations and scores out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from nlakit.config.sections import SubjectConfig, precision_settings
from nlakit.core.contract import Contract, Provenance, read_contract
from nlakit.core.metrics import centred_cosine, cosine, fve_rows, mse_normalised
from nlakit.core.prompts import encode
from nlakit.errors import ConfigError, ContractError, DataError
from nlakit.models.foreign import kitft, peft_pair
from nlakit.models.foreign.folders import find_halves, inside, kind_of
from nlakit.models.lora import read_tensors
from nlakit.models.precision import check_finite
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import Subject, capture, load_subject, sliced_decoder
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.progress import say

Positions = Literal["last", "all"] | Sequence[int]
MEAN_FILE = "mean_unit.safetensors"


@dataclass(frozen=True)
class Score:
    """How near a reconstruction comes to a vector. `fve` is against the stored baseline; it and
    the centred cosine are None where a foreign pair stores no mean unit vector."""

    cosine: float
    centred_cosine: float | None
    fve: float | None
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
        self.mean = None if mean is None else np.asarray(mean, dtype=np.float64)
        half, scorer = av or ar, ar or av
        assert half is not None and scorer is not None, "a pair has at least one half"
        self.contract: Contract = half.contract
        # The half whose ū is `mean`: its baseline belongs to it.
        self.measured: Provenance = scorer.contract.nlakit
        self._reader: Any = None

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        device: str = "auto",
        base_model: str | None = None,
        precision: str | None = None,
        ar_blocks: int | None = None,
    ) -> NLA:
        """Load a pair or one half: a run folder, a pair folder (`av/` and `ar/`), a half's folder,
        a hub id, or two of these, a half each; in nlakit's format, the reference's, or as PEFT
        folders. `demo` is the pair in the box.

        base_model replaces the subject named in the contract (a moved folder, say); precision the
        recorded one (`float32`, `bfloat16`, `nf4+bfloat16`, ...); ar_blocks says how deep a
        foreign AR is where its files do not. Code that lies in a checkpoint is never run.
        Raises ContractError if nothing usable lies there or the halves do not belong together,
        ConfigError for an unknown precision.
        """
        halves = find_halves(path)
        contracts = {role: read_contract(folder) for role, folder in halves.items()}
        if ar_blocks is not None and "ar" in contracts:
            contracts["ar"].nlakit.ar_blocks = ar_blocks
        one = next(iter(contracts.values()))
        for other in contracts.values():
            if found := one.difference(other, base_model):
                raise ContractError(
                    f"the halves differ in their {found[0]}",
                    found=f"{found[1]} and {found[2]}",
                    do="load two halves made for the same activations",
                )
        kinds = {role: kind_of(halves[role], contracts[role]) for role in halves}
        recorded = {
            role: kitft.precision_of(halves[role])
            if kind == "kitft"
            else contracts[role].nlakit.subject_precision
            for role, kind in kinds.items()
        }
        first = next(iter(recorded.values()))
        subject = load_subject(subject_of(one, first, base_model, precision, device))
        if len(set(recorded.values())) > 1:
            said = ", ".join(f"the {role.upper()} {found}" for role, found in recorded.items())
            say(f"recorded precision: {said}; both run in {subject.config.precision}")
        means = {role: _read_mean(halves[role], contracts[role]) for role in halves}
        made: dict[str, Any] = {}
        for role, folder in halves.items():
            contract, mean = contracts[role], means[role]
            if kinds[role] == "kitft":
                made[role] = kitft.read(subject, contract, folder, role, mean)
            elif kinds[role] == "peft":
                made[role] = peft_pair.read(subject, contract, folder, role, mean)
            elif role == "av":
                made[role] = Verbalizer.load(subject, contract, mean, folder)
            else:
                made[role] = Reconstructor.load(subject, contract, folder)
        known = [role for role in ("ar", "av") if means.get(role) is not None]
        known.sort(key=lambda role: made[role].contract.nlakit.baseline is None)
        nla = cls(subject, made.get("av"), made.get("ar"), means[known[0]] if known else None)
        if known:
            nla.measured = made[known[0]].contract.nlakit
        return nla

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
        scores = self._scores(texts, vectors) if self.ar is not None else None
        floors = self._scores([""] * len(texts), vectors) if self.ar is not None else None
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
        vectors = found[layer][0, places].float()
        check_finite(vectors, f"activations of layer {layer}", self.subject.config.precision)
        return ids, places, vectors.cpu().numpy()

    def reconstruct(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Reconstructions `(n, d)` of explanations. Only their direction is trained.

        Raises ContractError without an AR, DataError if they are not finite.
        """
        if self.ar is None:
            raise ContractError("this folder holds no AR", do="load a pair, or the AR's folder")
        return self.ar.reconstruct(list(texts))

    def score(self, texts: Sequence[str], vectors: NDArray[Any]) -> list[Score]:
        """How well n explanations carry raw vectors `(n, d)`: one score a row.

        Raises DataError if the counts differ or a vector has no direction, ContractError for a
        pair without a stored mean and baseline.
        """
        rows = [texts] if isinstance(texts, str) else list(texts)
        real = np.atleast_2d(np.asarray(vectors))
        self.contract.check_width(real.shape[1], "the vectors")
        if len(rows) != len(real):
            raise DataError(
                "one vector a text is needed", found=f"{len(rows)} texts, {len(real)} vectors"
            )
        if self.mean is None or self.measured.baseline is None:
            raise ContractError(
                "the pair stores no mean unit vector and no FVE baseline: scores have no floor",
                do="nlakit import PAIR TARGET --vectors FILE computes both from raw activations",
            )
        return self._scores(rows, real)

    def _scores(self, texts: Sequence[str], real: NDArray[Any]) -> list[Score]:
        made = self.reconstruct(texts)
        base, columns = self.measured.baseline, [cosine(real, made)]
        known = self.mean is not None and base is not None
        if self.mean is not None and base is not None:
            columns += [centred_cosine(real, made, self.mean), fve_rows(real, made, base)]
        columns.append(mse_normalised(real, made))
        rows = [list(map(float, row)) for row in zip(*columns, strict=True)]
        return [Score(*row) if known else Score(row[0], None, None, row[1]) for row in rows]

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


def subject_of(
    contract: Contract, recorded: str, base_model: str | None, precision: str | None, device: str
) -> SubjectConfig:
    """The subject that a contract names, with what the caller asks for in the place of what is
    recorded.

    Raises ConfigError for an unknown precision, ContractError if the contract names no subject.
    """
    record = contract.nlakit
    chosen = {
        "model": base_model or contract.extraction.base_model,
        "layer": contract.layer,
        "revision": None if base_model else record.revision,
        "ple_on_cpu": record.ple_on_cpu,
    }
    settings = precision_settings(precision or recorded) | {"device": device}
    if precision is None and settings["dtype"] == "bfloat16":
        settings["dtype"] = "auto"  # a device without bfloat16 units takes what it has
    try:
        return SubjectConfig.model_validate(chosen | settings)
    except ValidationError as error:
        problem = error.errors()[0]
        if precision and problem["loc"][0] in ("dtype", "quantisation"):
            raise ConfigError(
                "unknown --precision",
                found=precision,
                do="float32, bfloat16, float16, or nf4+ before one of these",
            ) from error
        raise ContractError(
            "the contract names a subject that cannot be loaded",
            found=f"{'.'.join(map(str, problem['loc']))}: {problem['input']!r}",
        ) from error


def _read_mean(folder: Path, contract: Contract) -> NDArray[np.float32] | None:
    """ū beside a half; None where none is named and none lies there."""
    named = contract.nlakit.mean_unit_file
    file = inside(folder, named or MEAN_FILE)
    if named is None and not file.exists():
        return None
    found = read_tensors(file).get("mean_unit")
    if found is None:
        raise ContractError(f"{file} holds no mean_unit", do="copy it from the run")
    contract.check_width(len(found), "the mean unit vector")
    return found.float().numpy()
