"""Put an evaluation together: a run's pair on its test part, or any AV with any AR on any rows."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nlakit.config.sections import EvalConfig, RequestsConfig, RunConfig
from nlakit.core.contract import Contract, read_contract
from nlakit.core.metrics import mean_unit
from nlakit.data.labels.label import store_path
from nlakit.errors import ContractError, DataError, RunError
from nlakit.evaluate.battery import write_evaluation
from nlakit.evaluate.bench import Bench, Judge
from nlakit.evaluate.conditions import pick_rows
from nlakit.files.rows import PARTS, TableRows, read_mean, read_rows, rows_of_file, tables_at
from nlakit.files.text import read_record
from nlakit.models.foreign.folders import find_halves
from nlakit.models.foreign.turn import Stated
from nlakit.models.loading import checked_halves
from nlakit.models.nla import NLA
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.models.verbalizer import Verbalizer
from nlakit.run.folder import (
    Manifest,
    Rows,
    RunDir,
    atomic_write,
    file_sha256,
    git_commit,
    library_versions,
)
from nlakit.run.inputs import Reads, model_files, subject_files
from nlakit.run.progress import say, ticker
from nlakit.run.stage import stage
from nlakit.studies.layer_rows import check_layers, read_at_layers


def files_read(config: RunConfig) -> Reads:
    """The subject, and the model of sentence embeddings."""
    return {**subject_files(config), **model_files(config.eval.embedding)}


@stage(
    "eval",
    parents=("tables", "pair"),
    sections=("eval", "subject", "seed"),
    outside=files_read,
)
def run(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Evaluate a run's pair on its test part; `write_evaluation` names the files."""
    settings, pair = config.eval, rundir.need("pair")
    rows = pick_rows(read_rows(rundir, "test")[0], settings.rows)
    check_layers(settings.layers, config.subject)
    subject = load_subject(config.subject)
    contracts = {half: read_contract(pair / half) for half in ("av", "ar")}
    av = Verbalizer.load(subject, contracts["av"], read_mean(pair / "av"), pair / "av")
    ar = Reconstructor.load(subject, contracts["ar"], pair / "ar")
    train = read_rows(rundir, "ar")[0].join(read_rows(rundir, "av")[0])
    files = {p: rundir.need("tables") / f"{p}.parquet" for p in (*PARTS, "rl")}
    bench = Bench(
        rows,
        av_texts(av, rows, settings.generate_batch, folder),
        read_mean(pair / "ar"),
        settings,
        config.seed,
        folder,
        av=av,
        ar=ar,
        train=train,
        at_layers=lambda: read_at_layers(
            subject, contracts["av"], rows, train, files, settings.layers
        ),
    )
    tables = {p: file_sha256(files[p]) for p in PARTS}
    found = provenance(contracts["ar"], rundir.manifest("pair")) | {"data_sha256": tables}
    store = store_path(config.requests, rundir.path.parent)
    with judging(settings, config.requests, store, str(rundir.path.resolve())) as judge:
        write_evaluation(dataclasses.replace(bench, judge=judge), found)
    return Rows(entered=len(rows), kept=len(rows))


def evaluate_pair(
    av: str,
    ar: str,
    data: str | None,
    settings: EvalConfig,
    out: Path,
    *,
    seed: int = 0,
    base_model: str | None = None,
    precision: str | None = None,
    injection: str | None = None,
    chat: str | None = None,
    ar_bos: str | None = None,
    device: str = "auto",
    requests: RequestsConfig | None = None,
) -> dict[str, Any]:
    """Evaluate any AV with any AR (runs, pairs, halves, hub ids, in any format) on rows of `data`:
    a run, a folder of tables, or one table; for the pair in the box its own rows. Results as of
    `write_evaluation`, in `out`; a half-done evaluation of the same halves and rows goes on.

    injection, chat and ar_bos state how halves are fed whose files leave it open, as for
    `NLA.load`.

    Raises ContractError if the halves do not belong to the same activations, or an AV leaves open
    how it is fed, DataError for rows that cannot be used, RunError if `out` holds another
    evaluation.
    """
    halves = {"av": half_at(av, "av"), "ar": half_at(ar, "ar")}
    stated = Stated(injection, chat, ar_bos)  # checked before `out` is claimed for these arguments
    found = checked_halves(list(halves.values()), device, base_model, precision, stated)
    check_layers(settings.layers, found.subject)
    data = data or _own_rows(av, ar)
    test, train, hashes = read_data(data)
    files = tables_at(Path(data))
    begin = {
        "halves": {role: file_sha256(path / "nla_meta.yaml") for role, path in halves.items()},
        "data_sha256": hashes,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "subject": {"base_model": base_model, "precision": precision, "device": device},
        **({"injection": injection} if injection else {}),
        **({"chat": chat} if chat else {}),
        **({"ar_bos": ar_bos} if ar_bos else {}),
    }
    claim(out, begin)
    nla = NLA.load(
        list(halves.values()),
        base_model=base_model, precision=precision, injection=injection, chat=chat,
        ar_bos=ar_bos, device=device,
    )  # fmt: skip
    assert nla.av is not None and nla.ar is not None, "find_halves gave one of each"
    nla.contract.check_width(test.vectors.shape[1], "the rows")
    rows = pick_rows(test, settings.rows)
    mean, source = _mean_of(nla, train, test)
    bench = Bench(
        rows,
        av_texts(nla.av, rows, settings.generate_batch, out),
        mean,
        settings,
        seed,
        out,
        av=nla.av,
        ar=nla.ar,
        train=train,
        at_layers=lambda: read_at_layers(
            nla.subject, nla.contract, rows, train, files, settings.layers
        ),
    )
    matched = trained_together(nla.av.contract, nla.ar.contract)
    if matched is not True:
        say(MATCHED[matched])
    origin = provenance(nla.ar.contract, None) | {
        "data_sha256": hashes, "av": av, "ar": ar, "matched": matched, "mean_source": source,
        "subject_precision": nla.subject.config.precision,
        "injection_source": nla.av.contract.nlakit.injection_source,
    }  # fmt: skip
    requests = requests or RequestsConfig()
    store = store_path(requests, out)
    with judging(settings, requests, store, str(out.resolve())) as judge:
        return write_evaluation(dataclasses.replace(bench, judge=judge), origin)


MATCHED = {
    False: "the halves were not trained on the same tables: this is an unmatched pair",
    None: "the halves' sidecars do not say whether they were trained on the same tables",
}


def trained_together(av: Contract, ar: Contract) -> bool | None:
    """Whether both halves record the same settings of subject and tables; None if one has none."""
    hashes = av.nlakit.config_hash, ar.nlakit.config_hash
    return None if None in hashes else hashes[0] == hashes[1]


def half_at(where: str, role: str) -> Path:
    """The folder of one half. Raises ContractError if `where` holds none of that role."""
    found = find_halves(where)
    if role not in found:
        raise ContractError(
            f"{where} holds no {role.upper()}", found=", ".join(found), do=f"give one with --{role}"
        )
    return found[role]


def _own_rows(av: str, ar: str) -> str:
    for place in (ar, av):
        if place == "demo" and not Path(place).exists():
            return str(files("nlakit") / "box" / "rows")
        if (Path(place) / "05_tables").exists():
            return place
    raise DataError(
        "no rows to evaluate on",
        do="give --data: a run, a folder with test.parquet, or a Parquet table of activations",
    )


def read_data(data: str) -> tuple[TableRows, TableRows | None, dict[str, str]]:
    """Rows to evaluate on, training rows if there are any, and the SHA-256 of the files."""
    tables = tables_at(Path(data))
    hashes = {name: file_sha256(path) for name, path in tables.items()}
    train = [rows_of_file(tables[part]) for part in ("ar", "av") if part in tables]
    joined = train[0].join(train[1]) if len(train) == 2 else train[0] if train else None
    test = rows_of_file(tables["test"])
    if not len(test):
        raise DataError(
            f"{tables['test']} has no rows to evaluate on",
            found="0 rows",
            do="give a table with rows",
        )
    return test, joined, hashes


def claim(out: Path, begin: dict[str, Any]) -> None:
    """Make `out` the folder of this evaluation. Raises RunError if it is another's."""
    file = out / "begin.json"
    if file.exists():
        saved = read_record(file)
        changed = [name for name in begin if begin[name] != saved.get(name)]
        if changed:
            raise RunError(
                f"{out} holds an evaluation of other {', '.join(changed)}",
                do="use another --out, or remove that folder",
            )
    elif out.exists() and any(out.iterdir()):
        raise RunError(f"{out} is not empty and holds no evaluation", do="use another --out")
    out.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        started = datetime.now(UTC).isoformat(timespec="seconds")
        atomic_write(file, json.dumps({**begin, "started": started}, indent=1) + "\n")


def _mean_of(nla: NLA, train: TableRows | None, test: TableRows) -> tuple[NDArray[Any], str]:
    """ū as stored beside the AR; for a foreign pair, which stores none, ū of the rows at hand."""
    if nla.mean is not None:
        return nla.mean, "stored beside the pair"
    rows, name = test, "of the evaluated rows"
    if train is not None:
        rows, name = train, "of the training rows at hand"
    say(f"the pair stores no mean unit vector: it is that {name}")
    return mean_unit(rows.vectors), name


def av_texts(av: Verbalizer, rows: TableRows, batch: int, folder: Path) -> list[str]:
    """Greedy explanations of the rows, stored in full as soon as they exist."""
    file = folder / "av_texts.json"
    if file.exists():
        with contextlib.suppress(DataError):  # damaged: written again
            kept = read_record(file)
            if kept.get("row_ids") == rows.row_ids and _are_texts(kept.get("texts"), len(rows)):
                return kept["texts"]
    with ticker("explanations", len(rows)) as progress:
        texts = av.explain(rows.vectors, batch=batch, on_batch=progress.advance)
    atomic_write(file, json.dumps({"row_ids": rows.row_ids, "texts": texts}, indent=1) + "\n")
    return texts


def _are_texts(found: Any, count: int) -> bool:
    return isinstance(found, list) and len(found) == count and {type(t) for t in found} <= {str}


@contextmanager
def judging(
    settings: EvalConfig, requests: RequestsConfig, store: Path, run: str
) -> Iterator[Judge | None]:
    """The judge of the configuration, if there is one; its answers lie in `store`."""
    if settings.judge is None:
        yield None
        return
    from nlakit.studies.judge import ServiceJudge

    with ServiceJudge(settings.judge, requests, store, run) as judge:
        yield judge


def provenance(contract: Contract, pair: Manifest | None) -> dict[str, Any]:
    """Where the figures come from. Versions and commit are those that evaluate."""
    return {
        "pair": pair.identity() if pair else None,
        "pair_commit": pair.git_commit if pair else contract.nlakit.git_commit,
        "git_commit": git_commit(),
        "versions": library_versions(),
        "base_model": contract.extraction.base_model,
        "layer": contract.layer,
        "subject_precision": contract.nlakit.subject_precision,
        "training_baseline": contract.nlakit.baseline,
    }
