"""Use a trained pair, or one half of it: text or vectors in, explanations and scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nlakit.core.contract import Contract, Provenance
from nlakit.core.metrics import centred_cosine, cosine, fve_rows, mse_normalised
from nlakit.core.text.characters import last_tokens
from nlakit.core.text.edits import exchanged
from nlakit.core.text.recurrence import TEMPERATURE, Told
from nlakit.core.text.where import Criterion
from nlakit.errors import ContractError, DataError
from nlakit.models.foreign.turn import Stated
from nlakit.models.loading import load_halves
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.records import Explained, Explanations, Score
from nlakit.models.steering.push import Places
from nlakit.models.steering.record import ALPHAS, Asked, Steered
from nlakit.models.steering.steer import edit_direction, steer
from nlakit.models.subject import Subject, sliced_decoder
from nlakit.models.using.explaining import Again, nearby, with_costs
from nlakit.models.using.looking import Ranked, rank, read_in_windows
from nlakit.models.using.reading import (
    Positions,
    Read,
    SpecialTokens,
    Token,
    Tokens,
    has_words,
    owner_of,
    resolve_positions,
    tokens_of,
)
from nlakit.models.verbalizer import Verbalizer


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
        # What random directions are put into words as, by temperature and seed.
        self._controls: dict[tuple[float, int], Sequence[Told]] = {}

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        device: str = "auto",
        base_model: str | None = None,
        precision: str | None = None,
        ar_blocks: int | None = None,
        injection: str | None = None,
        chat: str | None = None,
        ar_bos: str | None = None,
    ) -> NLA:
        """Load a pair or one half: a run folder, a pair folder (`av/` and `ar/`), a half's folder,
        a hub id (`owner/name`, or `owner/name/folder`), or two of these, a half each; in nlakit's
        format, the reference's, or as PEFT folders. `demo` is the pair in the box.

        base_model replaces the subject named in the contract (a moved folder, say); precision the
        recorded one (`float32`, `bfloat16`, `nf4+bfloat16`, ...); ar_blocks says how deep a
        foreign AR is where its files do not; where its AV's files leave it open, injection
        (`reference`, `add`) says how the vector enters, and chat (`plain`, `turn`, `no-thinking`)
        whether the prompt is the user's turn of the chat template; likewise ar_bos (`yes`, `no`)
        whether the AR's begins with a BOS. Code in a checkpoint never runs.
        Raises ContractError if nothing usable lies there, the halves do not belong together or an
        AV leaves open how it is fed; ConfigError for an unknown precision, injection, chat or
        ar_bos.
        """
        stated = Stated(injection, chat, ar_bos, ar_blocks)
        halves = load_halves(path, device, base_model, precision, stated)
        nla = cls(halves.subject, halves.av, halves.ar, halves.mean)
        nla.measured = halves.measured
        return nla

    def explain(
        self,
        what: Read | NDArray[Any],
        positions: Positions = "last",
        *,
        batch: int = 32,
        special_tokens: SpecialTokens | None = None,
        samples: int = 0,
        neighbours: int = 0,
        temperature: float = TEMPERATURE,
        seed: int = 0,
        window: int | None = None,
    ) -> Explanations:
        """Explain activations of a text at token positions, or raw vectors `(n, d)`; messages
        `{role, content}` are read in the subject's chat template, a `Conversation` says how.

        positions: `last`, `all`, or token indices (0 is the first token, BOS included where the
        tokenizer adds it; negative counts from the end); in a conversation, `last` and `all` are of
        the assistant's words, or of the roles it names. special_tokens: whether a `<eos>` that the
        text spells is letters (`text`) or that token (`parse`); unless given, as the pair's
        documents were read. samples, neighbours: also mark the words by how they recur in so many
        texts drawn at `temperature`, keyed by `seed`, and in the explanations of so many tokens
        before the position (`models/using/explaining.py`). window: tokens that are read at once, in
        texts longer than the subject can read; windows overlap by half. Raises DataError for a
        position that is not there, for empty and too long text, for messages that the template
        refuses, and for neighbours of bare vectors; ModelError without a template; ContractError
        without an AV or for another width.
        """
        if self.av is None:
            raise ContractError("this folder holds no AV", do="load a pair, or the AV's folder")
        again = Again(samples, neighbours, temperature, seed, batch)
        again.check(bare=not has_words(what))
        if has_words(what):
            tokens = self.tokens(what, special_tokens)
            places = tokens.places(positions)
            every = self._every(tokens, window)
            vectors = every[places]
        else:
            tokens, places = Tokens("", []), []
            every = vectors = np.atleast_2d(np.asarray(what, dtype=np.float32))
        texts = self.av.explain(vectors, batch=batch)
        scores = self._scores(texts, vectors) if self.ar is not None else None
        floors = self._scores([""] * len(texts), vectors) if self.ar is not None else None
        recurrences = None
        if texts and (samples or neighbours):
            beside = self._neighbours(tokens, places, neighbours, every)
            key = temperature, seed
            others = again.tell(self.av, vectors, beside, self._controls.get(key))
            self._controls[key] = others.controls
            recurrences = again.recurrences(texts, others)
            if self.ar is not None and self.mean is not None:
                recurrences = with_costs(recurrences, texts, vectors, self.reconstruct, self.mean)
        result = Explanations()
        for row, text in enumerate(texts):
            found: dict[str, Any] = asdict(scores[row]) if scores else {}
            if recurrences:
                found["recurrence"] = recurrences[row]
            if floors:
                found["floor"] = floors[row].centred_cosine
            if places:
                at, ids = places[row], tokens.ids
                found |= {"position": at, "token_id": ids[at]}
                found["token"] = last_tokens(self.subject.tokenizer, ids[: at + 1])
                if tokens.spans is not None:
                    found |= owner_of(tokens.spans[at])
            norm = float(np.linalg.norm(vectors[row]))
            result.append(Explained(explanation=text, l2_norm=norm, **found))
        return result

    def _neighbours(
        self, tokens: Tokens, places: list[int], count: int, every: NDArray[np.float32]
    ) -> list[dict[int, NDArray[np.float32]]]:
        """Position → activation of the tokens beside each explained one. every: `(t, d)`, of all
        tokens; bare vectors, which have none beside them, where there are no tokens."""
        if not tokens.ids:
            return [{} for _ in every]
        first = int(tokens.ids[0] == self.subject.tokenizer.bos_token_id)
        beside = [nearby(place, count, len(tokens.ids), first) for place in places]
        return [{spot: every[spot] for spot in spots} for spots in beside]

    def tokens(self, what: Read, special_tokens: SpecialTokens | None = None) -> Tokens:
        """The tokens of a text or conversation; arguments and errors as in `explain`."""
        known = self.contract.nlakit
        return tokens_of(
            self.subject.tokenizer, what, special_tokens or known.special_tokens,
            known.chat_template, self.contract.extraction.base_model,
        )  # fmt: skip

    def tokenize(self, what: Read, special_tokens: SpecialTokens | None = None) -> list[Token]:
        """Each token of a text or conversation with its text and whose it is."""
        return self.tokens(what, special_tokens).described(self.subject.tokenizer)

    def activations(
        self,
        what: Read,
        positions: Positions = "all",
        special_tokens: SpecialTokens | None = None,
        window: int | None = None,
    ) -> tuple[list[int], list[int], NDArray[np.float32]]:
        """Token ids, resolved positions, and raw activations `(n, d)` of layer K there. Arguments
        and errors as in `explain`."""
        tokens = self.tokens(what, special_tokens)
        return tokens.ids, *self._read(tokens, positions, window)

    def rank(
        self,
        what: Read,
        by: Criterion,
        top: int = 10,
        *,
        special_tokens: SpecialTokens | None = None,
        window: int | None = None,
    ) -> list[Ranked]:
        """The `top` tokens of a text or conversation worth reading, by one pass of the subject:
        `entropy` of the next token, `surprise` at this one, `change` from the activation before, or
        `spread` from the mean direction (formulas: `core.text.where`; what each is worth:
        `docs/results/where.md`). Other arguments and errors as in `explain`; ContractError where
        the pair stores no mean."""
        if self.mean is None:
            raise ContractError(
                "the pair stores no mean unit vector, which change and spread are measured from",
                do="nlakit import PAIR TARGET --vectors FILE computes it from raw activations",
            )
        tokens = self.tokens(what, special_tokens)
        return rank(self.subject, tokens, self.contract.layer, self.mean, by, top, window)

    def _read(
        self, tokens: Tokens, positions: Positions, window: int | None
    ) -> tuple[list[int], NDArray[np.float32]]:
        """Positions resolved, and raw activations `(n, d)` there."""
        places = tokens.places(positions)
        return places, self._every(tokens, window)[places]

    def _every(self, tokens: Tokens, window: int | None) -> NDArray[np.float32]:
        """Raw activations `(t, d)` of all tokens."""
        layer = self.contract.layer
        if self._reader is None:
            self._reader = sliced_decoder(self.subject.model, layer + 1)
        return read_in_windows(self.subject, self._reader, tokens.ids, layer, window)

    def _token_ids(self, text: str, special_tokens: SpecialTokens | None) -> list[int]:
        ids = self.tokens(text, special_tokens).ids
        self.subject.check_length(len(ids))
        return ids

    def steer(
        self,
        text: str,
        original: str | None,
        edited: str | Mapping[str, str],
        *,
        positions: Positions = "last",
        alphas: Sequence[float] = ALPHAS,
        random: int = 10,
        seed: int = 0,
        window: int = 8,
        new_tokens: int = 24,
        temperature: float = 0.0,
        others: NDArray[Any] | None = None,
        special_tokens: SpecialTokens | None = None,
    ) -> Steered:
        """Change an explanation, and see what the subject then does with a text.

        Block K's output h at `positions` becomes h + α‖h‖Δ/‖Δ‖ with Δ = AR(edited) − AR(original),
        for each of `alphas`, and for as many random directions. `all` steers every token of the
        text but those that the tokenizer puts in front, and each token that is written. original:
        the pair's own explanation of the steered token (of the last one of several) unless given;
        edited: a text, or words to exchange in the original, old → new. The other arguments are
        those of `Asked`; others `(m, d)` are further directions to compare with.

        Raises ContractError without an AR (or, where it is needed, an AV), ConfigError for numbers
        out of range, DataError for a position that is not there, texts without a difference, words
        that the original lacks, or a text that leaves no room.
        """
        asked = Asked(tuple(alphas), random, seed, window, new_tokens, temperature)
        if self.ar is None:
            raise ContractError(
                "steering needs the AR, and this folder holds none",
                do="load a pair, or the AR's folder",
            )
        ids = self._token_ids(text, special_tokens)
        places = self._steered_places(positions, ids)
        if original is None:
            last = places.tokens[-1]
            original = self.explain(text, [last], special_tokens=special_tokens)[0].explanation
        if not isinstance(edited, str):
            edited = exchanged(original, edited)
        direction = edit_direction(self.ar, original, edited)
        texts, layer = (text, original, edited), self.contract.layer
        return steer(self.subject, layer, ids, places, texts, direction, asked, others)

    def _steered_places(self, positions: Positions, ids: Sequence[int]) -> Places:
        places = sorted(set(resolve_positions(positions, len(ids))))
        if not places:
            raise DataError("no token is to be steered", do="give last, all, or token indices")
        if positions == "all":
            # A BOS has no text; its norm is many times that of others, and attention rests on it.
            special = set(self.subject.tokenizer.all_special_ids)
            front = next((at for at, token in enumerate(ids) if token not in special), 0)
            places = places[front:]
        return Places(tuple(places), len(ids), written=positions == "all")

    def reconstruct(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Reconstructions `(n, d)` of explanations. Only their direction is trained.

        Raises ContractError without an AR, DataError if they are not finite.
        """
        if self.ar is None:
            raise ContractError("this folder holds no AR", do="load a pair, or the AR's folder")
        place = {text: at for at, text in enumerate(dict.fromkeys(texts))}
        return self.ar.reconstruct(list(place))[[place[text] for text in texts]]

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
                "one vector a text is needed",
                found=f"{len(rows)} texts, {len(real)} vectors",
                do="give as many texts as vectors",
            )
        if self.mean is None or self.measured.baseline is None:
            raise ContractError(
                "the pair stores no mean unit vector and no FVE baseline: scores have no floor",
                do="nlakit import PAIR TARGET --vectors FILE computes both from raw activations",
            )
        return self._scores(rows, real)

    def _scores(self, texts: Sequence[str], real: NDArray[Any]) -> list[Score]:
        return self.measure(real, self.reconstruct(texts))

    def measure(self, real: NDArray[Any], made: NDArray[Any]) -> list[Score]:
        """How near reconstructions `(n, d)` come to raw vectors `(n, d)`: one score a row."""
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
