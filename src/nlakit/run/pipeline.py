"""The stages in order: skip what is finished, resume what is half-done, refuse what is stale."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from nlakit.config.from_model import fitted, needs_model
from nlakit.config.sections import RunConfig
from nlakit.errors import ConfigError
from nlakit.run.folder import FOLDERS, Manifest, RunDir
from nlakit.run.progress import say
from nlakit.run.stage import State, begun, refuse_changes, stage_state

MODULES = {
    "corpus": "nlakit.data.corpus",
    "activations": "nlakit.data.activations",
    "split": "nlakit.data.split",
    "labels": "nlakit.data.labels.label",
    "tables": "nlakit.data.tables",
    "ar": "nlakit.train.ar",
    "av": "nlakit.train.av",
    "pair": "nlakit.train.pair",
    "eval": "nlakit.studies.evaluation",
    "report": "nlakit.publish.report.report",
}
STAGES = tuple(MODULES)
assert tuple(FOLDERS) == STAGES


@dataclass(frozen=True)
class StageStatus:
    """State of one stage; `changes` says why it is stale, or what is damaged."""

    stage: str
    state: State
    changes: list[str]
    manifest: Manifest | None


def stage_run(name: str) -> Any:
    """The `run(config, rundir)` of a stage. Modules load on demand: a finished run needs no torch.

    Raises ConfigError for an unknown name.
    """
    check_name(name)
    return import_module(MODULES[name]).run


def run(
    config: RunConfig,
    path: str | Path,
    *,
    redo: Collection[str] = (),
    stages: Collection[str] = STAGES,
) -> RunDir:
    """Run the stages in their order inside `path`, holding the folder's lock.

    `redo` sets aside these stages and all that rest on them. Raises RunError if a stage is stale,
    or damaged beyond repair, or another process holds the folder, and whatever a stage raises.
    """
    for name in (*redo, *stages):
        check_name(name)
    rundir = RunDir(path)
    rundir.check_format()
    with rundir.lock():
        config = settled(begun_in(with_model_settings(config), rundir))
        wanted = [name for name in needed(config) if name in stages]
        redone = with_children(redo)
        check_subject(config, rundir, wanted, redone)
        for name in wanted:
            if name not in redone:
                refuse_changes(stage_run(name), config, rundir)
        for name in redone:
            old = rundir.set_aside(name)
            if old:
                say(f"{name}: the old result is kept in {old}")
        # Only now: config.yaml describes what the finished stages were made with.
        RunDir.create(path, config)
        for name in wanted:
            run_stage(name, config, rundir)
    return rundir


def check_subject(
    config: RunConfig, rundir: RunDir, wanted: Collection[str], redone: Collection[str]
) -> None:
    """Raise ModelError or ConfigError, before a corpus is made and labels are paid for, if a stage
    that is still to run could not read the subject or the lengths that are set."""
    to_run = (name for name in wanted if name in redone or rundir.record(name) is None)
    if any("subject" in stage_run(name).sections for name in to_run):
        from nlakit.models.families import check_lengths

        check_lengths(config)


def begun_in(config: RunConfig, rundir: RunDir) -> RunConfig:
    """The configuration with the number format in which the run began, where it leaves the choice
    to nlakit. A run has one number format, on whichever machine it goes on."""
    file = rundir.path / "config.yaml"
    if config.subject.dtype != "auto" or not file.exists():
        return config
    recorded = yaml.safe_load(file.read_text(encoding="utf-8"))["subject"]["dtype"]
    return _with_dtype(config, recorded)


def with_model_settings(config: RunConfig) -> RunConfig:
    """The configuration with the layer and the learning rates that it leaves to the model. Imported
    tables are of one layer, which is theirs.

    Raises ModelError if something is left out and the model's configuration cannot be read.
    """
    if not needs_model(config):
        return config
    from nlakit.models.families import shape_of

    return fitted(config, shape_of(config.subject))


def settled(config: RunConfig) -> RunConfig:
    """The configuration with a number format chosen for this machine in place of `auto`. Imported
    tables bring their own."""
    if config.subject.dtype != "auto" or config.tables.source:
        return config
    from nlakit.models.precision import settled as settled_subject

    return _with_dtype(config, settled_subject(config.subject).dtype)


def _with_dtype(config: RunConfig, dtype: str) -> RunConfig:
    subject = config.subject.model_copy(update={"dtype": dtype})
    return config.model_copy(update={"subject": subject})


def check_name(name: str) -> None:
    """Raise ConfigError unless there is such a stage."""
    if name not in MODULES:
        raise ConfigError("unknown stage", found=name, do=f"one of {', '.join(STAGES)}")


def run_stage(name: str, config: RunConfig, rundir: RunDir) -> Manifest:
    """Run one stage and say what it did."""
    before = rundir.record(name)
    if before is None:
        say(f"{name}: {'resuming' if begun(rundir.folder(name)) else 'starting'}")
    manifest: Manifest = stage_run(name)(config, rundir)
    rows = manifest.rows
    dropped = ", ".join(f"{count} {reason}" for reason, count in rows.dropped.items() if count)
    detail = f"{rows.kept} of {rows.entered} rows" + (f" (dropped: {dropped})" if dropped else "")
    verb = "finished before" if before else f"done in {manifest.seconds:.0f} s"
    say(f"{name}: {verb}, {detail}")
    return manifest


def needed(config: RunConfig) -> list[str]:
    """The stages of a run, in order; imported tables replace all before them."""
    first = STAGES.index("tables") if config.tables.source else 0
    return list(STAGES[first:])


def with_children(names: Collection[str]) -> list[str]:
    """The stages and every stage that rests on them, in order."""
    chosen = set(names)
    for name in STAGES:
        if chosen and name not in chosen and chosen & set(stage_run(name).parents):
            chosen.add(name)
    return [name for name in STAGES if name in chosen]


def status(config: RunConfig, rundir: RunDir, verify: bool = False) -> list[StageStatus]:
    """State of every stage under a configuration; `verify` compares the hashes of all files."""
    config, found = begun_in(config, rundir), []
    for name in needed(config):
        state, changes = stage_state(stage_run(name), config, rundir, verify)
        manifest = rundir.manifest(name) if state == "done" else None
        found.append(StageStatus(name, state, changes, manifest))
    return found
