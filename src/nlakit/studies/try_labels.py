"""Label a few rows before all are paid for, and show what these labels are worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from nlakit.config.sections import RunConfig
from nlakit.data.corpus import order_key
from nlakit.data.labels.label import checked, make_labeler, offline_labeler, requests_of
from nlakit.data.labels.labeler import Label, label_table
from nlakit.data.labels.offline import OfflineLabeler
from nlakit.data.labels.quality import lines, quality
from nlakit.data.split import read_split
from nlakit.errors import ConfigError
from nlakit.files.parquet import read_table
from nlakit.run.folder import RunDir
from nlakit.run.progress import ticker
from nlakit.studies.trial import TrialReport, compare


def run_trial(config: RunConfig, rundir: RunDir, count: int) -> tuple[TrialReport, list[str]]:
    """Label `count` rows with the configured labeler and compare it with the offline one.

    Answers that are paid for stay in the store, so labelling all rows later pays for the rest.
    Returns the report, and lines on the labels' quality and on what all rows will cost.
    Raises ConfigError if the offline labeler is the configured one, and what labelling raises.
    """
    settings = config.labels
    if settings.labeler == "offline":
        raise ConfigError(
            "a trial compares a labeler with the offline one",
            found="labels.labeler: offline",
            do="configure labels.services or labels.file first",
        )
    with rundir.lock():
        table = pick_rows(rundir, count, config.seed)
        asked = requests_of(table)
        labeler = make_labeler(config, rundir, len(asked))
        try:
            with ticker("trial labels", len(asked)) as progress:
                made = checked(labeler.label(asked, progress.advance), asked, settings.limits)
        finally:
            labeler.close()
        name = settings.services[0].name if settings.services else "file"
        found = {name: made, OfflineLabeler.name: offline_labeler(rundir).label(asked)}
        texts = {who: {one.row_id: one.explanation for one in rows} for who, rows in found.items()}
        sources = {one.row_id: one.text for one in asked}
        families = dict(zip(sources, table["source_family"].to_pylist(), strict=True))
        report = quality(label_table(made, asked), sources, families, settings.limits)
        total = read_table(rundir.need("activations"), ["row_id"]).num_rows
        said = [*lines(report), _price_of_all(made, total)]
        return compare(config, table, texts, rundir.path / "trial"), said


def _price_of_all(made: Sequence[Label], total: int) -> str:
    costs = [one.cost for one in made]
    if any(cost is None for cost in costs):
        return f"all {total} rows: cost unknown"
    mean = sum(cost or 0.0 for cost in costs) / len(costs)
    return f"all {total} rows at this cost a row: about ${mean * total:.2f}, failed requests apart"


def pick_rows(rundir: RunDir, count: int, seed: int) -> pa.Table:
    """`count` rows of the finished activations stage (all if there are fewer), in its order and
    columns: one of each document in turn, documents and rows drawn by a key of the seed and their
    ids alone. Once the split is finished, never a row of the `test` part.

    Raises RunError if the activations are not finished.
    """
    folder = rundir.need("activations")
    names = read_table(folder, ["row_id", "doc_id"])
    pairs = list(zip(names["row_id"].to_pylist(), names["doc_id"].to_pylist(), strict=True))
    if rundir.manifest("split") is not None:
        split = read_split(rundir.need("split")).filter(pc.field("part") != "test")
        allowed = set(split["doc_id"].to_pylist())
        pairs = [(row, doc) for row, doc in pairs if doc in allowed]
    turns: Counter[str] = Counter()
    drawn: list[tuple[int, bytes, str]] = []
    for row, doc in sorted(pairs, key=lambda pair: order_key(seed, "trial", pair[0])):
        drawn.append((turns[doc], order_key(seed, "trial", doc), row))
        turns[doc] += 1
    picked = pc.field("row_id").isin(pa.array([row for *_, row in sorted(drawn)[:count]]))
    # A file at a time: the vectors of a large run need not fit into memory.
    files = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([read_table(file).filter(picked) for file in files])
