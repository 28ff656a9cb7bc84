"""Runs of eight words, counted by hand."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from nlakit.core.text.shingles import shingle_hashes


def numbered(start: int, stop: int) -> str:
    return " ".join(f"word{i}" for i in range(start, stop))


def test_shingles_by_hand() -> None:
    assert len(shingle_hashes("")) == 0
    assert len(shingle_hashes("one two three")) == 1
    assert len(shingle_hashes(numbered(0, 8))) == 1
    assert len(shingle_hashes(numbered(0, 20))) == 13
    assert len(shingle_hashes("same " * 20)) == 1
    assert shingle_hashes("a b")[0] != shingle_hashes("b a")[0]


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from nlakit.core.text.shingles import shingle_hashes; print(*shingle_hashes('a b c é'))"
    output = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert output.split() == [str(value) for value in shingle_hashes("a b c é")]
    assert shingle_hashes("a b c é").dtype == np.uint64
