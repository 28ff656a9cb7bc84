"""Keep held-out rows of the pair in the box in the package, and a sample of its AV's training rows.

python scripts/make_box_rows.py runs/box-rows

The documents, parts, positions and labels are those of examples/gemma3-270m.yaml; only the
documents that are kept are read. Test rows come in the order of that run's table, so that they are
the rows it was evaluated on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nlakit.config.load import load_config
from nlakit.config.sections import RunConfig
from nlakit.data import activations, tables
from nlakit.data.labels import label as labels
from nlakit.data.labels.labeler import label_table
from nlakit.data.split import read_split
from nlakit.evaluate.conditions import pick_rows
from nlakit.files.parquet import read_table, write_table
from nlakit.files.rows import rows_of_file
from nlakit.models.subject import load_subject
from nlakit.run import pipeline
from nlakit.run.folder import RunDir

BOX = Path("src/nlakit/box/rows")
EXAMPLE = Path("examples/gemma3-270m.yaml")
TRAINING_DOCUMENTS, TRAINING_ROWS = 125, 4  # of the AV's part, and rows of each
COLUMNS = [
    "row_id", "doc_id", "source_family", "position", "n_raw_tokens", "activation_layer", "token",
    "detokenized_text_truncated", "api_explanation", "activation_vector",
]  # fmt: skip


def chosen(rundir: RunDir) -> dict[str, list[str]]:
    """Part → documents that are read."""
    split = read_split(rundir.need("split"))
    found: dict[str, list[str]] = {"test": [], "av": []}
    for doc, part in zip(split["doc_id"].to_pylist(), split["part"].to_pylist(), strict=True):
        if part in found:
            found[part].append(doc)
    drawn = np.random.default_rng(0).choice(found["av"], TRAINING_DOCUMENTS, replace=False)
    return found | {"av": sorted(drawn.tolist())}


def labelled(
    reader: activations.Reader, piece: pa.Table, config: RunConfig, rundir: RunDir
) -> pa.Table:
    """Rows of documents with their labels; rows without one stay out."""
    rows = activations.read_chunk(reader, piece, config)
    asked = labels.requests_of(rows)
    made = labels.checked(labels.offline_labeler(rundir).label(asked), asked, config.labels.limits)
    texts = label_table(made, asked)["api_explanation"].combine_chunks()
    rows = rows.append_column("api_explanation", texts)
    return rows.filter(rows["api_explanation"].is_valid())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder for the corpus and the split")
    given, config = parser.parse_args(), load_config(EXAMPLE)
    rundir = pipeline.run(config, given.run, stages=("corpus", "split"))
    corpus = read_table(rundir.need("corpus") / "corpus.parquet")
    reader = activations.Reader(
        load_subject(config.subject), [config.subject.layer], config.activations.expected_tokens
    )
    for part, documents in chosen(rundir).items():
        piece = corpus.filter(pc.field("doc_id").isin(documents))
        rows = labelled(reader, piece, config, rundir)
        order = np.random.default_rng([config.seed, tables.PARTS.index(part)])
        rows = rows.take(order.permutation(rows.num_rows)).select(COLUMNS)
        target = BOX / f"{part}.parquet"
        write_table(target, rows)
        kept = rows_of_file(target)
        count = config.eval.rows if part == "test" else TRAINING_DOCUMENTS * TRAINING_ROWS
        per_document = 2 if part == "test" else TRAINING_ROWS
        ids = pick_rows(kept, count, per_document).row_ids
        place = {row: i for i, row in enumerate(kept.row_ids)}
        write_table(target, rows.take([place[row] for row in ids]))
        print(f"{target}: {len(ids)} rows of {len(set(kept.doc_ids))} documents")


if __name__ == "__main__":
    main()
