"""What commands share: their options, and how they run stages."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nlakit.config.load import load_config
from nlakit.config.sections import RunConfig
from nlakit.errors import ConfigError, ExitCode
from nlakit.files.places import check_folder, quoted
from nlakit.run import pipeline

console = Console(highlight=False)
Target = Annotated[
    str, typer.Argument(metavar="CONFIG|RUN", help="a YAML configuration, or a run folder")
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="A.B=C", help="override a setting")
]
Out = Annotated[Path | None, typer.Option("--out", help="run folder; runs/NAME unless given")]


def resolve(target: str, out: Path | None, sets: list[str] | None) -> tuple[RunConfig, Path]:
    """Configuration and run folder of a command-line target."""
    path = Path(target)
    if not path.exists():
        raise ConfigError(
            f"there is no {path}",
            found=f"working folder {Path.cwd()}",
            do="give a run folder, or a YAML configuration; examples/ has some",
        )
    if path.is_dir():
        if not (path / "config.yaml").exists():
            raise ConfigError(
                f"{path} is no run folder",
                found="no config.yaml",
                do="give a run folder, or a YAML configuration",
            )
        return load_config(path / "config.yaml", sets or []), out or path
    config = pipeline.with_model_settings(load_config(path, sets or []))
    return config, out or Path("runs") / config.name


def guarded(config: RunConfig, path: Path, redo: list[str], stages: Collection[str]) -> None:
    """Run stages; Ctrl-C says how to go on and exits 130."""
    check_folder(path)
    try:
        pipeline.run(config, path, redo=redo, stages=stages)
    except KeyboardInterrupt:
        console.print("\nstopped; finished work is kept. Resume with the same command, or:")
        console.print(f"  nlakit run {quoted(path)}", markup=False, soft_wrap=True)
        raise typer.Exit(ExitCode.STOPPED) from None
