"""Label every row of the training and test parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from nlakit.config import LabelsConfig, RunConfig
from nlakit.core.textstats import words
from nlakit.data.labeler import Label, Labeler, LabelRequest
from nlakit.data.offline import Background, OfflineLabeler
from nlakit.errors import DataError
from nlakit.parquet import read_table, write_table
from nlakit.progress import ticker
from nlakit.rundir import Rows, RunDir
from nlakit.stage import stage

COLUMNS = [
    "row_id",
    "detokenized_text_truncated",
    "token",
    "expected_tokens",
    "expected_chances",
]


def make_labeler(config: RunConfig, rundir: RunDir) -> Labeler:
    """The labeler of the configuration."""
    corpus = read_table(rundir.need("corpus") / "corpus.parquet", ["text"])
    return OfflineLabeler(Background(corpus["text"].to_pylist()))


def requests_of(table: pa.Table) -> list[LabelRequest]:
    return [
        LabelRequest(
            row["row_id"],
            row["detokenized_text_truncated"],
            row["token"],
            tuple(zip(row["expected_tokens"], row["expected_chances"], strict=True)),
        )
        for row in table.to_pylist()
    ]


def checked(
    labels: Sequence[Label], requests: Sequence[LabelRequest], min_words: int
) -> list[Label]:
    """Labels with those refused that are empty, too short, or not of their request.

    Short labels teach the AV to say nothing. Raises DataError if the labeler lost a row.
    """
    if [label.row_id for label in labels] != [request.row_id for request in requests]:
        raise DataError("the labeler returned other rows than it was given")
    result = []
    for label in labels:
        if label.explanation is None:
            result.append(label)
        elif not label.explanation.strip():
            result.append(Label(label.row_id, None, "empty"))
        elif len(words(label.explanation)) < min_words:
            result.append(Label(label.row_id, None, "too_short"))
        else:
            result.append(label)
    return result


def check_duplicates(explanations: Sequence[str], allowed: float) -> float:
    """Share of labels equal to an earlier one; DataError above `allowed`."""
    share = 1 - len(set(explanations)) / max(len(explanations), 1)
    if share > allowed:
        text, count = Counter(explanations).most_common(1)[0]
        raise DataError(
            "too many labels are equal: a verbalizer would learn to repeat them",
            found=f"{share:.1%} duplicates, {count} x {text[:60]!r}",
            do="use another labeler, or raise labels.max_duplicate_share",
        )
    return share


@stage("labels", parents=("corpus", "activations"), sections=("labels",))
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write `part-NNNNN.parquet` (row_id, api_explanation, reason, labeler_model)."""
    settings: LabelsConfig = config.labels
    table = read_table(rundir.need("activations"), COLUMNS)
    labeler = make_labeler(config, rundir)
    with ticker("labels", table.num_rows) as progress:
        for number, start in enumerate(range(0, table.num_rows, settings.rows_per_chunk)):
            target = folder / f"part-{number:05d}.parquet"
            piece = table.slice(start, settings.rows_per_chunk)
            if target.exists():
                progress.skip(piece.num_rows)
                continue
            asked = requests_of(piece)
            found = checked(labeler.label(asked), asked, settings.min_words)
            write_table(target, _columns(found, labeler.name))
            progress.advance(piece.num_rows)
    return _summary(folder, settings)


def _columns(labels: Sequence[Label], name: str) -> dict[str, pa.Array]:
    return {
        "row_id": pa.array([label.row_id for label in labels], pa.string()),
        "api_explanation": pa.array([label.explanation for label in labels], pa.string()),
        "reason": pa.array([label.reason for label in labels], pa.string()),
        "labeler_model": pa.array([name] * len(labels), pa.string()),
    }


def _summary(folder: Path, settings: LabelsConfig) -> Rows:
    table = read_table(folder)
    texts = [text for text in table["api_explanation"].to_pylist() if text is not None]
    reasons = Counter(reason for reason in table["reason"].to_pylist() if reason is not None)
    if not texts:
        raise DataError("no row got a label", found=dict(reasons), do="check the labeler")
    check_duplicates(texts, settings.max_duplicate_share)
    return Rows(entered=table.num_rows, kept=len(texts), dropped=dict(reasons))
