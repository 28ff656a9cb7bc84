"""Halves that lie in folders of a hub repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from nlakit.cli.main import app
from nlakit.core.metrics import cosine
from nlakit.errors import ContractError
from nlakit.models.foreign.convert import export_pair
from nlakit.models.foreign.folders import find_halves
from nlakit.models.nla import NLA
from tests.hubserver import HubServer, running
from tests.models.test_foreign import TEXTS, pair
from tests.models.test_foreign_adapters import ATTENTION, assert_read_exactly
from tests.reader_kitft import ReferenceAR
from tests.reader_peft import PeftAV, write_av

CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}


def files(folder: Path, at: str) -> dict[str, bytes]:
    return {
        f"{at}/{file.relative_to(folder).as_posix()}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def av(toy_folder: Any, tmp_path: Path) -> Path:
    write_av(toy_folder("llama"), tmp_path / "av", ATTENTION)
    return tmp_path / "av"


@pytest.fixture
def ar(toy_subject: Any, tmp_path: Path) -> Path:
    export_pair(pair(toy_subject, "llama"), tmp_path / "theirs", "kitft")
    return tmp_path / "theirs" / "ar"


@pytest.fixture
def hub(av: Path, ar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A repository of checkpoints: two steps of an AV, a critic, a pair, and what nobody asked
    for."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    held = files(av, "rl/iter_100") | files(ar, "rl/critic_latest")
    held |= {name.replace("iter_100", "iter_200"): data for name, data in held.items()}
    held |= files(av, "pair/av") | files(ar, "pair/critic")
    held |= {
        "rl/iter_100/optimizer.pt": b"x",
        "rl/iter_100/deeper/model.safetensors": b"x",
        "rl/evil.py": b"x",
        "logs/log.txt": b"x",
        "README.md": b"x",
    }
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        server.put("someone/nla", held)
        yield server


def fetched(server: HubServer) -> set[str]:
    marks = "/resolve/"
    return {path.partition(marks)[2].partition("/")[2] for _, path in server.log if marks in path}


def test_a_half_in_a_folder_is_read_exactly_and_nothing_else_is_fetched(
    hub: HubServer, toy_folder: Any, av: Path, ar: Path, vectors: np.ndarray
) -> None:
    nla = NLA.load("someone/nla/rl/iter_100", injection="add", **CPU)
    assert_read_exactly(nla, PeftAV(av, toy_folder("llama")), vectors)
    known = {f"rl/iter_100/{f.name}" for f in av.iterdir() if f.suffix != ".md"}
    assert fetched(hub) == known
    assert hub.log[0][1].startswith("/api/models/someone/nla/tree")
    both = NLA.load(
        ["someone/nla/rl/iter_200", "someone/nla/rl/critic_latest"], injection="add", **CPU
    )
    theirs = ReferenceAR(ar)
    made = np.stack([theirs.reconstruct(text) for text in TEXTS])
    assert cosine(both.reconstruct(TEXTS), made).min() >= 0.9999
    with_pair = NLA.load("someone/nla/pair", injection="add", **CPU)
    assert with_pair.av is not None and with_pair.ar is not None


def test_after_that_the_cache_is_enough(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    online = find_halves("someone/nla/rl/iter_100")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_halves("someone/nla/rl/iter_100") == online
    with pytest.raises(ContractError, match="no trained pair or half in someone/nla/rl/iter_200"):
        find_halves("someone/nla/rl/iter_200")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("someone/nla/rl/iter_300", "someone/nla has no folder rl/iter_300"),
        ("someone/nla/rl", "no trained pair or half in someone/nla/rl"),
        ("someone/nla", "no trained pair or half in someone/nla"),
    ],
)
def test_a_folder_without_a_half_names_those_that_hold_one(
    hub: HubServer, asked: str, says: str
) -> None:
    halves = "pair/av", "pair/critic", "rl/critic_latest", "rl/iter_100", "rl/iter_200"
    found = ", ".join(f"someone/nla/{half}" for half in halves)
    with pytest.raises(ContractError, match=f"{says}; found: halves in {found}; do:") as told:
        find_halves(asked)
    assert "\n" not in str(told.value) and not fetched(hub)


def test_the_commands_take_a_folder_of_a_repository(
    hub: HubServer, vectors: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "v.npy", vectors[:2])
    said = ["--injection", "add", "--device", "cpu", "--precision", "float32"]
    rows = ["--vectors", str(tmp_path / "v.npy")]
    found = CliRunner().invoke(app, ["explain", "someone/nla/rl/iter_100", *rows, *said])
    assert found.exit_code == 0, found.exception
    target = str(tmp_path / "ours")
    both = ["someone/nla/rl/iter_100", target, "--with", "someone/nla/rl/critic_latest"]
    found = CliRunner().invoke(app, ["import", *both, *said])
    assert found.exit_code == 0 and NLA.load(target, device="cpu").ar is not None


def test_a_mistyped_folder_below_one_that_is_here_is_not_asked_of_a_hub(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    with pytest.raises(ContractError, match="half in runs/demo/08_par; found: no"):
        find_halves("runs/demo/08_par")
    assert not hub.log
    with pytest.raises(ContractError, match="runs/other/av is no local folder and cannot be had"):
        find_halves("runs/other/av")
