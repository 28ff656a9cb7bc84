"""How the AV's text follows its vector: its norm, a walk between two rows, sampling, and rows that
end alike. Only in the full profile: it decodes several texts a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from nlakit.core.metrics import centred_cosine
from nlakit.core.statistics import derangement
from nlakit.core.text.stats import words
from nlakit.evaluate.bench import Bench, Measured, Part, Values
from nlakit.evaluate.conditions import of_partners
from nlakit.evaluate.parts.av_reading import SCORED, add_texts, over_rows
from nlakit.models.decode import Decoding
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.progress import ticker

ROWS = 16
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)

Texts = Sequence[str | None]


@dataclass(frozen=True)
class Sweep:
    """The first rows of a bench with what the AV is given for them, `(b, d)`, and a partner row of
    another document among them, −1 where there is none. write: the AV."""

    part: Part
    bench: Bench
    injected: torch.Tensor
    partners: NDArray[np.int64]
    decoding: Decoding
    write: Callable[[torch.Tensor, Decoding], list[str]]


def measure(bench: Bench) -> Part:
    """On at most 16 of the first `control_rows` rows the conditions of `sweep_scale`,
    `interpolate` and `sample`; on all rows those of `same_tail`."""
    part = Part("av_sweep")
    if bench.ar is None:
        part.notes.append("no AR: texts are compared, not scored")
    same_tail(part, bench)
    if bench.av is None:
        part.notes.append("no AV: nothing can be written for other vectors")
        return part
    count, batch = min(bench.settings.control_rows, ROWS, len(bench)), bench.settings.generate_batch
    av: Verbalizer = bench.av
    steps = len(SCALES) - 1 + len(STEPS) - 2 + bench.settings.samples
    with ticker("AV sweep", count * steps, "texts") as progress:
        sweep = Sweep(
            part,
            bench,
            av.scaled(bench.rows.vectors[:count]),
            derangement(bench.documents[:count], bench.seed),
            av.decoding(),
            lambda vectors, how: av.write(vectors, len(vectors), batch, how, progress.advance),
        )
        sweep_scale(sweep)
        interpolate(sweep)
        sample(sweep)
    return part


def sweep_scale(sweep: Sweep) -> None:
    """Texts for the injected vector times 0.25 to 4: `fve`, `centred_cosine` with the partner's
    text at the same scale as floor, `empty`, `unique` (1 / rows with the same text), and
    `over_scale_1`, the centred cosine less that at the contract's scale."""
    part, bench, n = sweep.part, sweep.bench, len(sweep.bench)
    for scale in SCALES:
        # At the contract's scale the AV has written already.
        texts = (
            bench.texts[: len(sweep.injected)]
            if scale == 1
            else sweep.write(sweep.injected * scale, sweep.decoding)
        )
        name, copies = f"scale_{scale:g}", Counter(texts)
        add_texts(part, bench, name, texts, f"{name}_other_row")
        add_texts(part, bench, f"{name}_other_row", of_partners(texts, sweep.partners))
        empty = [float(not text.strip()) for text in texts]
        part.measured += [
            Measured("empty", name, over_rows(empty, n)),
            Measured("unique", name, over_rows([1 / copies[text] for text in texts], n)),
        ]
    if bench.ar is not None:
        own = part.of("centred_cosine", "scale_1")
        for name in (f"scale_{scale:g}" for scale in SCALES if scale != 1):
            gain = part.of("centred_cosine", name) - own
            part.measured.append(Measured("over_scale_1", name, gain))


def interpolate(sweep: Sweep) -> None:
    """Texts on the way from a row's injected vector (`mix_0`) to its partner's (`mix_1`), the norm
    kept: `toward_first` and `toward_second`, centred cosine with the vector of either end. The
    floor is the text of the other end, which has not seen this one."""
    bench, vectors = sweep.bench, sweep.bench.rows.vectors
    first = np.flatnonzero(sweep.partners >= 0)
    second = sweep.partners[first]
    if not len(first):
        sweep.part.notes.append("no two rows of different documents: nothing to interpolate")
        return
    for step in STEPS:
        name = f"mix_{step:g}"
        if step in (0, 1):
            written = [bench.texts[row] for row in (second if step else first).tolist()]
        else:
            mixed = between(sweep.injected[first], sweep.injected[second], step)
            written = sweep.write(mixed, sweep.decoding)
        found = dict(zip(first.tolist(), written, strict=True))
        sweep.part.texts[name] = [found.get(row) for row in range(len(sweep.injected))]
        if bench.ar is None:
            continue
        made = bench.reconstruct(written)
        for toward, end, floor in (
            ("toward_first", first, "mix_1"),
            ("toward_second", second, "mix_0"),
        ):
            values = np.full(len(bench), np.nan)
            values[first] = centred_cosine(vectors[end], made, bench.mean)
            sweep.part.measured.append(
                Measured(toward, name, values, None if floor == name else floor)
            )


def between(first: torch.Tensor, second: torch.Tensor, step: float) -> torch.Tensor:
    """(1 − step) · first + step · second `(n, d)`, at the norm that lies between theirs."""
    mixed = (1 - step) * first + step * second
    norm = (1 - step) * first.norm(dim=-1, keepdim=True) + step * second.norm(dim=-1, keepdim=True)
    return torch.nn.functional.normalize(mixed, dim=-1) * norm


def sample(sweep: Sweep) -> None:
    """`samples` sampled texts a row: `fve` and `centred_cosine` of their mean score
    (`sampled_mean`) and of the best (`sampled_best`), each with the same of the partner's samples
    as floor: the best of k is high by choice alone. `agreement`: mean Jaccard similarity of the
    word sets of two samples of a row (`sampled`), beside that of samples of two rows
    (`other_rows`)."""
    part, bench, settings = sweep.part, sweep.bench, sweep.bench.settings
    k = settings.samples
    how = replace(sweep.decoding, temperature=settings.temperature, seed=bench.seed)
    written = sweep.write(sweep.injected.repeat_interleave(k, dim=0), how)
    columns = [written[start::k] for start in range(k)]
    others = [of_partners(texts, sweep.partners) for texts in columns]
    for number, texts in enumerate(columns, 1):
        part.texts[f"sample_{number}"] = list(texts)
    if bench.ar is not None:
        for name in SCORED:
            own = np.stack([bench.score(texts)[name] for texts in columns])
            other = np.stack([bench.score(texts)[name] for texts in others])
            for condition, over in (("sampled_mean", np.mean), ("sampled_best", np.max)):
                floor = f"{condition}_other_row"
                part.measured += [
                    Measured(name, condition, over(own, axis=0), floor),
                    Measured(name, floor, over(other, axis=0)),
                ]
    if k == 1:
        part.notes.append("one sample a row: no agreement among samples")
        return
    part.measured += [
        Measured("agreement", "sampled", agreement(columns, columns, len(bench)), "other_rows"),
        Measured("agreement", "other_rows", agreement(columns, others, len(bench))),
    ]


def agreement(first: Sequence[Texts], second: Sequence[Texts], n: int) -> Values:
    """Mean similarity a row `(n,)` of draw i of `first` and draw j > i of `second`, each a list of
    texts a draw; NaN where a text is missing."""
    pairs = [
        [np.nan if a is None or b is None else similarity(a, b) for a, b in zip(x, y, strict=True)]
        for i, x in enumerate(first)
        for y in second[i + 1 :]
    ]
    return over_rows(np.mean(pairs, axis=0), n)


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of two texts' word sets, |A ∩ B| / |A ∪ B|; 1 where both have no word."""
    left, right = set(words(first)), set(words(second))
    return len(left & right) / len(left | right) if left | right else 1.0


def same_tail(part: Part, bench: Bench) -> None:
    """Pairs of rows of different documents that end in the same token: `same_tail_unique`, 1 where
    their texts differ, and `same_tail_gain`, the centred cosine of the row's own text less that of
    its partner's. What follows the last token alone gains nothing."""
    partners, two = tail_partners(bench)
    known = np.flatnonzero(partners >= 0)
    part.detail["same_tail"] = {"rows": len(known), "two_words": two}
    if len(known) < len(bench):
        part.notes.append(
            f"{len(bench) - len(known)} of {len(bench)} rows end in a token with which no row of "
            "another document ends"
        )
    if not len(known):
        return
    other = of_partners(bench.texts, partners)
    pairs = zip(bench.texts, other, strict=True)
    unique = [np.nan if b is None else float(a != b) for a, b in pairs]
    part.measured.append(Measured("same_tail_unique", "pairs", over_rows(unique, len(bench))))
    if bench.ar is not None:
        scores = [bench.score(texts)["centred_cosine"] for texts in (bench.texts, other)]
        part.measured.append(Measured("same_tail_gain", "pairs", scores[0] - scores[1]))


def tail_partners(bench: Bench) -> tuple[NDArray[np.int64], int]:
    """A row of another document `(n,)` with the same last token (the last word, where tokens are
    not recorded), −1 where there is none, and the number of rows that share their last two words
    with it, which are preferred."""
    rows, documents = bench.rows, np.asarray(bench.documents)
    ends = [words(source)[-2:] for source in rows.sources]
    tails = np.array(
        [token or "".join(end[-1:]) for token, end in zip(rows.tokens, ends, strict=True)]
    )
    phrases = np.array([" ".join(end) if len(end) == 2 else "" for end in ends])
    draw = np.random.default_rng([bench.seed, 21])
    partners, two = np.full(len(rows), -1, dtype=np.int64), 0
    for row, tail in enumerate(tails.tolist()):
        alike = (tails == tail) & (documents != documents[row]) & bool(tail)
        longer = alike & (phrases == phrases[row]) & bool(phrases[row])
        choices = np.flatnonzero(longer if longer.any() else alike)
        if choices.size:
            partners[row] = draw.choice(choices)
            two += bool(longer.any())
    return partners, two
