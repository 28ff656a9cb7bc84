"""How often do the 95% intervals hold the truth? Simulated documents of unequal size.

python benchmarks/coverage.py [--simulations 2000] [--out docs/results/coverage.md]

Twenty documents of 1 to 10 rows: a document's effect and noise a row. `used` is
`core.statistics.estimate`, `used for shares` is `estimate_share`; beside them the percentile
bootstrap over documents and the jackknife over documents with Student's t.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from scipy import stats

from nlakit.core.statistics import cluster_sums, estimate, estimate_share
from nlakit.run.folder import git_commit

DOCUMENTS, MOST_ROWS, DRAWS = 20, 10, 1000
Draw = Callable[[np.random.Generator], np.ndarray]
# Effect of a document; the truth is its mean, since sizes are drawn apart from effects.
EFFECTS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng: rng.standard_normal(DOCUMENTS), 0.0),
    "gamma(2)": (lambda rng: rng.gamma(2.0, 1.0, DOCUMENTS), 2.0),
    "exponential": (lambda rng: rng.exponential(1.0, DOCUMENTS), 1.0),
    "log-normal, σ = 0.6": (lambda rng: rng.lognormal(0, 0.6, DOCUMENTS), float(np.exp(0.18))),
    "0/1, p = 0.5": (lambda rng: rng.beta(1, 1, DOCUMENTS), 0.5),
    "0/1, p = 0.9": (lambda rng: rng.beta(4.5, 0.5, DOCUMENTS), 0.9),
    "0/1, p = 0.97": (lambda rng: rng.beta(4.85, 0.15, DOCUMENTS), 0.97),
    "0/1, p = 0.99": (lambda rng: rng.beta(4.95, 0.05, DOCUMENTS), 0.99),
}
NAMES = np.array([f"document {i}" for i in range(DOCUMENTS)])


def drawn(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Values and the document of each."""
    place = np.repeat(np.arange(DOCUMENTS), rng.integers(1, MOST_ROWS + 1, DOCUMENTS))
    effect = EFFECTS[kind][0](rng)[place]
    if kind.startswith("0/1"):
        return (rng.random(len(place)) < effect).astype(float), NAMES[place].tolist()
    return effect + rng.standard_normal(len(place)), NAMES[place].tolist()


def percentile(values: np.ndarray, names: list[str], rng: np.random.Generator) -> np.ndarray:
    sums, counts = cluster_sums(values, names)
    picks = rng.integers(0, len(sums), size=(DRAWS, len(sums)))
    means = sums[picks].sum(axis=1) / counts[picks].sum(axis=1)
    return np.quantile(means, [0.025, 0.975])


def jackknife(values: np.ndarray, names: list[str]) -> np.ndarray:
    sums, counts = cluster_sums(values, names)
    without = (sums.sum() - sums) / (counts.sum() - counts)
    k, mean = len(sums), sums.sum() / counts.sum()
    error = np.sqrt((k - 1) / k * np.sum((without - mean) ** 2))
    return mean + stats.t.ppf([0.025, 0.975], k - 1) * error


def coverage(kind: str, simulations: int, seed: int) -> dict[str, float]:
    """Method → share of the intervals that hold the truth."""
    rng, truth = np.random.default_rng(seed), EFFECTS[kind][1]
    shares = ["used for shares"] if kind.startswith("0/1") else []
    held: dict[str, int] = dict.fromkeys(
        ["percentile bootstrap", "jackknife t", "used", *shares], 0
    )
    for _ in range(simulations):
        values, names = drawn(kind, rng)
        found = estimate(values, names)
        ends = {
            "percentile bootstrap": percentile(values, names, rng),
            "jackknife t": jackknife(values, names),
            "used": (found.low, found.high),
        }
        if shares:
            share = estimate_share(values, names)
            ends["used for shares"] = (share.low, share.high)
        for method, (low, high) in ends.items():
            held[method] += bool(low <= truth <= high)
    return {method: count / simulations for method, count in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {kind: coverage(kind, given.simulations, given.seed) for kind in EFFECTS}
    error = np.sqrt(0.95 * 0.05 / given.simulations)
    lines = [
        "# Coverage of the 95% intervals",
        "",
        f"- command: `python benchmarks/coverage.py --simulations {given.simulations}`",
        f"- commit: {git_commit()}; seed {given.seed}; numpy {np.__version__}",
        f"- {datetime.now(UTC):%Y-%m-%d}; {platform.system()} {platform.machine()},"
        f" {os.cpu_count()} CPUs, Python {platform.python_version()}",
        f"- {DOCUMENTS} documents of 1 to {MOST_ROWS} rows, {given.simulations} simulations a case:"
        f" the standard error of a figure is {100 * error:.1f} points",
        "",
        f"| method | {' | '.join(found)} |",
        f"|---|{'---|' * len(found)}",
    ]
    for method in dict.fromkeys(name for one in found.values() for name in one):
        shares = " | ".join(
            f"{100 * one[method]:.1f}" if method in one else "–" for one in found.values()
        )
        lines.append(f"| {method} | {shares} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
