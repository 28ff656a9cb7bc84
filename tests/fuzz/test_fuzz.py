"""Whatever is typed, and whatever lies in the files: one line and an exit code, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.cases import fill_odd, run_case, safe, tree

CASES = 100


@pytest.fixture(scope="module")
def odd_place(master: Path) -> Path:
    fill_odd(master)
    return master


@pytest.mark.parametrize("seed", range(CASES))
def test_no_traceback(seed: int, odd_place: Path, embedded_toy: Path, tmp_path: Path) -> None:
    with safe(embedded_toy):
        case = run_case(seed, odd_place, tmp_path)
    assert not case.problem, f"{case}\n{case.problem}"


def test_every_command_has_its_turn() -> None:
    assert len(tree()) <= CASES
