"""Joint RL as a part of the stage `pair`: what it leaves, refuses and takes up again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from nlakit import NLA
from nlakit.config.load import config_hash, parse_config
from nlakit.config.sections import RunConfig
from nlakit.core.contract import read_contract
from nlakit.errors import DataError
from nlakit.models.reconstructor import Reconstructor
from nlakit.models.subject import load_subject
from nlakit.run import pipeline
from nlakit.run.folder import FOLDERS, RunDir, file_sha256
from nlakit.train import pair
from nlakit.train.rl.joint import JointLoop
from nlakit.train.rl.learn import learn, learnt_rows
from tests.commands import call
from tests.conftest import toy_corpus, toy_settings
from tests.train.rl.toys import RL


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path]
) -> tuple[Path, RunConfig]:
    """A toy run with RL, by the command line."""
    root = tmp_path_factory.mktemp("rl")
    settings = toy_settings(toy_folder("gemma3"), toy_corpus(root / "corpus.jsonl"), rl=RL)
    (root / "toy.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    said = call("run", str(root / "toy.yaml"), "--out", str(root / "run"))
    assert (said.code, said.crash) == (0, ""), said
    return root / "run", parse_config(settings)


def without_pair(run: Path, to: Path) -> Path:
    """A copy of a run before the stage `pair`."""
    late = shutil.ignore_patterns(*(FOLDERS[name] for name in ("pair", "eval", "report")))
    return shutil.copytree(run, to, ignore=late)


def weights(half: Path) -> dict[str, torch.Tensor]:
    return {
        f"{file.name}/{name}": tensor
        for file in sorted(half.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def same(first: Path, second: Path) -> bool:
    own, other = weights(first), weights(second)
    return own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)


def test_a_run_with_rl_goes_through_to_its_report(finished: tuple[Path, RunConfig]) -> None:
    path, config = finished
    assert [one.state for one in pipeline.status(config, RunDir(path))] == ["done"] * len(FOLDERS)
    folder = path / "08_pair"
    manifest = RunDir(path).manifest("pair")
    assert manifest is not None
    for name in ("av", "ar", "before_rl/av", "before_rl/ar", "rl/best/fve/ar"):
        assert f"{name}/nla_meta.yaml" in manifest.files
    for name in ("metrics.jsonl", "training.json", "start.json", "kept.json"):
        assert f"rl/{name}" in manifest.files
    steps = [json.loads(line)["step"] for line in (folder / "rl/metrics.jsonl").open()]
    assert steps == [1, 2, 3]
    assert (path / "10_report/report.html").exists() or any((path / "10_report").iterdir())


def test_every_pair_that_it_leaves_can_be_used(finished: tuple[Path, RunConfig]) -> None:
    folder = finished[0] / "08_pair"
    for place in (folder, folder / "before_rl", folder / "rl/best/content", folder / "rl/best/fve"):
        nla = NLA.load(place, device="cpu")
        found = nla.explain("The whale sings.", positions=[-1])[0]
        assert found.cosine is not None and found.floor is not None


def test_a_half_names_what_it_was_before(finished: tuple[Path, RunConfig]) -> None:
    folder = finished[0] / "08_pair"
    kept = json.loads((folder / "rl/kept.json").read_text())
    for half in ("av", "ar"):
        record = read_contract(folder / half).nlakit
        before = folder / "before_rl" / half / "adapter_model.safetensors"
        assert record.parent == f"before RL:{file_sha256(before)}"
        assert record.scores["rl"]["kept"] == kept
    assert read_contract(folder / "av").nlakit.max_new_tokens == 12  # as the adapted pair


def test_the_pair_is_the_one_that_the_settings_keep(
    finished: tuple[Path, RunConfig], tmp_path: Path
) -> None:
    path, config = finished
    assert config.rl is not None
    folder = shutil.copytree(path / "08_pair", tmp_path / "pair")
    named = {"content": "rl/best/content", "fve": "rl/best/fve", "last": "rl/last"}
    subject = load_subject(config.subject)
    for keep, place in named.items():
        rl = config.rl.model_copy(update={"keep": keep})
        learn(
            config.model_copy(update={"rl": rl}),
            RunDir(path),
            folder / "before_rl",
            folder,
            subject,
        )
        assert same(folder / "av", folder / place / "av"), keep
        assert same(folder / "ar", folder / place / "ar"), keep
    assert not same(folder / "rl/last/ar", folder / "before_rl/ar")


def test_killed_in_any_part_and_resumed_it_gives_the_same(
    finished: tuple[Path, RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once while the adapted pair is written, once in RL; then nothing is adapted again."""
    path, config = finished
    copy = without_pair(path, tmp_path / "copy")

    def killed(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reconstructor, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(config, copy, stages=["pair"])
    step = JointLoop._step
    with monkeypatch.context() as patch:
        patch.setattr(JointLoop, "_step", lambda loop, at: killed() if at == 2 else step(loop, at))
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(config, copy, stages=["pair"])
    with monkeypatch.context() as patch:
        patch.setattr(pair, "adapt", killed)
        pipeline.run(config, copy, stages=["pair"])
    whole, cut = RunDir(path).manifest("pair"), RunDir(copy).manifest("pair")
    assert whole is not None and cut is not None
    assert whole.files == cut.files


@pytest.mark.parametrize(
    ("change", "says"),
    [({"batch_rows": 5000}, "fewer vectors than one step"), ({"rows": 1}, "1 rows, batch_rows 2")],
)
def test_too_few_rows_are_refused_before_anything_is_adapted(
    finished: tuple[Path, RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    says: str,
) -> None:
    path, config = finished
    assert config.rl is not None
    config = config.model_copy(update={"rl": config.rl.model_copy(update=change)})
    monkeypatch.setattr(pair, "adapt", lambda *args: pytest.fail("adapted"))
    with pytest.raises(DataError, match=says) as caught:
        pipeline.run(config, without_pair(path, tmp_path / "copy"), stages=["pair"])
    assert len(str(caught.value).splitlines()) == 1


def test_documents_that_are_measured_on_are_neither_learnt_nor_adapted_on(
    finished: tuple[Path, RunConfig],
) -> None:
    path, config = finished
    assert config.rl is not None
    rows, held_out = learnt_rows(RunDir(path), config.rl)
    documents = set(held_out.doc_ids)
    assert len(held_out) == 6 and len(documents) > 1
    adapted_on, _ = pair.chosen_rows(RunDir(path), config.pair, documents)
    assert not documents & set(rows.doc_ids)
    assert not documents & set(adapted_on.doc_ids)


def test_runs_without_rl_are_as_fresh_as_before() -> None:
    """Their settings have the hash that they had when there was no such section."""
    plain = parse_config({"name": "t"})
    sections = pair.run.sections
    before = [name for name in sections if name != "rl"]
    assert config_hash(plain, sections) == config_hash(plain, before)
    assert config_hash(parse_config({"name": "t", "rl": {}}), sections) != config_hash(
        plain, before
    )
