"""End a run from outside: ask first, then kill, and leave no child behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable

import psutil

from nlakit.errors import RunError
from nlakit.run.folder import RunDir

POLL_SECONDS = 0.1
KILL_SECONDS = 5.0


def stop(rundir: RunDir, grace: float = 20.0) -> int:
    """End the process that holds the run and all its descendants; returns how many ended.

    They are interrupted as Ctrl-C would, and killed if they still live after `grace` seconds.
    Raises RunError if nobody holds the run, or if the processes belong to somebody else.
    """
    pid = rundir.holder()
    if pid is None:
        raise RunError(
            f"no process holds {rundir.path}",
            found="no lock of a living process",
            do="nothing is left to stop; `nlakit status` shows what is finished",
        )
    tree = _with_descendants([pid])
    try:
        alive = _end(tree, _interrupt, grace)
        # A process that cleans up may start others, so the tree is looked at again.
        tree |= _with_descendants(process.pid for process in alive)
        alive = _end(tree, psutil.Process.kill, KILL_SECONDS)
    except psutil.AccessDenied as error:
        raise RunError(
            f"the process that holds {rundir.path} may not be stopped from here",
            found=f"process {error.pid} of another user",
            do="ask its owner, or use an account with the right to end it",
        ) from error
    return len(tree) - len(alive)


def _with_descendants(pids: Iterable[int]) -> set[psutil.Process]:
    """The living ones among the processes and all that they started."""
    found: set[psutil.Process] = set()
    for pid in pids:
        try:
            process = psutil.Process(pid)
            found |= set(filter(_lives, [process, *process.children(recursive=True)]))
        except psutil.NoSuchProcess:
            continue
    return found


def _interrupt(process: psutil.Process) -> None:
    if os.name == "nt":
        process.terminate()
    else:
        process.send_signal(signal.SIGINT)


def _end(
    tree: set[psutil.Process], how: Callable[[psutil.Process], None], seconds: float
) -> set[psutil.Process]:
    """Apply `how` to every living process; returns those that still live after `seconds`."""
    for process in filter(_lives, tree):
        try:
            how(process)
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + seconds
    while (alive := set(filter(_lives, tree))) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return alive


def _lives(process: psutil.Process) -> bool:
    """A zombie has ended: it only waits for its parent to ask how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
