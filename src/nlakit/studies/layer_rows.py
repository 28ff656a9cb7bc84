"""Rows of an evaluation at other layers of the subject: as a run stored them, or read anew from
their texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.config.sections import SubjectConfig
from nlakit.core.batches import batches_by_length
from nlakit.core.contract import Contract
from nlakit.core.metrics import cosine, mean_unit
from nlakit.core.prompts import document_ids
from nlakit.data.activations import Reader
from nlakit.errors import ConfigError
from nlakit.evaluate.bench import AtLayers
from nlakit.evaluate.conditions import pick_rows
from nlakit.files.rows import TableRows, layer_vectors
from nlakit.models.families import shape_of
from nlakit.models.subject import Subject
from nlakit.run.progress import ticker

TRAINING_ROWS = 512  # read for a mean: it then lies 1/512 of the rows' spread beside that of all
AGREE = 0.99  # cosine of layer K's vector with the stored one, in any number format
TOKENS_PER_BATCH = 2048

Vectors = dict[int, NDArray[np.float32]]


def check_layers(layers: Sequence[int], subject: SubjectConfig) -> None:
    """Raise ConfigError for a layer that the subject lacks, ModelError if its configuration cannot
    be read."""
    if layers and max(layers) >= (blocks := shape_of(subject).blocks):
        raise ConfigError(
            f"the subject has no block {max(layers)}",
            found=f"blocks 0 to {blocks - 1}",
            do="choose other --layers",
        )


def read_at_layers(
    subject: Subject,
    contract: Contract,
    rows: TableRows,
    train: TableRows | None,
    tables: Mapping[str, Path],
    layers: Sequence[int],
) -> AtLayers:
    """The rows at each of the layers but the pair's own. tables: part → file; a layer that all of
    them hold (`activations.extra_layers`) is taken from there, with the mean of all training rows;
    else the subject reads the texts of the rows, and those of some training rows for the mean.

    A row is left out if its text does not give its vector at the pair's own layer again.
    """
    asked = [layer for layer in layers if layer != contract.layer]
    found = AtLayers(list(range(len(rows))), {}, {}, [])
    for layer in asked:
        if stored := _stored(tables, layer, rows):
            found.vectors[layer], found.means[layer] = stored
    if found.vectors:
        found.notes.append(f"layers {_listed(found.vectors)}: vectors as the tables hold them")
    if missing := [layer for layer in asked if layer not in found.vectors]:
        again = Again(subject, contract, missing)
        kept, read = again.read(rows, "rows at other layers")
        for layer, vectors in found.vectors.items():
            found.vectors[layer] = vectors[kept]
        found.kept[:] = kept
        found.vectors.update(read)
        found.notes.append(f"layers {_listed(missing)}: read anew from the texts of the rows")
        if len(kept) < len(rows):
            found.notes.append(
                f"{len(rows) - len(kept)} of {len(rows)} rows are left out: their text does not "
                f"give their vector at layer {contract.layer} again"
            )
        _means_anew(found, again, train, read)
    return found


def _stored(
    tables: Mapping[str, Path], layer: int, rows: TableRows
) -> tuple[NDArray[np.float32], NDArray[Any]] | None:
    own = layer_vectors(tables["test"], layer, rows.row_ids)
    training = [layer_vectors(file, layer) for part, file in tables.items() if part != "test"]
    known = [vectors for vectors in training if vectors is not None]
    if own is None or not known or len(known) < len(training):
        return None
    return own, mean_unit(np.concatenate(known))


def _means_anew(found: AtLayers, again: Again, train: TableRows | None, read: Vectors) -> None:
    """Mean unit vectors of the layers that were read anew: of training rows, or of the rows at hand
    where no training rows are."""
    known, trained = [], {}
    if train is not None:
        known, trained = again.read(pick_rows(train, TRAINING_ROWS), "training rows, for means")
    if known:
        whose = f"{len(known)} training rows"
    else:
        trained, whose = read, "the evaluated rows themselves, for want of training rows"
    if found.kept:
        found.means.update({layer: mean_unit(trained[layer]) for layer in read})
        found.notes.append(f"mean unit vectors of layers {_listed(read)}: of {whose}")


def _listed(layers: Mapping[int, Any] | Sequence[int]) -> str:
    return ", ".join(map(str, sorted(layers)))


@dataclass(frozen=True)
class Again:
    """Reads rows again, from their texts."""

    subject: Subject
    contract: Contract
    layers: Sequence[int]

    def read(self, rows: TableRows, what: str) -> tuple[list[int], Vectors]:
        """Indices of the m rows whose text gives their vector at the pair's layer again, and layer
        → `(m, d)` of these."""
        own = self.contract.layer
        reader = Reader(self.subject, sorted({*self.layers, own}), expected=0)
        found: dict[int, Vectors] = {}
        groups = self._groups(rows)
        with ticker(what, sum(len(places) for _, places in groups)) as progress:
            lengths = [len(ids) for ids, _ in groups]
            for batch in batches_by_length(lengths, TOKENS_PER_BATCH):
                picked = [groups[at] for at in batch]
                places = [[end for _, end in ends] for _, ends in picked]
                vectors, _, _ = reader.read([ids for ids, _ in picked], places)
                members = [row for _, ends in picked for row, _ in ends]
                for nth, row in enumerate(members):
                    found[row] = {layer: vectors[layer][nth] for layer in reader.layers}
                progress.advance(len(members))
        known = sorted(found)
        if not known:
            return [], {}
        same = cosine(rows.vectors[known], np.stack([found[row][own] for row in known])) >= AGREE
        kept = [row for row, agrees in zip(known, same, strict=True) if agrees]
        if not kept:
            return [], {}
        return kept, {layer: np.stack([found[row][layer] for row in kept]) for layer in self.layers}

    def _groups(self, rows: TableRows) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """Token ids, and the rows that are read from them, each with the position of its last
        token: of two rows of a document the longer text holds the other."""
        how, tokenizer = self.contract.nlakit.special_tokens, self.subject.tokenizer
        limit = self.subject.positions or np.inf
        ids = {
            row: document_ids(tokenizer, source, how)
            for row, source in enumerate(rows.known_sources)
            if source is not None
        }
        groups: dict[str, list[tuple[list[int], list[tuple[int, int]]]]] = {}
        for row in sorted(ids, key=lambda row: -len(ids[row])):
            own, known = ids[row], groups.setdefault(rows.doc_ids[row], [])
            if len(own) > limit:
                continue
            longer = next((ends for text, ends in known if text[: len(own)] == own), None)
            if longer is None:
                known.append((own, longer := []))
            longer.append((row, len(own) - 1))
        return [group for of in groups.values() for group in of]
