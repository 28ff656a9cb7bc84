"""Label every row of the training and test parts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from nlakit.config.labels import LabelsConfig, RequestsConfig
from nlakit.config.sections import RunConfig
from nlakit.core.text.lint import Limits, first_hard, lint
from nlakit.data.labels.file import FileLabeler, label_files
from nlakit.data.labels.labeler import Label, Labeler, LabelRequest, label_table
from nlakit.data.labels.offline import Background, OfflineLabeler
from nlakit.data.labels.quality import lines, quality, write_sheet
from nlakit.errors import DataError, RunError
from nlakit.files.parquet import read_table, write_table
from nlakit.files.text import as_json
from nlakit.run.folder import Rows, RunDir, atomic_write
from nlakit.run.inputs import Reads
from nlakit.run.progress import say, ticker
from nlakit.run.stage import stage

COLUMNS = [
    "row_id",
    "detokenized_text_truncated",
    "token",
    "expected_tokens",
    "expected_chances",
    "source_family",
]


def make_labeler(config: RunConfig, rundir: RunDir, rows: int) -> Labeler:
    """The labeler of the configuration, for a stage of `rows` rows."""
    settings = config.labels
    if settings.labeler == "file":
        assert settings.file is not None, "checked in the configuration"
        return FileLabeler(settings.file, rows)
    if settings.labeler == "services":
        from nlakit.data.labels.services.labeler import ServiceLabeler

        path, run = store_path(config.requests, rundir.path.parent), str(rundir.path.resolve())
        return ServiceLabeler(settings, config.requests, path, run, rows)
    return offline_labeler(rundir)


def offline_labeler(rundir: RunDir) -> OfflineLabeler:
    corpus = read_table(rundir.need("corpus") / "corpus.parquet", ["text"])
    return OfflineLabeler(Background(corpus["text"].to_pylist()))


def store_path(requests: RequestsConfig, folder: Path) -> Path:
    """Where answers are kept: in `requests.store`, else in `folder`. For a run that is the folder
    beside it, so that all runs there share them."""
    return Path(requests.store).expanduser() if requests.store else folder / "answers.sqlite"


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
    labels: Sequence[Label], requests: Sequence[LabelRequest], limits: Limits
) -> list[Label]:
    """Labels, with those that the linter finds unfit to train on refused.

    Raises DataError if the labeler lost a row.
    """
    if [label.row_id for label in labels] != [request.row_id for request in requests]:
        raise DataError(
            "the labeler returned other rows than it was given",
            do="a labeler gives one answer a row, in their order",
        )
    result = []
    for label, request in zip(labels, requests, strict=True):
        fault = None
        if label.explanation is not None:
            fault = first_hard(lint(label.explanation, request.text, limits))
        refused = dataclasses.replace(label, explanation=None, reason=fault)
        result.append(refused if fault else label)
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


def refuse_other_prompts(folder: Path, settings: LabelsConfig) -> None:
    """Raise RunError if finished chunks were made with prompts other than the present ones: the
    settings hold the names of prompt files, which may have been edited between two sittings."""
    parts = sorted(folder.glob("part-*.parquet"))
    if settings.labeler != "services" or not parts:
        return
    from nlakit.data.labels.services.prompts import load_prompts

    prompts = load_prompts(settings.prompts)
    table = read_table(folder, ["labeler_prompt", "auditor_prompt"])
    auditor = prompts.auditor.version if settings.auditor else None
    now = {"labeler_prompt": prompts.labeler.version, "auditor_prompt": auditor}
    for name, version in now.items():
        found = set(table[name].to_pylist())
        if found != {version}:
            raise RunError(
                f"the {name.replace('_', ' ')} has changed since this labelling began",
                found=f"{', '.join(map(str, found))} in finished chunks, now {version}",
                do="put the old prompt back, or begin anew with --redo; stored answers stay",
            )


def warn_of_marker(marker: str | None, texts: Sequence[str]) -> None:
    """Say, before labels are paid for, that the marker set occurs in texts: a label that quotes it
    is of no use."""
    found = sum(marker in text for text in texts) if marker else 0
    if found:
        say(
            f"tables.marker {marker!r} stands in {found} of {len(texts)} texts: rows whose label "
            "quotes it will be dropped; leave it unset to search for another"
        )


def files_read(config: RunConfig) -> Reads:
    """Labels made before, or the prompts that replace nlakit's own."""
    settings = config.labels
    if settings.labeler == "file" and settings.file is not None:
        path = Path(settings.file.path).expanduser()
        return {settings.file.path: label_files(path)} if path.exists() else {}
    named = settings.prompts.model_dump().values() if settings.labeler == "services" else ()
    prompts = {name: Path(name).expanduser() for name in named if name}
    return {name: [path] for name, path in prompts.items() if path.is_file()}


@stage("labels", parents=("corpus", "activations"), sections=("labels",), outside=files_read)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Write `part-NNNNN.parquet` (the columns of labeler.SCHEMA), quality.json and sheet.csv."""
    settings: LabelsConfig = config.labels
    table = read_table(rundir.need("activations"), COLUMNS)
    refuse_other_prompts(folder, settings)
    warn_of_marker(config.tables.marker, table["detokenized_text_truncated"].to_pylist())
    labeler = make_labeler(config, rundir, table.num_rows)
    try:
        with ticker("labels", table.num_rows) as progress:
            for number, start in enumerate(range(0, table.num_rows, settings.rows_per_chunk)):
                target = folder / f"part-{number:05d}.parquet"
                piece = table.slice(start, settings.rows_per_chunk)
                if target.exists():
                    progress.skip(piece.num_rows)
                    continue
                asked = requests_of(piece)
                found = checked(labeler.label(asked, progress.advance), asked, settings.limits)
                write_table(target, label_table(found, asked))
    finally:
        labeler.close()
    return _summary(folder, table, settings)


def _summary(folder: Path, rows: pa.Table, settings: LabelsConfig) -> Rows:
    table = read_table(folder)
    texts = [text for text in table["api_explanation"].to_pylist() if text is not None]
    reasons = Counter(reason for reason in table["reason"].to_pylist() if reason is not None)
    if not texts:
        raise DataError("no row got a label", found=dict(reasons), do="check the labeler")
    check_duplicates(texts, settings.max_duplicate_share)
    ids = rows["row_id"].to_pylist()
    sources = dict(zip(ids, rows["detokenized_text_truncated"].to_pylist(), strict=True))
    families = dict(zip(ids, rows["source_family"].to_pylist(), strict=True))
    report = quality(table, sources, families, settings.limits)
    atomic_write(folder / "quality.json", as_json(report, indent=1) + "\n")
    write_sheet(folder / "sheet.csv", table, sources, families)
    for line in lines(report):
        say(line)
    return Rows(entered=table.num_rows, kept=len(texts), dropped=dict(reasons))
