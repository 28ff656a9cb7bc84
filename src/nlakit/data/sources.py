"""Where documents come from: the embedded corpus, files, folders, Hugging Face datasets."""

from __future__ import annotations

import csv
import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nlakit.config.sections import SourceConfig
from nlakit.core.text.messages import checked, plain_text
from nlakit.errors import ConfigError, DataError
from nlakit.files.messages import conversation_in
from nlakit.files.text import (
    as_json,
    bare_name,
    decoded_lines,
    ending,
    holds_rows,
    read_json,
    read_jsonl,
)
from nlakit.run.progress import say

# What lies beside the data of many folders: texts, but no documents.
BESIDE = re.compile(r"(licen[cs]e|copying|notice|readme|requirements)([-_.].*)?", re.IGNORECASE)
SHOWN_NAMES = 5
BATCH_ROWS = 1024
LONGEST_FIELD = 2**31 - 1


@dataclass(frozen=True)
class Document:
    """`messages` are a conversation's, as JSON; its text is what they say."""

    doc_id: str
    source_family: str
    text: str
    messages: str = ""


# A record is one row as it was found, with words that say where: "notes.csv line 7".
Record = tuple[str, Mapping[str, Any]]


def read_source(source: SourceConfig) -> Iterator[Document]:
    """Yield the documents of one source in their own order, at most `source.limit`.

    A null text becomes an empty one, for the corpus stage to drop and count. Raises DataError for
    a file that is missing, empty, unsupported or broken, an absent column or a text that is not a
    string; ConfigError for a dataset with a path or without a limit.
    """
    count = 0
    try:
        for document in islice(_open(source), source.limit):
            count += 1
            yield document
    except OSError as error:
        raise DataError(
            f"{source.path} cannot be read",
            found=str(error),
            do="check the path, and that you may read it",
        ) from error
    if count == 0:
        name = source.dataset or source.path
        raise DataError(f"{name} has no documents", found="0 rows", do="give another source")


def _open(source: SourceConfig) -> Iterator[Document]:
    if source.dataset is not None:
        return _read_hub(source)
    if source.path == "demo":
        return _read_demo(source)
    path = Path(source.path).expanduser()
    if path.is_dir():
        return _read_folder(source, path)
    if not path.exists():
        raise DataError(
            f"the source {path} does not exist",
            found=f"working folder {Path.cwd()}",
            do="give 'demo', a file or a folder in corpus.sources",
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", found="0 bytes", do="give another source")
    name = bare_name(path)
    return _documents(source, _read_file(source, path), name, name)


def source_files(source: SourceConfig) -> list[Path]:
    """The files that a source is read from; none for the embedded corpus, a dataset, or what is not
    on this machine."""
    path = Path(source.path).expanduser()
    if source.dataset is not None or source.path == "demo" or not path.exists():
        return []
    return (
        [path / name for name in _with_documents(path, _names(path))] if path.is_dir() else [path]
    )


def _documents(
    source: SourceConfig, records: Iterable[Record], prefix: str, family: str
) -> Iterator[Document]:
    """Documents of records; `prefix` names those without an id, `family` those without one."""
    family = source.family or family
    for index, (where, row) in enumerate(records):
        need_columns(where, wanted_columns(source), list(row))
        yield Document(
            _label(where, row, source.id_column) if source.id_column else f"{prefix}-{index:07d}",
            _label(where, row, source.family_column) if source.family_column else family,
            *_words(where, row, source),
        )


def wanted_columns(source: SourceConfig) -> list[str]:
    """Names of the columns the source is configured to read."""
    words = source.messages_column or source.text_column
    columns = (words, source.id_column, source.family_column)
    return [column for column in columns if column is not None]


def need_columns(where: str, wanted: Sequence[str], found: Sequence[str]) -> None:
    """Raise DataError if a wanted column is not among those found."""
    for column in wanted:
        if column not in found:
            raise DataError(
                f"{where} has no column {column!r}",
                found=f"columns {', '.join(map(str, found)) or '(none)'}",
                do="set text_column, messages_column, id_column or family_column of the source",
            )


def _words(where: str, row: Mapping[str, Any], source: SourceConfig) -> tuple[str, str]:
    """The text of a row, and its messages as JSON if it is a conversation."""
    if source.messages_column is None:
        return _text(where, row[source.text_column]), ""
    value = row[source.messages_column]
    if value is None:
        return "", ""
    messages = checked(conversation_in(value, where), where)
    return _text(where, plain_text(messages)), as_json(messages)


def _text(where: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"the text of {where} is not a string",
            found=f"{type(value).__name__} {str(value)[:60]!r}",
            do="set text_column to a column of strings",
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} is not valid Unicode",
            found=f"half a surrogate pair at character {error.start}",
            do="mend the file",
        ) from error
    return value


def _label(where: str, row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is None or not str(value).strip():
        raise DataError(
            f"{where} has no value in {column!r}",
            found=repr(value),
            do="fill the column, or leave its setting out",
        )
    return _text(where, str(value))


def _read_demo(source: SourceConfig) -> Iterator[Document]:
    resource = resources.files("nlakit.data") / "demo" / "corpus.parquet"
    if not resource.is_file():
        raise DataError(
            "the embedded corpus is missing", found=str(resource), do="install nlakit again"
        )
    family_column = None if source.family else "source_family"
    names = {"text_column": "text", "id_column": "doc_id", "family_column": family_column}
    source = source.model_copy(update=names)
    with resources.as_file(resource) as path:
        yield from _documents(source, _read_parquet(source, path), "demo", "demo")


def _read_folder(source: SourceConfig, folder: Path) -> Iterator[Document]:
    """All documents below a folder, by the names of their files; what is left out is reported.

    A text file's family is the folder it lies in: one family for each document would leave nothing
    to stratify the split by.
    """
    names = _names(folder)
    chosen = _with_documents(folder, names)
    if not chosen:
        endings = sorted({"".join(name.suffixes[-2:]) or "(none)" for name in names})
        raise DataError(
            f"the folder {folder} has no supported file",
            found=f"endings {', '.join(endings)}" if endings else "no files",
            do=f"supported endings: {SUPPORTED}",
        )
    say_left_out(folder, [name.as_posix() for name in names if name not in set(chosen)])
    stems = Counter(name.with_name(bare_name(name)).as_posix() for name in chosen)
    for name in chosen:
        path, stem = folder / name, name.with_name(bare_name(name)).as_posix()
        # a.txt beside a.csv would give two documents one id
        prefix = stem if stems[stem] == 1 else name.as_posix()
        family = path.resolve().parent.name if ending(name) == ".txt" else bare_name(name)
        yield from _documents(source, _read_file(source, path), prefix, family)


def _names(folder: Path) -> list[Path]:
    """The files below a folder, relative to it, hidden ones left out."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [name for name in names if not any(part.startswith(".") for part in name.parts)]


def _with_documents(folder: Path, names: Sequence[Path]) -> list[Path]:
    """The files that hold documents. A licence or README counts where nothing else is there."""
    beside = [n for n in names if ending(n) == ".txt" and BESIDE.fullmatch(bare_name(n))]
    return [
        name
        for name in names
        if ending(name) in READERS
        and (name not in beside or len(beside) == len(names))
        and (ending(name) != ".json" or holds_rows(folder / name))
    ]


def say_left_out(folder: Path, names: Sequence[str]) -> None:
    """Name the files of a folder that are not read."""
    if names:
        more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
        say(f"left out of {folder}: {', '.join(names[:SHOWN_NAMES])}{more}")


def _read_file(source: SourceConfig, path: Path) -> Iterator[Record]:
    reader = READERS.get(ending(path))
    if reader is None:
        raise DataError(
            f"{path} has an ending that cannot be read",
            found=path.suffix or "no ending",
            do=f"supported endings: {SUPPORTED}",
        )
    return reader(source, path)


def _read_text(source: SourceConfig, path: Path) -> Iterator[Record]:
    yield str(path), {source.text_column: "".join(decoded_lines(path)).replace("\r\n", "\n")}


def _read_jsonl(_: SourceConfig, path: Path) -> Iterator[Record]:
    return read_jsonl(path)


def _read_json(_: SourceConfig, path: Path) -> Iterator[Record]:
    return read_json(path)


def _read_csv(source: SourceConfig, path: Path) -> Iterator[Record]:
    # The module's own limit of 131072 characters is shorter than a book.
    csv.field_size_limit(LONGEST_FIELD)
    rows = csv.reader(decoded_lines(path), strict=True)
    try:
        header = next(rows, [])
        need_columns(f"{path} line 1", wanted_columns(source), header)
        for row in rows:
            where = f"{path} line {rows.line_num}"
            if row and len(row) != len(header):
                raise DataError(
                    f"{where} does not match the header",
                    found=f"{len(row)} fields, {len(header)} columns",
                    do="quote fields that hold commas or line ends",
                )
            if row:
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{path} line {rows.line_num} is not CSV",
            found=str(error),
            do="mend the line, or save the table as .jsonl or .parquet",
        ) from error


def _read_parquet(source: SourceConfig, path: Path) -> Iterator[Record]:
    try:
        with pq.ParquetFile(path) as file:
            columns = wanted_columns(source)
            need_columns(str(path), columns, file.schema_arrow.names)
            index = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    yield f"{path} row {index}", row
                    index += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} is not a whole Parquet file",
            found=str(error).splitlines()[0],
            do="copy or write it again; it may be cut short",
        ) from error


Reader = Callable[[SourceConfig, Path], Iterator[Record]]
READERS: dict[str, Reader] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
SUPPORTED = f"{', '.join(READERS)}; texts also as .gz and .zst"


def _read_hub(source: SourceConfig) -> Iterator[Document]:
    name = source.dataset or ""
    if source.path != "demo":
        raise ConfigError(
            "a source has a dataset or a path",
            found=f"{name} and {source.path}",
            do="leave one of the two out",
        )
    if source.limit is None:
        # A stream does not say how long it is, and some fill any memory.
        raise ConfigError(f"the dataset {name} needs a limit", do="set limit: 10000 of the source")
    stem = name.rsplit("/", 1)[-1]
    return _documents(source, _hub_records(source, name), stem, stem)


def _hub_records(source: SourceConfig, name: str) -> Iterator[Record]:
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"reading the dataset {name} needs the package datasets",
            found="it is not installed",
            do="pip install 'nlakit[hub]'",
        ) from error
    try:
        rows = datasets.load_dataset(
            name, source.subset, split=source.dataset_split, streaming=True
        )
        for index, row in enumerate(rows):
            yield f"{name} row {index}", row
    # The library lets through errors of the network, the hub and each file format.
    except Exception as error:
        raise DataError(
            f"the dataset {name} cannot be read",
            found=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
            do="check dataset, subset, dataset_split, the network and your access to it",
        ) from error
