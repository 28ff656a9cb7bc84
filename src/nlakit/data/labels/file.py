"""Labels that somebody made before, read from a file and joined to the rows at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from nlakit.config.labels import LabelFileConfig
from nlakit.config.sections import SourceConfig
from nlakit.data.labels.labeler import SCHEMA, Advance, Label, LabelRequest, text_sha256
from nlakit.data.sources import READERS, say_left_out
from nlakit.errors import ConfigError, DataError
from nlakit.files.text import ending

TEXT = "detokenized_text_truncated"
EXPLANATION = "api_explanation"
KEYS = ("text_sha256", TEXT, "row_id")  # labels are joined by the first of these that a file has
CARRIED = tuple(name for name in SCHEMA.names if name not in KEYS)
KINDS = {field.name: field.type for field in SCHEMA} | {TEXT: pa.string()}
BATCH_ROWS = 4096
LONGEST_CSV_ROW = 1 << 26  # bytes; pyarrow's own limit of 1 MB is shorter than some texts

# nlakit's column: the file's.
Columns = Mapping[str, str]
Choose = Callable[[Sequence[str]], Columns]
Batches = Iterator[tuple[Columns, pa.Table]]


class FileLabeler:
    """Labels that somebody made before, found by the text they describe.

    Texts must be equal to the character. White space at the end is the token being read, so texts
    that differ in it alone are neighbouring rows with labels of their own; and a text in another
    Unicode form is another sequence of tokens, with another activation. So a label is found by
    its text exactly where it is found by `text_sha256`.

    A text may have several labels if their row_id says which row each belongs to.

    rows: how many will be asked for in all. It is an error if none of them is in the file, and
    one chunk, or the rest of a resumed run, cannot tell.

    Raises ConfigError for a column that nlakit does not have, DataError for a file that is missing,
    broken or empty, or lacks a column.
    """

    def __init__(self, config: LabelFileConfig, rows: int | None = None) -> None:
        self.path = Path(config.path).expanduser()
        self.name = f"file:{self.path.absolute().name}"
        self._config = config
        unknown = sorted(set(config.columns) - set(KINDS))
        if unknown:
            raise ConfigError(
                "labels.file.columns names a column that labels have not",
                found=", ".join(unknown),
                do=f"nlakit's column: the file's; nlakit's are {', '.join(KINDS)}",
            )
        self._awaited, self._matched = rows, False
        self._names: Sequence[str] = ()  # of the columns, and an example, for errors
        self._example = ""
        files = label_files(self.path)
        left_out = [file for file in _candidates(self.path) if file not in files]
        say_left_out(self.path, [str(file.relative_to(self.path)) for file in left_out])
        tables = [table for file in files for table in self._read(file)]
        if not sum(table.num_rows for table in tables):
            raise DataError(f"{self.path} has no labels", found="0 rows", do="give another file")
        # One chunk a column: rows are taken from it by index, again and again.
        self._table = pa.concat_tables(tables).combine_chunks()
        self._rows: dict[str, list[int]] = {}
        for index, key in enumerate(self._table["key"].to_pylist()):
            self._rows.setdefault(key, []).append(index)
        self._table = self._table.drop_columns("key")

    def label(
        self, requests: Sequence[LabelRequest], advance: Advance = lambda rows: None
    ) -> list[Label]:
        """The labels of the file; rows it lacks get the reason `not_in_file`.

        Raises DataError where the file has different labels for a row, or no label for any.
        """
        found = [self._find(request) for request in requests]
        taken = self._table.take(pa.array([i for i in found if i is not None], pa.int64()))
        rows = iter(taken.drop_columns("row_id").to_pylist())
        labels = [
            Label(request.row_id, None, "not_in_file")
            if index is None
            else self._label(request.row_id, next(rows))
            for request, index in zip(requests, found, strict=True)
        ]
        self._count(requests, matched=taken.num_rows > 0)
        advance(len(requests))
        return labels

    def close(self) -> None:
        """Nothing is held open."""

    def _count(self, requests: Sequence[LabelRequest], *, matched: bool) -> None:
        """Raise DataError once all rows have been asked for, if none was found."""
        self._matched |= matched
        if self._awaited is None or not requests:
            return
        self._awaited -= len(requests)
        if self._awaited <= 0 and not self._matched:
            row_id, text = requests[0].row_id, requests[0].text
            raise DataError(
                f"no row of the run is in {self.path}",
                found=f"{self._table.num_rows} labels, such as that of {self._example}, in columns "
                f"{', '.join(self._names)}; the run has row_id {row_id!r}, "
                f"text_sha256 {text_sha256(text)!r}, text {_end(text)}",
                do="see that labels.file.columns names the right columns, and that subject, "
                "corpus, activations and seed are those the labels were made with",
            )

    def _find(self, request: LabelRequest) -> int | None:
        """Index of the label of a row, None if it has none."""
        for key in (text_sha256(request.text), request.row_id):
            if found := self._rows.get(key):
                return found[0] if len(found) == 1 else self._pick(key, request.row_id, found)
        return None

    def _pick(self, key: str, row_id: str, found: list[int]) -> int:
        """The one label among several of a key: the row's own; else any, if they all agree."""
        rows = self._table.select(["row_id", EXPLANATION]).take(found).to_pylist()
        own = [index for index, row in enumerate(rows) if row["row_id"] == row_id]
        texts = {rows[index][EXPLANATION]: index for index in own or range(len(rows))}
        if len(texts) > 1:
            texts.pop(None, None)
        if len(texts) > 1:
            shown = " and ".join(repr(text[:60]) for text in list(texts)[:2])
            raise DataError(
                f"{self.path} has different labels for one key: {key}",
                found=f"{shown} (row {row_id})",
                do="keep one of them, or give the row_id of each",
            )
        return found[texts.popitem()[1]]

    def _label(self, row_id: str, row: dict[str, Any]) -> Label:
        explanation = row.pop(EXPLANATION)
        if explanation is None:
            row["reason"] = row["reason"] or "no_label"
        else:
            row["reason"] = None
            row["labeler_model"] = row["labeler_model"] or self.name
        return Label(row_id, explanation, **row)

    def _read(self, file: Path) -> Iterator[pa.Table]:
        """Tables of key, row_id and what is carried; texts are hashed and let go."""
        try:
            for columns, table in LABEL_READERS[ending(file)](
                file, lambda names: self._choose(file, names)
            ):
                yield self._shaped(file, columns, table)
        except (pa.ArrowException, OSError, UnicodeError, OverflowError) as error:
            raise DataError(
                f"the labels in {file} cannot be read",
                found=(str(error).splitlines() or [type(error).__name__])[0],
                do="mend the file, or write it again",
            ) from error

    def _choose(self, file: Path, names: Sequence[str]) -> Columns:
        """The columns to read of those a file has: the key, row_id, the label, its provenance."""
        given, self._names = self._config.columns, names
        wanted = {name: given.get(name, name) for name in KINDS}
        chosen = {
            name: column
            for name, column in wanted.items()
            if column in names or name in given or name == EXPLANATION
        }
        key = next((name for name in KEYS if name in chosen), None)
        wrong = [column for column in chosen.values() if names.count(column) != 1]
        if key is None or wrong:
            what = "no column to find a row by" if not wrong else f"no one column {wrong[0]!r}"
            raise DataError(
                f"{file} has {what}",
                found=f"columns {', '.join(map(str, names)) or '(none)'}",
                do=f"set labels.file.columns, nlakit's column: the file's, for {EXPLANATION} and "
                f"one of {', '.join(KEYS)}",
            )
        if key != TEXT:
            chosen.pop(TEXT, None)
        return chosen

    def _shaped(self, file: Path, columns: Columns, table: pa.Table) -> pa.Table:
        read = {name: _cast(file, table, columns.get(name), KINDS[name]) for name in CARRIED}
        read["row_id"] = _cast(file, table, columns.get("row_id"), pa.string())
        by = next(name for name in KEYS if name in columns)
        key = _cast(file, table, columns[by], pa.string())
        if key.null_count:
            raise DataError(
                f"{file} has rows without a value in {columns[by]!r}, by which labels are found",
                found=f"{key.null_count} of {table.num_rows} rows",
                do="delete these rows, or name another column in labels.file.columns",
            )
        if not self._example and table.num_rows:
            self._example = f"{columns[by]} {_end(key[0].as_py())}"
        if by == TEXT:
            key = pa.array([text_sha256(text) for text in key.to_pylist()], pa.string())
        return pa.table({"key": key, **read})


def _cast(file: Path, table: pa.Table, column: str | None, kind: pa.DataType) -> Any:
    """A column as `kind`; nulls where the file has no such column."""
    if column is None:
        return pa.nulls(table.num_rows, kind)
    values = table[column]
    try:
        if pa.types.is_integer(kind) and not pa.types.is_integer(values.type):
            # CSV of other tools writes 12.0 where a column has gaps.
            values = values.cast(pa.float64())
        return values.cast(kind)
    except pa.ArrowException as error:
        raise DataError(
            f"the column {column!r} of {file} cannot be read as {kind}",
            found=str(error).splitlines()[0],
            do="mend the file, or name another column in labels.file.columns",
        ) from error


def _end(text: str) -> str:
    return repr(text if len(text) <= 64 else "…" + text[-64:])


def label_files(path: Path) -> list[Path]:
    """The label files at a path: itself, or those below a folder, by name, hidden ones left out.

    Raises DataError if there is none.
    """
    kinds = ", ".join(LABEL_READERS)
    if not path.exists():
        raise DataError(
            f"there are no labels at {path}",
            found=f"working folder {Path.cwd()}",
            do=f"set labels.file.path to a file ({kinds}) or a folder of them",
        )
    files = _candidates(path)
    chosen = [file for file in files if ending(file) in LABEL_READERS]
    if not chosen:
        endings = sorted({file.suffix or "(none)" for file in files})
        raise DataError(
            f"{path} is no label file and holds none",
            found=f"endings {', '.join(endings)}" if endings else "no files",
            do=f"supported endings: {kinds}",
        )
    return chosen


def _candidates(path: Path) -> list[Path]:
    """A file itself, or all files below a folder by name, hidden ones left out."""
    if not path.is_dir():
        return [path]
    inside = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    return sorted(path / file for file in inside if not _hidden(file))


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _read_parquet(file: Path, choose: Choose) -> Batches:
    with pq.ParquetFile(file) as opened:
        columns = choose(opened.schema_arrow.names)
        names = list(dict.fromkeys(columns.values()))
        for batch in opened.iter_batches(batch_size=BATCH_ROWS, columns=names):
            yield columns, pa.Table.from_batches([batch])


def _read_csv(file: Path, choose: Choose) -> Batches:
    read = pacsv.ReadOptions(block_size=LONGEST_CSV_ROW)
    parse = pacsv.ParseOptions(newlines_in_values=True)
    with pacsv.open_csv(file, read, parse) as opened:
        columns = choose(opened.schema.names)
    names = list(dict.fromkeys(columns.values()))
    convert = pacsv.ConvertOptions(
        include_columns=names,
        column_types=dict.fromkeys(names, pa.string()),  # else row 12:30 is read as a time
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
    )
    with pacsv.open_csv(file, read, parse, convert) as opened:
        for batch in opened:
            yield columns, pa.Table.from_batches([batch])


def _read_jsonl(file: Path, choose: Choose) -> Batches:
    records = READERS[".jsonl"](SourceConfig(), file)
    seen: dict[str, None] = {}  # a line may leave out what is null
    while rows := [row for _, row in islice(records, BATCH_ROWS)]:
        seen |= dict.fromkeys(chain.from_iterable(rows))
        columns = choose(list(seen))
        names = columns.values()
        yield columns, pa.table({name: [row.get(name) for row in rows] for name in names})


LABEL_READERS: dict[str, Callable[[Path, Choose], Batches]] = {
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
}
