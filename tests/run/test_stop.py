"""Stopping a run: real processes, a real lock, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from nlakit.errors import RunError
from nlakit.run.folder import RunDir
from nlakit.run.stop import stop

# A shell may start the tests with SIGINT ignored, which children inherit, so both say what they do.
HOLDER = """
import signal, subprocess, sys, time
from nlakit.run.folder import RunDir

answer = {"obey": signal.default_int_handler, "ignore": signal.SIG_IGN}[sys.argv[2]]
signal.signal(signal.SIGINT, answer)
with RunDir(sys.argv[1]).lock():
    child = subprocess.Popen([sys.executable, "-c", sys.argv[3], sys.argv[2]])
    print(child.pid, flush=True)
    time.sleep(120)
"""
CHILD = """
import signal, sys, time

signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "ignore" else signal.SIG_DFL)
time.sleep(120)
"""
Start = Callable[[str], tuple[psutil.Process, psutil.Process]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a process that holds the run in `tmp_path`, with a child; both end with the test."""
    started: list[psutil.Process] = []

    def begin(manners: str) -> tuple[psutil.Process, psutil.Process]:
        command = [sys.executable, "-c", HOLDER, str(tmp_path), manners, CHILD]
        holder = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(psutil.Process(holder.pid))
        started.append(psutil.Process(int(holder.stdout.readline())))
        return started[0], started[1]

    yield begin
    for process in started:
        if lives(process):
            process.kill()


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("manners", "grace"), [("obey", 20.0), ("ignore", 0.5)])
def test_stop_ends_the_holder_and_its_child(start: Start, tmp_path: Path, manners, grace):
    holder, child = start(manners)
    rundir = RunDir(tmp_path)
    assert rundir.holder() == holder.pid

    assert stop(rundir, grace=grace) == 2

    assert not lives(holder)
    assert not lives(child)
    psutil.wait_procs([holder], timeout=5)  # only its parent, this test, can clear it away
    assert rundir.holder() is None
    with rundir.lock():
        pass


def test_an_interrupted_holder_cleans_up(start: Start, tmp_path: Path):
    start("obey")
    assert (tmp_path / ".holder.json").exists()
    stop(RunDir(tmp_path))
    assert not (tmp_path / ".holder.json").exists()


def test_a_child_that_died_before_is_not_counted(start: Start, tmp_path: Path):
    _, child = start("obey")
    child.kill()
    while lives(child):
        time.sleep(0.01)
    assert stop(RunDir(tmp_path)) == 1


def test_a_free_run_cannot_be_stopped(tmp_path: Path):
    with pytest.raises(RunError, match="no process holds"):
        stop(RunDir(tmp_path))


def test_the_lock_of_a_dead_process_does_not_count(start: Start, tmp_path: Path):
    holder, child = start("obey")
    holder.kill()
    child.kill()
    psutil.wait_procs([holder, child], timeout=5)
    with pytest.raises(RunError, match="no process holds"):
        stop(RunDir(tmp_path))
