"""The command line in this process, exactly as a shell would see it."""

from __future__ import annotations

import contextlib
import io
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from nlakit.cli.main import main


@dataclass(frozen=True)
class Said:
    """What a command ended with; `crash` is the traceback of what it did not expect."""

    code: int | None
    out: str
    err: str
    crash: str = ""


@contextlib.contextmanager
def arguments(*words: str) -> Iterator[None]:
    """`sys.argv`, for as long as the block runs."""
    before, sys.argv = sys.argv, list(words)
    try:
        yield
    finally:
        sys.argv = before


def call(*words: str) -> Said:
    """`nlakit WORDS`."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    code, crash = 0, ""
    with (
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
        arguments("nlakit", *words),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            crash = traceback.format_exc()
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode(errors="replace") for stream in streams)  # type: ignore[attr-defined]
    return Said(code if isinstance(code, int) else 1, out, err, crash)
