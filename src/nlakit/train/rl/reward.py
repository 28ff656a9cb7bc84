"""What a drawn text is worth: how well its vector comes back, and what was asked for besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nlakit.config.rl import RewardConfig
from nlakit.core.metrics import centred_cosine, cosine
from nlakit.core.text.transforms import sentence_shuffle
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.verbalizer import Verbalizer
from nlakit.train.rl.rollout import Rollouts

Values = NDArray[np.float64]
CLOSEST = 1e-4  # a squared distance; the logarithm of 0 is none
# What a reconstruction at a right angle is worth, by kind: so is a text that failed.
ORTHOGONAL = {"mse": -2.0, "log_mse": -float(np.log(2.0)), "centred": 0.0}
# (source, reconstructions (m, d) of its texts) → KL (m,) in nats.
Functional = Callable[[str, NDArray[np.float32]], Values]


def worth(
    kind: str, real: NDArray[np.floating], made: NDArray[np.floating], mean: NDArray[np.floating]
) -> Values:
    """Reward `(m,)` of reconstructions `(m, d)` of vectors `(m, d)`: −‖u − û‖², −log ‖u − û‖², or
    cos(u − ū, û − ū)."""
    if kind == "centred":
        return centred_cosine(real, made, mean).astype(np.float64)
    distance = (2 - 2 * cosine(real, made)).astype(np.float64)
    return -distance if kind == "mse" else -np.log(np.maximum(distance, CLOSEST))


@dataclass(frozen=True)
class Rewarder:
    """Parts of the reward of rollouts, each `(n·G,)`; their sum is the reward.

    live, frozen: the AR that learns, and as it was before RL. limit: the budget of a text in
    tokens. functional: what the subject does with a reconstruction, where that is paid for.
    """

    settings: RewardConfig
    av: Verbalizer
    live: Reconstructor
    frozen: Reconstructor
    mean: NDArray[np.floating]
    limit: int
    functional: Functional | None = None

    def parts(
        self,
        rollouts: Rollouts,
        vectors: NDArray[np.float32],
        sources: Sequence[str],
        key: Sequence[int],
    ) -> dict[str, Values]:
        """Part → `(n·G,)` of texts of the vectors `(n, d)`, which were read in the sources; `key`
        decides cuts and orders."""
        rng, settings = np.random.default_rng(list(key)), self.settings
        real = vectors[rollouts.vector_of]
        seen = self._seen(rollouts, rng)
        found = {"live": np.zeros(len(seen)), "frozen": np.zeros(len(seen))}
        share = settings.frozen_share
        if share < 1:
            found["live"] = (1 - share) * self._paid(self.live, seen, real, rollouts)
        if share > 0:
            found["frozen"] = share * self._paid(self.frozen, seen, real, rollouts)
        if settings.shuffle:
            shuffled = [sentence_shuffle(text, rng) for text in seen]
            found["shuffle"] = settings.shuffle * self._paid(self.live, shuffled, real, rollouts)
        if settings.functional:
            found["functional"] = -settings.functional * self._diverged(seen, rollouts, sources)
        if settings.length:
            beyond = np.maximum(rollouts.lengths - settings.free_tokens, 0)
            found["length"] = -settings.length * beyond / self.limit
        if settings.entropy:
            chance = [-float(np.mean(one)) for one in rollouts.log_p]
            found["entropy"] = settings.entropy * np.array(chance)
        return found

    def _seen(self, rollouts: Rollouts, rng: np.random.Generator) -> list[str]:
        """What the ARs see of the texts: of some a random beginning."""
        seen, tag = list(rollouts.texts), len(self.av.close)
        for at, tokens in enumerate(rollouts.tokens):
            said = len(tokens) - tag if rollouts.whole[at] else len(tokens)  # no cut inside the tag
            if rng.random() < self.settings.prefix_share and said > 1:
                seen[at] = self.av.text_of(tokens[: int(rng.integers(1, said))])
        return seen

    def _paid(
        self,
        ar: Reconstructor,
        texts: Sequence[str],
        real: NDArray[np.float32],
        rollouts: Rollouts,
    ) -> Values:
        values = worth(self.settings.kind, real, reconstructed(ar, texts), self.mean)
        return np.where(rollouts.whole, values, ORTHOGONAL[self.settings.kind])

    def _diverged(self, seen: Sequence[str], rollouts: Rollouts, sources: Sequence[str]) -> Values:
        """KL `(n·G,)` of the subject's next token; for a failed text that of patched ū."""
        assert self.functional is not None, "the training that pays for it gives it"
        made = reconstructed(self.live, seen)
        made[~rollouts.whole] = self.mean
        groups = np.split(made, len(made) // rollouts.samples)
        return np.concatenate([self.functional(*one) for one in zip(sources, groups, strict=True)])


def reconstructed(ar: Reconstructor, texts: Sequence[str]) -> NDArray[np.float32]:
    """Reconstructions `(m, d)` in evaluation mode; equal texts are read once."""
    ar.eval()
    distinct = list(dict.fromkeys(texts))
    made = dict(zip(distinct, ar.reconstruct(distinct), strict=True))
    return np.stack([made[text] for text in texts])
