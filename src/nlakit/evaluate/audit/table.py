"""A table of rows that somebody else made: which columns it has, and whether they can be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
from numpy.typing import NDArray

from nlakit.errors import ConfigError, DataError, first_line
from nlakit.files.parquet import matrix, read_table
from nlakit.files.places import quoted
from nlakit.files.text import decoded_lines, ending, read_json
from nlakit.run.folder import file_sha256

Kind = Literal["text", "name", "number", "vector"]

# Column → what it holds and the other names it goes by. Names are compared in lower case, with
# spaces and hyphens as underscores. `text`, `response` and `source` are none of them: each is the
# explanation in one table, what was read in another, and the name of a data set in a third.
COLUMNS: dict[str, tuple[Kind, tuple[str, ...]]] = {
    "explanation": (
        "text",
        ("api_explanation", "av_text", "av_output", "nla_output", "nla_explanation", "description"),
    ),
    "doc_id": ("name", ("document_id", "document", "doc")),
    "row_id": ("name", ("id", "row", "index", "idx")),
    "source_text": ("text", ("detokenized_text_truncated", "context", "passage")),
    "source_family": ("name", ("family", "domain", "genre")),
    "label": ("text", ("teacher_label", "reference", "gold")),
    "labeler_model": ("name", ("labeler", "labeller_model", "label_model")),
    "variant": ("name", ("condition", "control", "ablation")),
    "cosine": ("number", ("cos", "round_trip_cos", "cosine_similarity", "cos_sim")),
    "mse": ("number", ("mse_nrm", "normalised_mse", "normalized_mse")),
    "fve": ("number", ("fraction_variance_explained",)),
    "centred_cosine": ("number", ("centered_cosine", "centred_cos", "centered_cos")),
    "baseline": ("number", ("fve_baseline", "baseline_value")),
    "activation_vector": ("vector", ("activation", "vector")),
    "reconstruction": ("vector", ("reconstructed", "reconstruction_vector", "prediction")),
    "position": ("number", ("n_raw_tokens", "token_position", "pos")),
    "token": ("text", ("token_text", "last_token")),
    "split": ("name", ("part", "partition")),
}  # fmt: skip
ENOUGH = ("explanation", "cosine", "mse")
SHOWN_NAMES, SHOWN_CHARACTERS = 12, 30


@dataclass(frozen=True)
class AuditTable:
    """Columns by their own names: texts `list[str]` ("" where there is none), names
    `list[str | None]`, numbers float64 `(n,)`, vectors float32 `(n, d)`; NaN where there is none.

    read_as: column → its name in the file. ignored: columns that no measure reads.
    """

    path: Path
    sha256: str
    rows: int
    columns: dict[str, Any]
    read_as: dict[str, str]
    ignored: list[str]
    notes: list[str] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Any:
        return self.columns[name]


def parse_columns(given: Sequence[str]) -> dict[str, str]:
    """Column → its name in the file ("" for one that is left out), from entries `column=name`.

    Raises ConfigError for an entry of another form, an unknown column, or one that comes twice.
    """
    chosen: dict[str, str] = {}
    for one in given:
        column, equals, name = one.partition("=")
        if not equals or column not in COLUMNS or column in chosen:
            raise ConfigError(
                f"--column {one} " + ("comes twice" if column in chosen else "names no column"),
                do=f"COLUMN=NAME, COLUMN one of {', '.join(COLUMNS)}, NAME as in the file",
            )
        chosen[column] = name
    return chosen


def read_audit_table(path: Path, chosen: Mapping[str, str] | None = None) -> AuditTable:
    """Read a table from a .jsonl, .ndjson, .json, .csv or .parquet file. chosen: column → its name
    in the file, where that cannot be guessed; "" leaves a column out.

    Raises DataError if the file is missing, empty, broken or not UTF-8, has no column of a chosen
    name or several that may be meant, if a column holds what it should not, or if there is neither
    a text, nor a score, nor a pair of vectors.
    """
    chosen = chosen or {}
    reader = READERS.get(ending(path))
    if not path.is_file():
        raise DataError(
            f"there is no file {path}", found=f"working folder {Path.cwd()}", do="check the path"
        )
    if reader is None:
        raise DataError(f"{path} cannot be audited", found=path.suffix or "no ending",
                        do=f"endings: {', '.join(READERS)}")  # fmt: skip
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", found="0 bytes", do="write the table again")
    raw = reader(path, chosen)
    read_as = match_columns(list(raw), chosen)
    if not (set(ENOUGH) & set(read_as) or {"activation_vector", "reconstruction"} <= set(read_as)):
        raise DataError(
            f"{path} has no column that can be audited",
            found=f"columns {_shown(list(raw))}",
            do="say which one it is, as --column explanation=NAME: explanation, cosine or mse, or "
            "both activation_vector and reconstruction; a CSV has the names in its first line",
        )
    rows = len(next(iter(raw.values())))
    if not rows:
        raise DataError(
            f"{path} has no rows", found=f"columns {_shown(list(raw))}", do="give a table with rows"
        )
    notes: list[str] = []
    columns = {name: _read(name, own, raw[own], notes) for name, own in read_as.items()}
    ignored = [name for name in raw if name not in read_as.values()]
    return AuditTable(path, file_sha256(path), rows, columns, read_as, ignored, notes)


def match_columns(names: Sequence[str], chosen: Mapping[str, str] | None = None) -> dict[str, str]:
    """Column → its name in the file: the chosen one, else the column's own, else the one alias that
    is there; a name serves one column.

    Raises DataError for a chosen name that is not there, and for two aliases of one column.
    """
    chosen = chosen or {}
    for column, name in chosen.items():
        if name and name not in names:
            raise DataError(
                f"there is no column {name!r} for {column}",
                found=f"columns {_shown(names)}",
                do="name one of these",
            )
    free = [name for name in names if name not in chosen.values()]
    found = {column: name for column, name in chosen.items() if name}
    for column, (_, aliases) in COLUMNS.items():
        if column in chosen:
            continue
        known = [name for name in free if _plain(name) in (column, *aliases)]
        own = [name for name in known if _plain(name) == column]
        best = [column] if column in own else own or known
        if len(best) > 1:
            raise DataError(
                f"several columns may be {column}",
                found=", ".join(best),
                do=f"say which: --column {quoted(f'{column}={best[0]}')}, or --column {column}="
                " for none",
            )
        if best:
            found[column] = best[0]
    return found


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _shown(names: Sequence[str]) -> str:
    cut = [name if len(name) <= SHOWN_CHARACTERS else name[:SHOWN_CHARACTERS] + "…"
           for name in names[:SHOWN_NAMES]]  # fmt: skip
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return (", ".join(cut) or "(none)") + more


def _read(column: str, own: str, values: Any, notes: list[str]) -> Any:
    """A column by its kind; missing values are counted in the notes."""
    kind = COLUMNS[column][0]
    found = _arrow(own, values)
    if found.null_count:
        notes.append(f"column {own}: {found.null_count} of {len(found)} rows have no value")
    if kind == "text":
        return _texts(own, found)
    if kind == "name":
        if pa.types.is_nested(found.type):
            raise DataError(
                f"column {own!r} must hold names",
                found=found.type,
                do="name another, or store one name a row",
            )
        return found.cast(pa.string()).to_pylist()
    return _vectors(own, found) if kind == "vector" else _numbers(own, found, notes)


def _arrow(own: str, values: Any) -> pa.ChunkedArray:
    """Values as one Arrow column, dictionaries decoded."""
    if not isinstance(values, pa.ChunkedArray):
        try:
            values = pa.chunked_array([pa.array(values)])
        except (pa.ArrowException, TypeError) as error:
            raise DataError(
                f"column {own!r} mixes kinds of values", found=first_line(error), do="mend the rows"
            ) from error
    decoded = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    return values.cast(decoded)


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _texts(own: str, found: pa.ChunkedArray) -> list[str]:
    if not _is_text(found.type) and not pa.types.is_null(found.type):
        raise DataError(
            f"column {own!r} must hold texts",
            found=f"{found.type} values, the first {found.drop_null()[:1].to_pylist()}",
            do="say which column is which by --column COLUMN=NAME, or quote its texts",
        )
    return ["" if value is None else value for value in found.to_pylist()]


def _numbers(own: str, found: pa.ChunkedArray, notes: list[str]) -> NDArray[np.float64]:
    if pa.types.is_boolean(found.type) or pa.types.is_nested(found.type):
        raise DataError(
            f"column {own!r} must hold numbers",
            found=found.type,
            do="name another with --column COLUMN=NAME, or store numbers",
        )
    try:
        values = found.cast(pa.float64()).to_numpy().astype(np.float64)
    except pa.ArrowException as error:
        raise DataError(
            f"column {own!r} must hold numbers",
            found=first_line(error),
            do="leave the cell empty where there is no number",
        ) from error
    bad = int((~np.isfinite(values)).sum()) - found.null_count
    if bad:
        notes.append(f"column {own}: {bad} of {len(values)} values are NaN or infinite")
    return np.where(np.isfinite(values), values, np.nan)


def _vectors(own: str, found: pa.ChunkedArray) -> NDArray[np.float32]:
    """`(n, d)`; NaN for a row without a vector, or with one that has no direction."""
    known = np.asarray(found.is_valid())
    if not known.any():
        raise DataError(
            f"column {own!r} has no vectors",
            found="only rows without a value",
            do="leave the column out, or fill it",
        )
    some = matrix(pa.table({own: found.drop_null()}), own)
    made = np.full((len(found), some.shape[1]), np.nan, dtype=np.float32)
    made[known] = some
    # In float64: the square of a large float32 overflows.
    norms = np.sqrt(np.einsum("ij,ij->i", made, made, dtype=np.float64))
    made[~np.isfinite(norms) | (norms == 0)] = np.nan
    return made


def _read_records(path: Path, chosen: Mapping[str, str]) -> dict[str, Any]:
    """Line by line: Arrow's own reader names no line and refuses a key that changes its kind."""
    records: list[Mapping[str, Any]] = []
    names: dict[str, None] = {}
    for number, (where, read) in enumerate(read_json(path), start=1):
        for record in _answered(read, number):
            names |= dict.fromkeys(record)
            records.append({name: _packed(where, name, v, chosen) for name, v in record.items()})
    if not records:
        raise DataError(
            f"{path} has no rows",
            found="only empty lines, or answers of no results",
            do="give a file with results",
        )
    return {name: [record.get(name) for record in records] for name in names}


def _answered(record: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """The rows of a record: itself, or the `results` (description, token, mse, cosine_similarity)
    of Neuronpedia's answer about one text, which are of one document."""
    results = record.get("results")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        return [record]
    about = {name: value for name, value in record.items() if not isinstance(value, list | dict)}
    return [{"doc_id": f"answer {number}"} | about | one for one in results]


def _packed(where: str, name: str, value: Any, chosen: Mapping[str, str]) -> Any:
    """A list of a vector column as float32, an eighth of its size in Python."""
    if not isinstance(value, list) or not _is_vector(name, chosen):
        return value
    wrong = {type(one).__name__ for one in value if isinstance(one, str | bool)}
    try:
        if wrong:  # NumPy would read "1" and true as numbers
            raise TypeError(f"it holds {', '.join(sorted(wrong))}")
        return np.asarray(value, dtype=np.float32).reshape(-1)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: {name} is no list of numbers",
            found=str(error),
            do="store a list of numbers, all of one length",
        ) from error


def _is_vector(name: str, chosen: Mapping[str, str]) -> bool:
    """Whether vectors are read under this name."""
    named = {column for column, own in chosen.items() if own == name}
    guessed = set(match_columns((name,))) - set(chosen)
    return any(COLUMNS[column][0] == "vector" for column in named or guessed)


def _read_csv(path: Path, _: Mapping[str, str]) -> dict[str, Any]:
    for _line in decoded_lines(path):
        pass
    try:
        table = pc.read_csv(path, parse_options=pc.ParseOptions(newlines_in_values=True))
    except pa.ArrowException as error:
        raise DataError(
            f"{path} is not CSV",
            found=first_line(error)[:200],
            do="quote fields that hold commas or line ends; the first line names the columns",
        ) from error
    return _columns(path, table)


def _read_parquet(path: Path, _: Mapping[str, str]) -> dict[str, Any]:
    return _columns(path, read_table(path))


def _columns(path: Path, table: pa.Table) -> dict[str, Any]:
    if len(set(table.column_names)) < len(table.column_names):
        raise DataError(
            f"{path} has two columns of one name",
            found=_shown(table.column_names),
            do="rename one of them",
        )
    return {name: table[name] for name in table.column_names}


READERS: dict[str, Callable[[Path, Mapping[str, str]], dict[str, Any]]] = {
    ".jsonl": _read_records,
    ".ndjson": _read_records,
    ".json": _read_records,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
