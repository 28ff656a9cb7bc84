"""The store of answers: durable, one writer, nothing counted twice."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nlakit.data.labels.services.faults import UNKNOWN
from nlakit.data.labels.services.ledger import Ledger, Spent, request_key
from nlakit.errors import DataError, RunError

SERVICE = {"kind": "openai", "model": "m", "temperature": None}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "answers.sqlite", "run")
    yield made
    made.close()


async def answer(ledger: Ledger, key: str, text: str, cost: float | None = 0.01) -> None:
    number = await ledger.sent(key, "openai:m", 0.5)
    await ledger.came(number, "ok", text, "m-2026", (10, 5), cost)


def test_an_answer_is_found_again_by_another_run(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "a.sqlite", "one")
    asyncio.run(answer(first, "key", "text"))
    first.close()
    second = Ledger(tmp_path / "a.sqlite", "two")
    record, sent, useless = asyncio.run(second.look("key"))
    assert record is not None
    assert (record.answer, record.tokens_in, record.tokens_out, record.cost) == (
        "text",
        10,
        5,
        0.01,
    )
    assert (sent, useless) == (1, [])
    assert second.spent() == Spent()  # the other run has paid
    second.close()


def test_what_a_kill_cut_off_counts_at_its_worst(ledger: Ledger) -> None:
    async def work() -> None:
        await ledger.sent("cut off", "openai:m", 0.5)
        await answer(ledger, "came", "text", 0.01)
        number = await ledger.sent("refused", "openai:m", 0.5)
        await ledger.came(number, "rate_limit", None, None, UNKNOWN, 0.0)
        await ledger.sent("no price", "tool:x", None)

    asyncio.run(work())
    spent = ledger.spent()
    assert spent.requests == 4
    assert spent.cost == pytest.approx(0.51)
    assert spent.unpriced == 1


def test_faults_are_counted_by_what_they_mean(ledger: Ledger) -> None:
    async def work() -> tuple[object, int, list[str]]:
        for kind in ("empty", "rate_limit", "invalid", "server"):
            number = await ledger.sent("key", "openai:m", None)
            await ledger.came(number, kind, None, None, UNKNOWN, None)
        return await ledger.look("key")

    assert asyncio.run(work()) == (None, 4, ["empty", "invalid"])


def test_many_at_once_are_all_kept(ledger: Ledger) -> None:
    async def work() -> None:
        await asyncio.gather(*(answer(ledger, f"k{i}", f"t{i}") for i in range(500)))

    asyncio.run(work())
    base = sqlite3.connect(ledger.path)
    assert base.execute("select count(*) from requests where outcome = 'ok'").fetchone() == (500,)
    base.close()


def test_a_killed_process_loses_no_answer_it_counted(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, signal
from pathlib import Path
from nlakit.data.labels.services.ledger import Ledger
async def work():
    ledger = Ledger(Path({str(tmp_path / "a.sqlite")!r}), "run")
    number = await ledger.sent("key", "s", 0.5)
    await ledger.came(number, "ok", "text", "m", (1, 1), 0.1)
    await ledger.sent("other", "s", 0.5)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(work())
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    ledger = Ledger(tmp_path / "a.sqlite", "run")
    assert asyncio.run(ledger.look("key"))[0] is not None
    assert ledger.spent().cost == pytest.approx(0.6)
    ledger.close()


def test_a_second_writer_is_refused(ledger: Ledger) -> None:
    program = f"""
from pathlib import Path
from nlakit.data.labels.services.ledger import Ledger
from nlakit.errors import RunError
try:
    Ledger(Path({str(ledger.path)!r}), "run")
except RunError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "is in use by another process" in said.stdout


def test_pauses_survive(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a.sqlite", "run")
    asyncio.run(ledger.pause("openai:m", 123.5))
    ledger.close()
    again = Ledger(tmp_path / "a.sqlite", "run")
    assert again.pauses() == {"openai:m": 123.5}
    again.close()


def test_something_else_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    path.write_text("no database, but long enough to be read as one" * 50)
    with pytest.raises(DataError, match="no store of answers"):
        Ledger(path, "run")
    path.unlink()
    Ledger(path, "run").close()  # the failed one holds no lock


def test_a_full_disk_is_one_clear_line(ledger: Ledger) -> None:
    async def work() -> None:
        await answer(ledger, "kept", "text")
        pages = ledger.base.execute("pragma page_count").fetchone()[0]
        ledger.base.execute(f"pragma max_page_count = {pages}")
        await answer(ledger, "lost", "x" * 100_000)

    with pytest.raises(RunError, match="database or disk is full.*free disk space"):
        asyncio.run(work())
    ledger.base.execute("pragma max_page_count = 100000")
    assert asyncio.run(ledger.look("kept"))[0] is not None


def test_what_cannot_be_written_hangs_nobody(ledger: Ledger) -> None:
    async def work() -> None:
        number = await ledger.sent("key", "openai:m", None)
        with pytest.raises(RunError, match="cannot write to the store"):
            await ledger.came(number, "ok", "text", "m", (10**20, 1), None)
        assert await asyncio.wait_for(ledger.look("key"), 5) == (None, 1, [])

    asyncio.run(work())


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="no store of answers can be made"):
        Ledger(tmp_path / "file" / "a.sqlite", "run")


def test_everything_that_decides_an_answer_is_in_its_key() -> None:
    asked = (SERVICE, "instructions", "message", "schema")
    others = [
        ({**SERVICE, "model": "n"}, *asked[1:]),
        ({**SERVICE, "temperature": 0.5}, *asked[1:]),
        (SERVICE, "other", "message", "schema"),
        (SERVICE, "instructions", "other", "schema"),
        (SERVICE, "instructions", "message", "other"),
        (SERVICE, "instructionsmessage", "", "schema"),
    ]
    keys = {request_key(*one) for one in (asked, *others)}
    assert len(keys) == 7
    assert request_key(*asked) == request_key(dict(reversed(SERVICE.items())), *asked[1:])
