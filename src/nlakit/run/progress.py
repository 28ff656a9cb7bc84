"""Progress of anything that takes more than a few seconds.

On a terminal a bar with rate and time left; elsewhere plain flushed lines, so that a log can be
followed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)
LINE_EVERY_SECONDS = 15.0


class Ticker:
    """Counts finished units; `advance` is cheap enough to call once a batch."""

    def __init__(self, label: str, total: int, unit: str, bar: Progress | None) -> None:
        self.label, self.total, self.unit, self.bar = label, total, unit, bar
        self.done, self.start, self.skipped = 0, time.monotonic(), 0
        self.last_line = self.start
        self.task = bar.add_task(label, total=total, note="") if bar else None

    def skip(self, count: int) -> None:
        """Units finished by an earlier sitting: they count as done but not in the rate."""
        self.done += count
        self.skipped += count
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self.done)

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=self.done, note=note)
            return
        now = time.monotonic()
        if now - self.last_line >= LINE_EVERY_SECONDS or self.done >= self.total:
            self.last_line = now
            rate = (self.done - self.skipped) / max(now - self.start, 1e-9)
            left = (self.total - self.done) / max(rate, 1e-9)
            line = f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.1f}/s, {left:.0f} s"
            console.print(f"{line} left {note}".rstrip(), soft_wrap=True, markup=False)
            sys.stderr.flush()


@contextmanager
def ticker(label: str, total: int, unit: str = "rows") -> Iterator[Ticker]:
    """Show progress of `total` units under `label` while the body calls `advance`."""
    if not console.is_terminal:
        yield Ticker(label, total, unit, None)
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=False) as bar:
        yield Ticker(label, total, unit, bar)


def say(text: str) -> None:
    """One line to the person at the terminal (standard error, flushed)."""
    console.print(text, soft_wrap=True, markup=False)
