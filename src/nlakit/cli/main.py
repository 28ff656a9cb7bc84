"""Parse, call one function, print what it made."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nlakit import __version__
from nlakit.cli import audit as cli_audit
from nlakit.cli import card as cli_card
from nlakit.cli import compare as cli_compare
from nlakit.cli import evaluate as cli_eval
from nlakit.cli import hub as cli_hub
from nlakit.cli import labels as cli_labels
from nlakit.cli import layers as cli_layers
from nlakit.cli import presets as cli_presets
from nlakit.cli.options import Out, Sets, Target, guarded, resolve
from nlakit.cli.tables import write_data
from nlakit.cli.use import explain as cli_explain
from nlakit.cli.use import files as cli_files
from nlakit.cli.use import probe as cli_probe
from nlakit.cli.use import score as cli_score
from nlakit.cli.use import serve as cli_serve
from nlakit.cli.use import steer as cli_steer
from nlakit.config.load import dump_config
from nlakit.config.sections import RunConfig
from nlakit.core.shown import plain_table
from nlakit.errors import ConfigError, DataError, ExitCode, LimitReached, NlakitError
from nlakit.files.places import quoted
from nlakit.run import pipeline
from nlakit.run.folder import RunDir

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train, audit and use natural language autoencoders.",
)
console = Console(highlight=False)
Redo = Annotated[
    list[str] | None, typer.Option("--redo", metavar="STAGE", help="replace a stage's result")
]


@app.command()
def run(
    target: Target,
    sets: Sets = None,
    out: Out = None,
    redo: Redo = None,
    stop_if_blind: Annotated[
        bool | None,
        typer.Option(
            "--stop-if-blind/--no-stop-if-blind", help="end a training that does not read"
        ),
    ] = None,
) -> None:
    """Run every stage: skip the finished, resume the half-done."""
    # Unsaid, it is what the configuration says.
    watch = [] if stop_if_blind is None else [f"watch.stop_if_blind={str(stop_if_blind).lower()}"]
    config, path = resolve(target, out, [*(sets or []), *watch])
    guarded(config, path, redo or [], pipeline.STAGES)
    cli_eval.show_run(path)


def _add_stage(name: str) -> None:
    def command(target: Target, sets: Sets = None, out: Out = None, redo: bool = False) -> None:
        config, path = resolve(target, out, sets)
        guarded(config, path, [name] if redo else [], (name,))

    about = {
        "corpus": "Read, clean and freeze the documents.",
        "activations": "Read layer K of the subject at drawn positions.",
        "split": "Assign documents to the parts av, ar, rl and test.",
        "tables": "Join vectors, parts and labels into training tables.",
        "ar": "Train the reconstructor on labels.",
        "av": "Train the verbalizer on labels.",
        "pair": "Adapt the reconstructor to the verbalizer's own texts, and joint RL if asked for.",
        "report": "Write the HTML report.",
    }
    app.command(name, help=about[name])(command)


for _name in pipeline.STAGES:
    if _name == "labels":
        cli_labels.register(app)
    elif _name == "eval":
        cli_eval.register(app)
    else:
        _add_stage(_name)


@app.command()
def status(
    target: Target,
    sets: Sets = None,
    out: Out = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="hash every file; exit code 2 if one is damaged")
    ] = False,
) -> None:
    """Say what is done, half-done, stale or damaged, with counts and times."""
    config, path = resolve(target, out, sets)
    rundir = RunDir(path)
    rundir.check_format()
    columns = ("stage", "state", "finished", "rows", "dropped", "seconds")
    table, lines = plain_table(columns, left=3, title=escape(str(path))), []
    found = pipeline.status(config, rundir, verify)
    for item in found:
        manifest = item.manifest
        lines += [f"{item.state} {item.stage}: {change}" for change in item.changes]
        dropped = {k: n for k, n in manifest.rows.dropped.items() if n} if manifest else {}
        if dropped:
            reasons = ", ".join(f"{n} {reason}" for reason, n in dropped.items())
            lines.append(f"dropped in {item.stage}: {reasons}")
        table.add_row(
            item.stage,
            item.state,
            manifest.finished[:19] if manifest else "",
            f"{manifest.rows.kept}" if manifest else "",
            f"{sum(dropped.values())}" if dropped else "",
            f"{manifest.seconds:.0f}" if manifest else "",
        )
    console.print(table)
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
    holder = rundir.holder()
    console.print(f"held by process {holder}" if holder else "no process holds this run")
    for item in found if verify else ():
        if item.state == "damaged":
            rundir.refuse_damage(item.stage, rundir.damage(item.stage, contents=True))


@app.command()
def stop(path: Annotated[Path, typer.Argument(metavar="RUN")]) -> None:
    """End the process, and its children, that hold a run; finished chunks stay."""
    from nlakit.run.stop import stop as stop_run

    ended = stop_run(RunDir(path))
    line = f"ended {ended} process(es); resume with nlakit run {quoted(path)}"
    console.print(line, markup=False, soft_wrap=True)


@app.command()
def config(target: Annotated[str | None, typer.Argument(metavar="CONFIG|RUN")] = None) -> None:
    """Print every setting: of a configuration resolved, or the defaults with their meaning."""
    if target is not None:
        write_data(dump_config(resolve(target, None, None)[0]))
        return
    schema = RunConfig.model_json_schema()
    _print_schema(schema, schema, "")


def _print_schema(node: dict[str, Any], root: dict[str, Any], prefix: str) -> None:
    for name, field in node.get("properties", {}).items():
        reference = field.get("$ref") or field.get("allOf", [{}])[0].get("$ref")
        if reference:
            _print_schema(root["$defs"][reference.split("/")[-1]], root, f"{prefix}{name}.")
            continue
        default = json.dumps(field["default"], ensure_ascii=False) if "default" in field else "—"
        about = field.get("description", "")
        console.print(
            f"[bold]{prefix}{name}[/bold] = {escape(default)}  [dim]{escape(about)}[/dim]",
            soft_wrap=True,
        )
        items = field.get("items", {}).get("$ref")
        if items:
            _print_schema(root["$defs"][items.split("/")[-1]], root, f"{prefix}{name}[].")


@app.command()
def plan(target: Target, sets: Sets = None, out: Out = None) -> None:
    """Predict rows, tokens, FLOPs, disk, memory and time from a short calibration."""
    from nlakit.studies.planning.plan import predict, table_of

    settings, path = resolve(target, out, sets)
    console.print(table_of(predict(settings, RunDir(path))))


@app.command()
def doctor() -> None:
    """Examine versions, devices, precision, memory, disk, keys (by name) and known clashes."""
    from nlakit.studies.doctor import examine

    found = examine()
    table = Table(show_header=False)
    colour = {"ok": "green", "note": "yellow", "problem": "red"}
    for item in found:
        mark = f"[{colour[item.status]}]{item.status}[/]"
        advice = f"\n{item.advice}" if item.advice else ""
        table.add_row(item.name, mark, escape(f"{item.detail}{advice}"))
    console.print(table)
    if any(item.status == "problem" for item in found):
        raise typer.Exit(ExitCode.PROBLEM)


for _commands in (
    cli_explain, cli_score, cli_audit, cli_compare, cli_probe, cli_card, cli_presets, cli_layers,
    cli_files, cli_hub, cli_serve, cli_steer,
):  # fmt: skip
    _commands.register(app)


@app.callback(invoke_without_command=True)
def _begin(
    version: Annotated[bool, typer.Option("--version")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="show what libraries warn of")
    ] = False,
) -> None:
    if not verbose:
        _quiet()
    if version:
        console.print(__version__)
        raise typer.Exit


def _quiet() -> None:
    """Silence what libraries print unasked; they are loaded after this."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    # It reports a missing hub kernel that it can do without.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


# Since 0.16 typer brings its own copy of click: usage errors have the base class of either.
TYPED_WRONG: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def main() -> None:
    """Entry point: a user's mistake becomes one line on standard error and an `ExitCode`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a pipe's encoding may lack what is printed
            stream.reconfigure(errors="replace")
    try:
        sys.exit(app(prog_name="nlakit", standalone_mode=False))
    except LimitReached as reached:
        Console(stderr=True, highlight=False).print(str(reached), soft_wrap=True, markup=False)
        sys.exit(ExitCode.LIMIT)
    except NlakitError as error:
        _refuse(error)
    except OSError as error:  # a place that no check looked at: the system says what is wrong
        place = error.filename or "a file"
        _refuse(
            DataError(
                f"{place} cannot be used",
                found=error.strerror or error,
                do="check that it is there, that you may use it, and that the disk is not full",
            )
        )
    except TYPED_WRONG as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # it prints the help itself
            error.show()
            sys.exit(ExitCode.MISTAKE)
        asked = error.ctx.command_path if getattr(error, "ctx", None) else "nlakit"
        said = error.format_message().rstrip(".")
        _refuse(ConfigError(said[:1].lower() + said[1:], do=f"see {asked} --help"))


def _refuse(error: NlakitError) -> NoReturn:
    line = f"[red]error:[/red] {escape(str(error))}"
    Console(stderr=True, highlight=False).print(line, soft_wrap=True)
    sys.exit(ExitCode.MISTAKE)
