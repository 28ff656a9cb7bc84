"""The command that evaluates a pair, and what it prints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nlakit.cli.options import Out, Sets, guarded, resolve
from nlakit.cli.use.pair import ArBos, Chat, Injection
from nlakit.config.load import parse_config, with_overrides
from nlakit.config.sections import RunConfig
from nlakit.core.shown import plain_table, shorter, span
from nlakit.errors import ConfigError, ExitCode
from nlakit.files.places import check_folder
from nlakit.files.text import read_record
from nlakit.publish.report.parts import NAMES, ROLE_OF
from nlakit.run.folder import FOLDERS, RunDir

console = Console(highlight=False)
Target = Annotated[
    str | None, typer.Argument(metavar="[CONFIG|RUN|PAIR]", help="what to evaluate; `demo` too")
]
AV = Annotated[str | None, typer.Option("--av", help="take the AV of this run, pair or half")]
AR = Annotated[str | None, typer.Option("--ar", help="take the AR of this run, pair or half")]
Data = Annotated[
    str | None, typer.Option("--data", help="rows: a run, a folder with test.parquet, or a table")
]
Profile = Annotated[str | None, typer.Option("--profile", help="quick, or full")]
Base = Annotated[str | None, typer.Option(help="the subject, where the sidecar's has moved")]
Precision = Annotated[str | None, typer.Option(help="float32, bfloat16, nf4+bfloat16, ...")]
Layers = Annotated[
    str | None,
    typer.Option("--layers", metavar="8-16", help="also try the pair at these layers"),
]
Gate = Annotated[bool, typer.Option("--gate", help="exit 3 below content-sensitive")]


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    target: Target = None,
    av: AV = None,
    ar: AR = None,
    data: Data = None,
    profile: Profile = None,
    layers: Layers = None,
    sets: Sets = None,
    out: Out = None,
    redo: bool = False,
    gate: Gate = False,
    base_model: Base = None,
    precision: Precision = None,
    injection: Injection = None,
    chat: Chat = None,
    ar_bos: ArBos = None,
) -> None:
    """Score a pair beside its floors, name its failures and give the verdict.

    A run is evaluated on its own test part. Any AV goes with any AR: --av X --ar Y --data ROWS.
    """
    sets = [*(sets or []), *([f"eval.profile={profile}"] if profile else [])]
    if layers is not None:
        from nlakit.core.layer_choice import layers_named

        sets.append(f"eval.layers={layers_named(layers)}")
    if target and not (av or ar or data) and _is_run(target):
        if base_model or precision or injection or chat or ar_bos:
            raise ConfigError(
                "--base-model, --precision, --injection, --chat and --ar-bos are for pairs",
                found=f"the run {target}",
                do="give the pair's folder, or --set subject.model=... and the like",
            )
        config, path = resolve(target, out, sets)
        guarded(config, path, ["eval"] if redo else [], ("eval",))
        results = show_run(path)
    else:
        if redo:
            raise ConfigError("--redo is for runs", do="give another --out, or remove the folder")
        results = _outside(
            av or target,
            ar or target,
            data,
            sets,
            out,
            base_model,
            precision,
            injection,
            chat,
            ar_bos,
        )
    if gate and results["verdict"]["word"] != "content-sensitive":
        raise typer.Exit(ExitCode.GATE)


def _is_run(target: str) -> bool:
    return Path(target).is_file() or (Path(target) / "config.yaml").exists()


def _outside(
    av: str | None,
    ar: str | None,
    data: str | None,
    sets: list[str],
    out: Path | None,
    base_model: str | None,
    precision: str | None,
    injection: str | None,
    chat: str | None,
    ar_bos: str | None,
) -> dict[str, Any]:
    from nlakit.studies.evaluation import evaluate_pair

    if av is None or ar is None:
        raise ConfigError("what is to be evaluated?", do="give a run, a pair, or --av and --ar")
    config: RunConfig = parse_config(with_overrides({"name": "eval"}, sets))
    folder = out or Path("runs") / f"eval-{Path(ar).name}"
    check_folder(folder)
    results = evaluate_pair(
        av, ar, data, config.eval, folder,
        seed=config.seed, base_model=base_model, precision=precision, injection=injection,
        chat=chat, ar_bos=ar_bos, device=config.subject.device, requests=config.requests,
    )  # fmt: skip
    show(results, str(folder))
    return results


def read_results(path: Path) -> dict[str, Any]:
    """results.json of a run; RunError if the run is not evaluated."""
    return read_record(RunDir(path).need("eval") / "results.json")


def show_run(path: Path) -> dict[str, Any]:
    """Print a run's results, and where its report is."""
    results = read_results(path)
    show(results, str(path))
    report = path / FOLDERS["report"] / "report.html"
    if report.exists():
        console.print(f"report: {report}", markup=False, soft_wrap=True)
    return results


def show_layers(results: dict[str, Any]) -> None:
    """The pair at other layers, against their vectors and against those of its own layer."""
    records, notes = results["layers"], results["parts"]["layers"]["notes"]
    own = next(record["layer"] for record in records if record["own"])
    table = plain_table(
        ("layer", "centred cosine", "floor", "FVE", f"with layer {own}'s", "floor", "reads"),
        title=f"the same tokens at other layers, read as if at layer {own}",
    )
    for record in records:
        centred, with_own = record["centred_cosine"], record["centred_cosine_k"]
        table.add_row(
            f"{record['layer']}{' *' if record['own'] else ''}",
            shorter(centred),
            f"{centred['floor_mean']:.3f}",
            shorter(record["fve"]),
            shorter(with_own),
            f"{with_own['floor_mean']:.3f}",
            "yes" if record["reads"] else "no",
        )
    console.print(table)
    for note in notes:
        console.print(f"  {note}", markup=False, soft_wrap=True)


def show(results: dict[str, Any], where: str) -> None:
    """Scores beside their floors, what the texts are like, warnings and verdict."""
    table = plain_table(
        ("the AR is fed", "FVE ±95%", "centred cosine ±95%", "top-1"),
        title=f"{escape(where)}: {results['rows']['attempted']} held-out rows",
    )
    role = "pair"
    for name, label in NAMES.items():
        found = results["scores"].get(name)
        if found is None:
            continue
        if ROLE_OF[name] != role:
            role = ROLE_OF[name]
            table.add_row(f"[dim]{role}[/dim]")
        top = found.get("retrieval")
        table.add_row(
            f" {label}",
            shorter(found["fve"]),
            shorter(found["centred_cosine"]),
            f"{top['top1']:.2f}" if top else "",
        )
    console.print(table)
    if results.get("layers"):
        show_layers(results)
    texts = results["texts"]
    gap = f"AV gap {span(results['av_loss']['gap'])} nats a token; " if "av_loss" in results else ""
    console.print(
        f"{gap}{texts['unique']['full']:.0%} of texts unique, "
        f"{texts['empty_share']:.0%} empty, {texts['loop_share']:.0%} with a loop",
        markup=False,
    )
    gain = results["gains"]["centred_cosine"]
    console.print(
        f"content gain {span(gain)} over {gain['best_floor']}", markup=False, soft_wrap=True
    )
    for one in results.get("warnings", []):
        console.print(f"[yellow]warning {one['code']}[/yellow]: ", end="")
        console.print(one["message"], markup=False, soft_wrap=True)
    verdict = results["verdict"]
    console.print(f"[bold]verdict: {verdict['word']}[/bold]")
    for reason in verdict["reasons"]:
        console.print(f"  {reason}", markup=False, soft_wrap=True)
