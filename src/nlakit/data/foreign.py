"""Training tables in the reference's shape (Parquet and sidecar), both ways.

Theirs: `prompt` is the user's turn with `<INJECT>` for the vector (AV, RL) or the whole AR prompt,
`response` wraps the explanation in tags. Ours hold the explanation by itself as well.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from safetensors.numpy import save_file

from nlakit.core.contract import (
    FILE,
    UNKNOWN_INJECTION,
    Contract,
    Tokens,
    read_contract,
    table_sidecar,
)
from nlakit.core.metrics import baseline, mean_unit
from nlakit.data.tables import MEAN_FILE, measured_norms
from nlakit.errors import ContractError, DataError
from nlakit.files.parquet import (
    VECTOR,
    finite_matrix,
    matrix,
    read_table,
    vector_array,
    write_table,
)
from nlakit.models.foreign.convert import check_new, removed_on_error
from nlakit.models.foreign.injection import unsaid
from nlakit.models.foreign.sidecar import CLOSE, OPEN, completed, escaped, unescaped
from nlakit.models.loading import subject_of
from nlakit.models.subject import Subject, load_subject
from nlakit.run.folder import RunDir, file_sha256

COUNTS = ("position", "n_raw_tokens")
HALVES = ("av", "ar")
NAMES = {"av": "av_sft", "ar": "ar_sft", "rl": "rl", "test": "test"}
# Words in a table's name or stage that say it is not a training table.
HELD_OUT = re.compile(
    r"(?:^|[_.\- ])(?:(test)|val|valid|validation|dev|eval)(?=$|[_.\- ])", re.IGNORECASE
)
PLAIN = ("n_raw_tokens", "activation_layer", "doc_id", "detokenized_text_truncated")
TURN = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def are_tables(source: Path) -> bool:
    """Whether a path is a Parquet file with a sidecar, or a folder of such."""
    files = [source] if source.suffix == ".parquet" else sorted(source.glob("*.parquet"))
    return any(table_sidecar(file).exists() for file in files)


def export_tables(run: Path, target: Path) -> list[str]:
    """Write a run's tables in the reference's shape; returns lines that say what was written.

    An AV template of ours that ends in `<explanation>` loses it: there the AV writes it itself.
    """
    check_new(target)
    folder = RunDir(run).need("tables")
    said = []
    for part, name in NAMES.items():
        table, contract = (
            read_table(folder / f"{part}.parquet"),
            read_contract(table_sidecar(folder / f"{part}.parquet")),
        )
        template = contract.prompt_templates.av.rstrip().removesuffix(OPEN).rstrip()
        file = target / f"{name}.parquet"
        write_table(file, _their_table(table, part, template, contract))
        text = yaml.safe_dump(
            _their_sidecar(contract, name, template, table.num_rows),
            sort_keys=False,
            allow_unicode=True,
        )
        table_sidecar(file).write_text(text, encoding="utf-8", newline="\n")
        said.append(f"{table.num_rows} rows in {file}")
    return said


def _their_table(table: pa.Table, part: str, template: str, contract: Contract) -> pa.Table:
    texts = table["api_explanation"].to_pylist()
    columns: dict[str, Any] = {}
    if part == "ar":
        columns["prompt"] = pa.array([contract.ar_prompt(text) for text in texts], pa.string())
    else:
        turn = [{"role": "user", "content": template.replace("{marker}", "<INJECT>")}]
        columns["prompt"] = pa.array([turn] * len(texts), TURN)
    if part == "av":
        wrapped = [f"{OPEN}\n{text}\n{CLOSE}" for text in texts]
        columns["response"] = pa.array(wrapped, pa.string())
    for name in (VECTOR, *PLAIN, "api_explanation"):
        if name in table.column_names:
            columns[name] = table[name]
    return pa.table(columns)


def _their_sidecar(contract: Contract, name: str, template: str, rows: int) -> dict[str, Any]:
    data = contract.model_dump(mode="json")
    data["extraction"]["d_model"] = contract.d_model
    # Their tables leave both scales to training.
    del data["extraction"]["injection_scale"], data["extraction"]["mse_scale"]
    data["prompt_templates"] = {
        "actor": escaped(template, "marker", "injection_char"),
        "critic": escaped(contract.prompt_templates.ar, "explanation", "explanation"),
    }
    return {"stage": name, "row_count": rows, **data}


def import_tables(
    source: Path,
    target: Path,
    base_model: str | None,
    precision: str | None,
    device: str = "auto",
) -> list[str]:
    """Store tables of the reference as ours: av, ar, rl and test.parquet with sidecars, ū and the
    norms, as a run's tables folder holds them. base_model and precision are as recorded if None.

    A table that calls itself validation or test, by its stage or its name, trains nothing.

    Raises DataError if explanations are missing, a part lies in two files or a document in two
    tables, ContractError if sidecar and tokenizer disagree, ConfigError for an unknown precision.
    """
    check_new(target)
    found, more, left_out = _files_of(source)
    contracts = {part: read_contract(table_sidecar(file)) for part, file in found.items()}
    first = next(iter(contracts.values()))
    _check_contracts(contracts)
    templates = {
        name: next((t for c in contracts.values() if (t := getattr(c.prompt_templates, name))), "")
        for name in ("av", "ar")
    }
    tokens = {n: v for c in reversed(contracts.values()) for n, v in _set_tokens(c).items()}
    recorded = first.nlakit.subject_precision
    subject = load_subject(subject_of(first, recorded, base_model, precision, device))
    tables = {p: _our_table(read_table(f), p, templates["ar"], f, first) for p, f in found.items()}
    for file in more:
        _check_contracts(contracts | {"test": read_contract(table_sidecar(file))})
        made = _our_table(read_table(file), "test", templates["ar"], file, first)
        tables["test"] = _joined(tables["test"], made)
    _check_documents(tables)
    train = np.concatenate([matrix(t) for p, t in tables.items() if p != "test"] or [np.empty(0)])
    if not len(train):
        raise DataError(
            "no rows to train on", found=", ".join(tables), do="import av_sft or ar_sft"
        )
    mean = mean_unit(train)
    norms = measured_norms(train, subject)
    made = {p: _our_contract(c, templates, tokens, subject, p) for p, c in contracts.items()}
    for contract in made.values():
        record = contract.nlakit
        record.baseline, record.mean_unit_file = baseline(train, mean), MEAN_FILE
        record.baseline_source = f"{len(train)} rows of {source.name}"
        record.embedding_norm, record.activation_norm = (
            norms["embedding_mean"], norms["activation_mean"],
        )  # fmt: skip
        record.subject_precision = subject.config.precision
        contract.extraction.base_model = subject.config.model
    with removed_on_error(target):
        said = [_store(table, made[part], target, part) for part, table in tables.items()]
        save_file({"mean_unit": mean.astype(np.float32)}, target / MEAN_FILE)
        text = json.dumps(norms, indent=1) + "\n"
        (target / "norms.json").write_text(text, encoding="utf-8")
    return said + left_out


def _check_contracts(contracts: dict[str, Contract]) -> None:
    """Raise ContractError if tables were made from other activations than the first."""
    first = next(iter(contracts))
    for part, contract in contracts.items():
        if found := contracts[first].difference(contract):
            raise ContractError(
                f"the tables {NAMES[first]} and {NAMES[part]} differ in their {found[0]}",
                found=f"{found[1]} and {found[2]}",
                do="import tables of the same activations",
            )


def _store(table: pa.Table, contract: Contract, target: Path, part: str) -> str:
    file = target / f"{part}.parquet"
    write_table(file, table)
    contract.nlakit.data_sha256 = file_sha256(file)
    contract.write(table_sidecar(file))
    return f"{table.num_rows} rows in {file}"


def _files_of(source: Path) -> tuple[dict[str, Path], list[Path], list[str]]:
    """The table of each part, tables that belong to the test part too, and lines about tables that
    are no part. Validation rows are the test part where nothing else is, those of both halves
    together; they never train. DataError if two tables hold the same part."""
    found: dict[str, Path] = {}
    validation: list[Path] = []
    for file in [source] if source.suffix == ".parquet" else sorted(source.glob("*.parquet")):
        if not table_sidecar(file).exists():
            continue
        part = _part_of(file)
        if part == "val":
            validation.append(file)
        elif (known := found.setdefault(part, file)) != file:
            raise DataError(
                f"two files hold the table {NAMES[part]}",
                found=f"{known.name} and {file.name}",
                do="move one away" if part == "test" else "join them into one, or move one away",
            )
    kept: list[Path] = []
    if "test" not in found:
        halves = {_stage_of(file): file for file in reversed(validation)}
        kept = validation if len(validation) == 1 else [halves[h] for h in HALVES if h in halves]
    if kept:
        found["test"] = kept[0]
    left_out = [file for file in validation if file not in kept]
    return found, kept[1:], [f"left out: {file.name} holds validation rows" for file in left_out]


def _joined(one: pa.Table, other: pa.Table) -> pa.Table:
    """The rows of two tables of ours, and one row for a vector of a document that both hold."""
    both = pa.concat_tables([one, other])
    docs, vectors = both["doc_id"].to_pylist(), matrix(both)
    first: dict[tuple[str, bytes], int] = {}
    for at, (doc, vector) in enumerate(zip(docs, vectors, strict=True)):
        first.setdefault((doc, vector.tobytes()), at)
    names = pa.array([f"{docs[at]}:{at}" for at in first.values()], pa.string())
    rows = both.take(list(first.values()))
    return rows.set_column(rows.column_names.index("row_id"), "row_id", names)


def _set_tokens(contract: Contract) -> dict[str, Any]:
    """What a sidecar says about tokens, less what it leaves out."""
    return {n: v for n, v in contract.tokens.model_dump().items() if v not in ("", -1, [], None)}


def _part_of(file: Path) -> str:
    """The part that a table says it is; `val` for a validation table."""
    held_out = [match for name in _names_of(file) if (match := HELD_OUT.search(name))]
    if held_out:
        return "test" if any(match[1] for match in held_out) else "val"
    if part := _stage_of(file):
        return part
    raise DataError(
        f"{file.name} is no table for training", found=f"stage {_names_of(file)[0]}",
        do=f"its sidecar's stage must be one of {', '.join(NAMES.values())}",
    )  # fmt: skip


def _stage_of(file: Path) -> str | None:
    """The part that a table's rows are made for, be they held out or not."""
    for name in _names_of(file):
        for part, theirs in NAMES.items():
            if name.startswith((theirs, f"{part}_")) or name == part:
                return part
    return None


def _names_of(file: Path) -> tuple[str, str]:
    return str(read_contract(table_sidecar(file)).model_dump().get("stage")), file.stem


def _our_contract(
    contract: Contract,
    templates: dict[str, str],
    tokens: dict[str, Any],
    subject: Subject,
    part: str,
) -> Contract:
    """A table's contract; both templates and all tokens, wherever they came from."""
    made = contract.model_copy(deep=True)
    made.tokens = Tokens.model_validate(tokens | _set_tokens(contract))
    made.prompt_templates.av, made.prompt_templates.ar = templates["av"], templates["ar"]
    turn = {} if getattr(subject.tokenizer, "chat_template", None) else None
    role = "ar" if part == "ar" else "av"
    done = completed(made, Path(FILE), role, subject.tokenizer, made.ar_blocks, turn)
    done.kind, done.nlakit.role = "nla_dataset", "table"
    done.nlakit.ar_blocks = None
    if unsaid(contract):  # a run chooses its own scale
        done.nlakit.injection_source = UNKNOWN_INJECTION
    if "nlakit" in contract.model_fields_set and not done.prompt_templates.av.endswith(OPEN):
        # Ours ended in the tag before the export, and the AV was not asked to write it.
        done.nlakit.av_open = f"{OPEN}\n"
    return done


def _our_table(
    table: pa.Table, part: str, ar_template: str, file: Path, contract: Contract
) -> pa.Table:
    """The columns that training reads; what theirs lack is empty or unknown."""
    rows = table.num_rows
    for name in ("doc_id", VECTOR):
        if name not in table.column_names:
            raise DataError(
                f"{file.name} has no column {name}",
                found=table.column_names,
                do="name its column so, or give a table of the reference's layout",
            )
    texts = _explanations(table, part, ar_template, file)
    vectors = finite_matrix(table, file)
    contract.check_width(vectors.shape[1], f"the activations in {file.name}")
    known = set(table.column_names)
    layers = set(table["activation_layer"].to_pylist()) if "activation_layer" in known else set()
    if layers - {contract.layer}:
        raise ContractError(
            f"{file.name} holds activations of another layer than its sidecar names",
            found=f"{sorted(map(str, layers))} instead of {contract.layer}",
            do="correct the sidecar, or make the table again",
        )
    counts = table["n_raw_tokens"].to_pylist() if "n_raw_tokens" in known else [0] * rows
    tokens = [int(count or 0) for count in counts]
    docs = [str(doc) for doc in table["doc_id"].to_pylist()]
    given = {
        "row_id": [f"{doc}:{at}" for at, doc in enumerate(docs)],
        "source_family": ["unknown"] * rows,
        "token": [""] * rows,
        "position": [max(count - 1, 0) for count in tokens],
        "detokenized_text_truncated": [""] * rows,
        "n_raw_tokens": tokens,
    }
    filled = {n: table[n].to_pylist() if n in known else v for n, v in given.items()}
    filled |= {"n_raw_tokens": tokens, "doc_id": docs, "api_explanation": texts}
    # Of one type in every table, so that they can be joined.
    columns = {
        name: pa.array(values, pa.int32() if name in COUNTS else pa.string())
        for name, values in filled.items()
    }
    return pa.table(columns | {VECTOR: vector_array(vectors)})


def _explanations(table: pa.Table, part: str, ar_template: str, file: Path) -> list[str]:
    names = table.column_names
    if "api_explanation" in names:
        texts = table["api_explanation"].to_pylist()
        if part != "rl" and (missing := texts.count(None)):
            raise DataError(
                f"{file.name} holds rows without an explanation",
                found=f"{missing} of {len(texts)} whose api_explanation is null",
                do="leave these rows out",
            )
        return [text or "" for text in texts]  # RL rows need no label
    if part == "test" and "response" not in names and "prompt" in names:
        # Held-out rows of the AR, if the prompt is a text; the AV's is a turn.
        part = part if pa.types.is_nested(table.schema.field("prompt").type) else "ar"
    if part == "ar" and "{explanation}" in ar_template:
        before, after = map(re.escape, unescaped(ar_template).split("{explanation}"))
        pattern, column = re.compile(f"{before}(.*){after}", re.DOTALL), "prompt"
    elif "response" in names:
        pattern, column = re.compile(f"{OPEN}(.*?){CLOSE}", re.DOTALL), "response"
    elif part == "rl":
        return [""] * table.num_rows  # RL rows need no label
    else:
        raise DataError(
            f"{file.name} holds no explanations",
            found=names,
            do="give a table with api_explanation, or with prompt or response",
        )
    found = [pattern.search(text or "") for text in table[column].to_pylist()]
    if missing := sum(match is None for match in found):
        raise DataError(
            f"{file.name} holds rows without an explanation",
            found=f"{missing} of {len(found)} whose {column} is not in the sidecar's template",
            do="import the folder with the sidecar that its prompts were made with",
        )
    return [match[1].strip() for match in found if match]


def _check_documents(tables: dict[str, pa.Table]) -> None:
    seen: dict[str, str] = {}
    for part, table in tables.items():
        for doc in set(table["doc_id"].to_pylist()):
            if seen.setdefault(doc, part) != part:
                raise DataError(
                    "a document lies in two tables",
                    found=f"{doc} in {seen[doc]} and {part}",
                    do="split by document, so that no score is measured on what was trained on",
                )
