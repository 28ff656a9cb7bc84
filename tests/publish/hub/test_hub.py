"""Push and pull against a folder and against a stand-in hub."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import typer
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from nlakit import NLA
from nlakit.cli import hub as cli_hub
from nlakit.config.load import parse_config
from nlakit.core.contract import FILE, Contract, read_contract
from nlakit.data.labels.export import export_labels
from nlakit.errors import ConfigError, ContractError, DataError, NlakitError, RunError, ServiceError
from nlakit.files.parquet import write_table
from nlakit.publish.hub.contents import is_pickle
from nlakit.publish.hub.hub import STAGING, Plan, pull, push
from nlakit.publish.hub.places import Folder, Hub, place
from nlakit.run import pipeline
from nlakit.run.folder import RunDir
from tests.conftest import toy_corpus, toy_settings
from tests.hubserver import TOKEN, Blob, Cut, HubServer, logged_in

REPO = "somebody/toy"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub that knows one token, and this process logged in to it."""
    with logged_in(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library sleeps between its attempts."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def contract(role: str, **extraction: Any) -> Contract:
    return Contract.model_validate(
        {
            "kind": "nla_model",
            "d_model": 4,
            "extraction": {"base_model": "owner/subject", "layer_index": 1, **extraction},
            "tokens": {
                "injection_char": "x",
                "injection_token_id": 1,
                "injection_left_neighbor_id": 2,
                "injection_right_neighbor_id": 3,
            },
            "prompt_templates": {"av": "<c>{marker}</c>", "ar": "<t>{explanation}</t>"},
            "nlakit": {"role": role, "baseline": 0.5, "baseline_source": "40 rows"},
        }
    )


def toy_pair(folder: Path, **extraction: Any) -> Path:
    """A folder with the files of a pair; the weights are a few numbers."""
    for role, value in (("av", 1.0), ("ar", 2.0)):
        half = folder / role
        half.mkdir(parents=True)
        save_file({"w": np.full((8, 8), value)}, half / "adapter_model.safetensors")
        (half / "adapter_config.json").write_text('{"r": 4, "base_model_name_or_path": null}')
        contract(role, **extraction).write(half / FILE)
    return folder


def states(plan: Plan) -> dict[str, str]:
    return {row.name: row.state for row in plan.rows}


def contents(folder: Path) -> dict[str, bytes]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


NAMES = {"README.md"} | {
    f"{role}/{name}"
    for role in ("av", "ar")
    for name in ("adapter_config.json", "adapter_model.safetensors", FILE)
}


def test_a_dry_run_changes_nothing(tmp_path: Path, hub: HubServer) -> None:
    pair = toy_pair(tmp_path / "pair")
    for dest in (str(tmp_path / "there"), REPO):
        plan = push(str(pair), dest)
        assert states(plan) == dict.fromkeys(NAMES, "new")
        assert plan.what == "pair"
    assert not (tmp_path / "there").exists()
    assert {method for method, _ in hub.log} == {"GET"}
    assert not hub.repos


def test_the_plan_names_size_and_hash(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    rows = {row.name: row for row in push(str(pair), str(tmp_path / "there")).rows}
    data = (pair / "av" / "adapter_model.safetensors").read_bytes()
    row = rows["av/adapter_model.safetensors"]
    assert (row.size, row.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_a_folder_gets_everything_once(tmp_path: Path) -> None:
    pair, there = toy_pair(tmp_path / "pair"), tmp_path / "there"
    push(str(pair), str(there), send=True)
    sent = contents(there)
    assert set(sent) == NAMES
    assert {n: data for n, data in sent.items() if n != "README.md"} == contents(pair)
    again = push(str(pair), str(there), send=True)
    assert not again.moving
    (there / "av" / FILE).write_text("other", encoding="utf-8")
    (there / "ar" / FILE).unlink()
    found = states(push(str(pair), str(there), send=True))
    assert found["av/" + FILE] == "changed"
    assert found["ar/" + FILE] == "new"
    assert contents(there) == sent


def test_a_hub_gets_everything_once_and_gives_it_back(tmp_path: Path, hub: HubServer) -> None:
    pair = toy_pair(tmp_path / "pair")
    push(str(pair), REPO, send=True)
    repo = hub.repos["model", REPO]
    stored = {name: blob.data for name, blob in repo.files.items() if name != ".gitattributes"}
    assert set(stored) == NAMES
    assert {n: data for n, data in stored.items() if n != "README.md"} == contents(pair)
    assert hub.count("PUT") == 2
    assert not push(str(pair), REPO, send=True).moving
    assert hub.count("PUT") == 2
    assert hub.count("POST", "/commit/") == 1

    pulled = pull(REPO, tmp_path / "got")
    assert contents(tmp_path / "got") == stored
    assert (pulled.files, pulled.fetched, pulled.left_out) == (7, 7, [])
    assert pulled.use == f'nlakit explain {tmp_path / "got"} "some text"'
    assert pull(REPO, tmp_path / "got").fetched == 0


@pytest.mark.usefixtures("no_waiting")
def test_an_upload_that_breaks_goes_on(tmp_path: Path, hub: HubServer) -> None:
    pair = toy_pair(tmp_path / "pair")
    second = hashlib.sha256((pair / "av" / "adapter_model.safetensors").read_bytes()).hexdigest()
    hub.cuts = [Cut("PUT", second, after=100, times=1000)]
    with pytest.raises(ServiceError, match="repeat the command") as caught:
        push(str(pair), REPO, send=True)
    assert "\n" not in str(caught.value)
    assert len(hub.large) == 1
    hub.cuts, hub.log = [], []
    push(str(pair), REPO, send=True)
    assert [path for method, path in hub.log if method == "PUT"] == [f"/storage/{second}"]
    assert set(hub.repos["model", REPO].files) == NAMES | {".gitattributes"}


def test_a_commit_that_breaks_sends_no_large_file_again(tmp_path: Path, hub: HubServer) -> None:
    pair = toy_pair(tmp_path / "pair")
    hub.cuts = [Cut("POST", "/commit/", after=10)]
    with pytest.raises(ServiceError, match="the transfer with"):
        push(str(pair), REPO, send=True)
    assert len(hub.large) == 2
    hub.log = []
    push(str(pair), REPO, send=True)
    assert hub.count("PUT") == 0
    assert set(hub.repos["model", REPO].files) == NAMES | {".gitattributes"}


@pytest.mark.usefixtures("no_waiting")
def test_a_download_that_breaks_goes_on(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50)
    push(str(toy_pair(tmp_path / "pair")), REPO, send=True)
    large = "av/adapter_model.safetensors"
    hub.cuts = [Cut("GET", large, after=100)]
    pull(REPO, tmp_path / "short")  # one cut is mended by asking for the rest
    assert ("RANGE", f"{large} from 100") in hub.log

    hub.cuts = [Cut("GET", large, after=0, times=1000)]
    with pytest.raises(ServiceError, match="repeat the command"):
        pull(REPO, tmp_path / "long")
    arrived = {name for name in contents(tmp_path / "long") if STAGING not in name}
    assert arrived < NAMES
    assert "ar/adapter_model.safetensors" in arrived
    hub.cuts, hub.log = [], []
    assert pull(REPO, tmp_path / "long").fetched == len(NAMES) - len(arrived)
    fetched = {path for method, path in hub.log if method == "GET" and "/resolve/" in path}
    assert {path.split("/", 5)[5] for path in fetched} == NAMES - arrived
    assert contents(tmp_path / "long") == contents(tmp_path / "short")


def test_what_does_not_arrive_is_noticed(tmp_path: Path, hub: HubServer) -> None:
    hub.ignored = {"av/adapter_model.safetensors"}
    with pytest.raises(ServiceError, match=r"is not what was sent.*av/adapter_model"):
        push(str(toy_pair(tmp_path / "pair")), REPO, send=True)


class Lying(Blob):
    """A file that is not what its listing says."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(b"something else").hexdigest()


def test_a_damaged_file_is_never_put_in_place(tmp_path: Path, hub: HubServer) -> None:
    repo = hub.put(REPO, contents(toy_pair(tmp_path / "pair")))
    name = "av/adapter_model.safetensors"
    repo.files[name] = Lying(repo.files[name].data, large=True)
    with pytest.raises(DataError, match=f"{name} arrived damaged"):
        pull(REPO, tmp_path / "got")
    assert not (tmp_path / "got" / name).exists()


@pytest.mark.parametrize(("token", "says"), [("", "no token"), ("hf_notthatone", "not know")])
def test_strangers_get_one_line(
    tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str, says: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    for act in (
        lambda: push(str(toy_pair(tmp_path / says)), REPO, send=True),
        lambda: pull(REPO, tmp_path / "got"),
    ):
        with pytest.raises(ServiceError, match="HF_TOKEN") as caught:
            act()
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not token or token not in str(caught.value)
    assert not hub.repos


def test_repositories_that_are_not_there_or_not_ours(tmp_path: Path, hub: HubServer) -> None:
    with pytest.raises(ServiceError, match="there is no model somebody/none"):
        pull("somebody/none", tmp_path / "got")
    with pytest.raises(ServiceError, match="may write"):
        push(str(toy_pair(tmp_path / "pair")), "stranger/toy", send=True)


@pytest.mark.usefixtures("no_waiting")
def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ServiceError, match="the transfer with http://127.0.0.1:9") as caught:
        pull(REPO, tmp_path / "got")
    assert "\n" not in str(caught.value)


def test_revisions(tmp_path: Path, hub: HubServer) -> None:
    pair = toy_pair(tmp_path / "pair")
    push(str(pair), REPO, send=True)
    first = hub.repos["model", REPO].head
    (pair / "av" / "adapter_config.json").write_text('{"r": 8}', encoding="utf-8")
    assert [row.name for row in push(str(pair), REPO, send=True).moving] == [
        "av/adapter_config.json"
    ]
    pull(REPO, tmp_path / "new")
    pull(REPO, tmp_path / "old", revision=first)
    config = Path("av") / "adapter_config.json"
    assert (tmp_path / "new" / config).read_text(encoding="utf-8") == '{"r": 8}'
    assert '"r": 4' in (tmp_path / "old" / config).read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="no revision nowhere"):
        pull(REPO, tmp_path / "x", revision="nowhere")
    with pytest.raises(ConfigError, match="no revisions"):
        pull(str(pair), tmp_path / "x", revision="main")


def test_private_is_private(tmp_path: Path, hub: HubServer) -> None:
    pair = str(toy_pair(tmp_path / "pair"))
    push(pair, REPO, private=True, send=True)
    assert hub.repos["model", REPO].private
    push(pair, "somebody/open", send=True)
    (tmp_path / "pair" / "NOTICE").write_text("terms", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists and is public"):
        push(pair, "somebody/open", private=True, send=True)
    assert "NOTICE" not in hub.repos["model", "somebody/open"].files
    with pytest.raises(ConfigError, match="--private"):
        push(pair, str(tmp_path / "there"), private=True)


@pytest.mark.parametrize("name", ["toy", "a/b/c", "bad name/x", "file:x/y", "-a/b", "a/b..c"])
def test_names_of_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a repository"):
        place(name, "model")


def test_a_path_is_a_folder_and_anything_else_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("./a/b", "../a", "/a/b", "~/a", "C:\\a", ".\\a", "\\\\server\\a"):
        assert isinstance(place(text, "model"), Folder), text
    assert isinstance(place("runs/toy", "model"), Hub)
    (tmp_path / "runs" / "toy").mkdir(parents=True)
    assert isinstance(place("runs/toy", "model"), Folder)


@pytest.mark.parametrize("name", ["linear_head.pt", "pytorch_model.bin", "x.pkl", "deep/x.CKPT"])
def test_pickles_are_not_sent(tmp_path: Path, name: str) -> None:
    pair = toy_pair(tmp_path / "pair")
    (pair / "ar" / name).parent.mkdir(exist_ok=True)
    torch.save({"weight": torch.zeros(2)}, pair / "ar" / name)
    with pytest.raises(DataError, match=f"{Path(name).name} is a pickle"):
        push(str(pair), str(tmp_path / "there"), send=True)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("name", ["notes.txt", "more.safetensors"])
def test_nor_under_another_name(tmp_path: Path, name: str) -> None:
    pair = toy_pair(tmp_path / "pair")
    torch.save({"weight": torch.zeros(2)}, pair / "ar" / name)
    with pytest.raises(DataError, match=f"{name} is"):
        push(str(pair), str(tmp_path / "there"), send=True)


@pytest.mark.parametrize("text", ["contains words\nand lines.\n", "class A:\n.\n", "I\nI.\n", ""])
def test_a_pickle_in_plain_text_is_one_and_text_is_not(tmp_path: Path, text: str) -> None:
    """The first protocols look like text: this one would call a function of os."""
    bomb, note = tmp_path / "bomb.txt", tmp_path / "note.txt"
    bomb.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    note.write_text(text)
    assert is_pickle(bomb) and not is_pickle(note)


def test_a_key_beside_tensors_is_not_sent(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    file = pair / "ar" / "more.safetensors"
    save_file({"x": np.zeros(2)}, file, {"token": "hf_" + "a1B2" * 9})
    with pytest.raises(DataError, match="metadata token of ar/more.safetensors"):
        push(str(pair), str(tmp_path / "there"), send=True)


@pytest.mark.parametrize("blocked", ["got", "got/av"])
def test_a_file_where_a_folder_must_be_is_told(tmp_path: Path, blocked: str) -> None:
    toy_pair(tmp_path / "pair")
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_text("mine")
    with pytest.raises(DataError, match=f"{blocked} is a file, not a folder"):
        pull(str(tmp_path / "pair"), tmp_path / "got")
    assert (tmp_path / blocked).read_text() == "mine"


def test_other_kinds_of_file_stay_here_and_are_named(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    (pair / "ar" / "modelling.py").write_text("import os", encoding="utf-8")
    (pair / "ar" / ".secret.json").write_text("{}", encoding="utf-8")
    plan = push(str(pair), str(tmp_path / "there"))
    assert set(states(plan)) == NAMES
    assert [line.split()[0] for line in plan.left_out] == ["ar/modelling.py"]


def test_pickles_and_code_are_not_fetched(tmp_path: Path, hub: HubServer) -> None:
    files = contents(toy_pair(tmp_path / "pair"))
    hub.put(REPO, {**files, "ar/linear_head.pt": b"bomb", "ar/run.py": b"", ".hidden.json": b"{}"})
    pulled = pull(REPO, tmp_path / "got")
    assert set(contents(tmp_path / "got")) == set(files)
    assert pulled.left_out == ["ar/linear_head.pt (pickle)", "ar/run.py"]
    assert hub.count("GET", "linear_head") == 0


@pytest.mark.parametrize(
    "name", ["../evil.json", "av/../../evil.json", "/tmp/evil.json", "..\\evil.json", "C:evil.json"]
)
def test_names_that_leave_the_folder(tmp_path: Path, hub: HubServer, name: str) -> None:
    hub.put(REPO, {**contents(toy_pair(tmp_path / "pair")), name: b"{}"})
    before = contents(tmp_path)
    with pytest.raises(DataError, match="leaves its folder"):
        pull(REPO, tmp_path / "got")
    assert contents(tmp_path) == before


def test_links_out_of_a_folder(tmp_path: Path, hub: HubServer) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.json").write_text("{}", encoding="utf-8")
    pair = toy_pair(tmp_path / "pair")
    push(str(pair), REPO, send=True)
    for link in ("extra", "extra.json"):
        target = outside if link == "extra" else outside / "private.json"
        (pair / "av" / link).symlink_to(target)
        with pytest.raises(DataError, match="leaves its folder"):
            push(str(pair), str(tmp_path / "there"))
        with pytest.raises(DataError, match="leaves its folder"):
            pull(str(pair), tmp_path / "got")
        (pair / "av" / link).unlink()
    (tmp_path / "got").mkdir(exist_ok=True)
    (tmp_path / "got" / "av").symlink_to(outside)
    with pytest.raises(DataError, match="leaves its folder"):
        pull(REPO, tmp_path / "got")
    assert set(contents(outside)) == {"private.json"}


@pytest.mark.parametrize("name", ["NOTICE", "README.md", "report.html"])
def test_links_beside_the_halves(tmp_path: Path, name: str) -> None:
    pair, there = toy_pair(tmp_path / "pair"), tmp_path / "there"
    (tmp_path / "private").write_text("{}", encoding="utf-8")
    (pair / name).symlink_to(tmp_path / "private")
    with pytest.raises(DataError, match=f"leaves its folder: '{name}'"):
        push(str(pair), str(there), send=True)
    assert not there.exists()
    (pair / name).unlink()
    (pair / "av" / "terms.md").write_text("{}", encoding="utf-8")
    (pair / name).symlink_to(pair / "av" / "terms.md")  # a link that stays inside is fine
    assert name in states(push(str(pair), str(there)))


@pytest.mark.parametrize("name", ["t.jsonl", f"t.jsonl.{FILE}", "README.md"])
def test_links_beside_a_table(tmp_path: Path, name: str) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    for own in ("t.jsonl", f"t.jsonl.{FILE}", "README.md"):
        (rows / own).write_text("{}\n", encoding="utf-8")
    (rows / name).rename(tmp_path / "private")
    (rows / name).symlink_to(tmp_path / "private")
    with pytest.raises(DataError, match="leaves its folder"):
        push(str(rows / "t.jsonl"), str(tmp_path / "there"))


def toy_training(run: Path, stage: str) -> Path:
    """A run folder with one stage that has written a contract, metrics and a checkpoint."""
    step = run / stage / "checkpoints" / "step-000003"
    step.mkdir(parents=True)
    contract("ar").write(run / stage / FILE)
    (run / stage / "metrics.jsonl").write_text("{}\n", encoding="utf-8")
    master = torch.ones(2)
    saved = {"names": ["w"], "optimizer": {"masters": [master]}, "step": 3}
    torch.save(saved, step / "state.pt")
    (run / "config.yaml").write_text("{}\n", encoding="utf-8")
    return run


@pytest.mark.parametrize(
    "name",
    [
        "config.yaml",
        "06_ar/metrics.jsonl",
        f"06_ar/{FILE}",
        "06_ar/checkpoints/step-000003/state.pt",
    ],
)
def test_links_in_a_trajectory(tmp_path: Path, name: str) -> None:
    run, there = toy_training(tmp_path / "run", "06_ar"), tmp_path / "there"
    assert "ar/step-000003/weights.safetensors" in states(
        push(str(run), str(there), what="trajectory")
    )
    (run / name).rename(tmp_path / "private")
    (run / name).symlink_to(tmp_path / "private")
    with pytest.raises(DataError, match="leaves its folder"):
        push(str(run), str(there), what="trajectory")


def test_a_pair_that_went_through_rl_goes_out_alone_and_says_so(tmp_path: Path) -> None:
    stage = tmp_path / "run" / "08_pair"
    for folder in (stage, stage / "before_rl", stage / "rl" / "best" / "content"):
        toy_pair(folder)
    (stage / "rl" / "metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    for role in ("av", "ar"):
        made = read_contract(stage / role / FILE)
        made.nlakit.parent = "before RL:abc123"
        made.nlakit.scores = {"rl": {
            "steps": 60, "keep": "content", "step": 45, "stopped": "private code",
            "settings": {"learn_on": 4},
        }}  # fmt: skip
        made.write(stage / role / FILE)
    for source in (stage.parent, stage):
        there = tmp_path / f"there-{source.name}"
        push(str(source), str(there), send=True)
        assert set(contents(there)) == NAMES
        card = (there / "README.md").read_text(encoding="utf-8")
        told = ("60 steps; the pair of step 45", "private code", '`{"learn_on": 4}`', "abc123")
        assert [said for said in told if said not in card] == []


def test_a_trajectory_has_the_steps_of_rl_and_not_its_pairs(tmp_path: Path) -> None:
    run, there = toy_training(tmp_path / "run", "08_pair"), tmp_path / "there"
    toy_pair(run / "08_pair" / "rl" / "best" / "content")
    (run / "08_pair/rl/metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    (run / "08_pair/rl/training.json").write_text('{"steps": 7}', encoding="utf-8")
    push(str(run), str(there), what="trajectory", send=True)
    assert {"pair/rl/metrics.jsonl", "pair/rl/training.json"} < set(contents(there))
    assert not [name for name in contents(there) if "best" in name]
    assert "| pair/rl | 7 |" in (there / "README.md").read_text(encoding="utf-8")


def test_a_trajectory_needs_a_contract(tmp_path: Path) -> None:
    run = toy_training(tmp_path / "run", "06_ar")
    (run / "06_ar" / FILE).unlink()
    for source in (run, run / "06_ar"):
        with pytest.raises(ConfigError, match="has no contract yet"):
            push(str(source), str(tmp_path / "there"), what="trajectory")


SECRET = "sk-abcdefghij0123456789abcdefghij"


@pytest.mark.parametrize(
    "text", [SECRET, "hf_" + "a1" * 17, "-----BEGIN RSA PRIVATE KEY-----", "correct horse battery"]
)
def test_keys_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("OTHER_SERVICE_API_KEY", "correct horse battery")
    pair = toy_pair(tmp_path / "pair")
    (pair / "README.md").write_text(f"# mine\nuse {text} to\n", encoding="utf-8")
    with pytest.raises(DataError, match="line 2 of README.md") as caught:
        push(str(pair), str(tmp_path / "there"), send=True)
    assert text not in str(caught.value)
    assert not (tmp_path / "there").exists()


def test_keys_in_tables_are_found(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "README.md").write_text("# rows\n", encoding="utf-8")
    table = pa.table({"n": [1, 2], "text": ["nothing", f"key: {SECRET}"]})
    write_table(tmp_path / "rows" / "t.parquet", table)
    with pytest.raises(DataError, match="column text of t.parquet"):
        push(str(tmp_path / "rows"), str(tmp_path / "there"))


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        pa.map_(pa.string(), pa.list_(pa.large_string())),
    ],
    ids=str,
)
def test_keys_in_any_kind_of_text_column(tmp_path: Path, kind: pa.DataType) -> None:
    (tmp_path / "README.md").write_text("# rows\n", encoding="utf-8")
    value: Any = f"key:\n{SECRET}"
    if pa.types.is_map(kind):
        value = [("a", [value])]
    elif pa.types.is_list(kind):
        value = [{"role": "user", "content": value}]
    table = pa.table({"n": [1, 2], "prompt": pa.array([None, value], kind)})
    write_table(tmp_path / "t.parquet", table)
    with pytest.raises(DataError, match="column prompt of t.parquet"):
        push(str(tmp_path), str(tmp_path / "there"))


def test_words_that_look_like_keys_are_sent(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    text = "a risk-averse-and-otherwise-careful task, sk-learn-like-interfaces-of-old, hf_hub\n"
    (pair / "README.md").write_text(text, encoding="utf-8")
    assert push(str(pair), str(tmp_path / "there")).moving


def test_a_local_subject_needs_a_name_for_others(tmp_path: Path) -> None:
    local = str(tmp_path / "models" / "mine")
    pair = toy_pair(tmp_path / "pair", base_model=local)
    with pytest.raises(ContractError, match="--base-model OWNER/NAME"):
        push(str(pair), str(tmp_path / "there"), send=True)
    with pytest.raises(ConfigError, match="folder of this machine"):
        push(str(pair), str(tmp_path / "there"), base_model=local)
    plan = push(str(pair), str(tmp_path / "there"), base_model="owner/mine", send=True)
    assert plan.rewritten == [f"{local} -> owner/mine"]
    for role in ("av", "ar"):
        assert read_contract(tmp_path / "there" / role).extraction.base_model == "owner/mine"
    assert not any(str(tmp_path).encode() in data for data in contents(tmp_path / "there").values())


def test_a_relative_folder_is_no_name_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner" / "subject").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ContractError, match="--base-model"):
        push(str(toy_pair(tmp_path / "pair")), str(tmp_path / "there"))


def test_one_half(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    push(str(pair), str(tmp_path / "half"), what="ar", send=True)
    assert set(contents(tmp_path / "half")) == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", FILE,
    }  # fmt: skip
    pulled = pull(str(tmp_path / "half"), tmp_path / "got")
    assert pulled.use.startswith("nlakit reconstruct")
    assert push(str(tmp_path / "got"), str(tmp_path / "other")).what == "ar"
    with pytest.raises(ContractError, match="holds no AV"):
        push(str(tmp_path / "got"), str(tmp_path / "other"), what="pair")


def test_own_files_are_never_replaced(tmp_path: Path, hub: HubServer) -> None:
    push(str(toy_pair(tmp_path / "pair")), REPO, send=True)
    (tmp_path / "got").mkdir()
    (tmp_path / "got" / "README.md").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"other files of the same names.*README.md"):
        pull(REPO, tmp_path / "got")
    assert contents(tmp_path / "got") == {"README.md": b"mine"}


def test_what_is_not_nlakits_is_not_fetched(tmp_path: Path, hub: HubServer) -> None:
    hub.put(REPO, {"model.safetensors": b"x", "README.md": b"x"})
    with pytest.raises(ContractError, match="nothing of nlakit's"):
        pull(REPO, tmp_path / "got")
    assert hub.count("GET", "/resolve/") == 0


@pytest.mark.parametrize(("source", "says"), [("nowhere", "there is no"), ("empty", "nothing to")])
def test_sources_of_nothing(tmp_path: Path, source: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=says):
        push(str(tmp_path / source), str(tmp_path / "there"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, toy_folder: Callable[[str], Path]) -> Path:
    """A finished toy run, whose subject and corpus are local paths."""
    folder = tmp_path_factory.mktemp("runs")
    settings = toy_settings(toy_folder("gemma3"), toy_corpus(folder / "corpus.jsonl"))
    pipeline.run(parse_config(settings), folder / "toy")
    return folder / "toy"


def test_a_run_goes_out_and_comes_back_usable(
    tmp_path: Path, run: Path, hub: HubServer, toy_folder: Callable[[str], Path]
) -> None:
    plan = push(str(run), REPO, base_model="owner/toy", send=True)
    sent = {name: blob.data for name, blob in hub.repos["model", REPO].files.items()}
    assert {"results.json", "report.html", "config.yaml", "av/nla_meta.yaml"} <= set(sent)
    assert not any(name.endswith((".pt", "manifest.json", "begin.json")) for name in sent)
    assert not any(str(run.parent).encode() in data for data in sent.values())
    assert f"{run.parent / 'corpus.jsonl'} -> corpus.jsonl" in plan.rewritten
    assert b"corpus.jsonl" in sent["report.html"]
    pull(REPO, tmp_path / "got")
    assert read_contract(tmp_path / "got" / "av").extraction.base_model == "owner/toy"
    text, subject = "The whale rises near mark 7.", str(toy_folder("gemma3"))
    there = NLA.load(tmp_path / "got", device="cpu", base_model=subject)
    here = NLA.load(run, device="cpu")
    assert there.explain(text).as_dicts() == here.explain(text).as_dicts()
    again = push(str(tmp_path / "got"), REPO, send=True)
    assert not again.moving


def test_an_evaluation_of_another_pair_is_not_shared(tmp_path: Path, run: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    manifest = copy / "08_pair" / "manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"config_hash": "', '"config_hash": "0'), encoding="utf-8")
    with pytest.raises(RunError, match="of another pair"):
        push(str(copy), str(tmp_path / "there"), base_model="owner/toy")
    (copy / "09_eval" / "manifest.json").unlink()
    names = states(push(str(copy), str(tmp_path / "there"), base_model="owner/toy"))
    assert not {"results.json", "report.html"} & set(names)


def test_a_report_that_names_the_home_folder_stays_here(tmp_path: Path) -> None:
    pair = toy_pair(tmp_path / "pair")
    (pair / "report.html").write_text(f"<p>{Path.home() / 'x'}</p>", encoding="utf-8")
    plan = push(str(pair), str(tmp_path / "there"))
    assert "report.html" not in states(plan)
    assert plan.left_out == [f"report.html (it names {Path.home()})"]


def test_a_trajectory_has_weights_and_no_pickle(tmp_path: Path, run: Path) -> None:
    there = tmp_path / "there"
    plan = push(str(run), str(there), what="trajectory", base_model="owner/toy", send=True)
    weights = sorted(name for name in states(plan) if name.endswith(".safetensors"))
    assert weights == [
        "ar/step-000003/weights.safetensors", "ar/step-000006/weights.safetensors",
        "av/step-000003/weights.safetensors", "av/step-000006/weights.safetensors",
        "pair/step-000003/weights.safetensors",
    ]  # fmt: skip
    saved = torch.load(
        run / "06_ar" / "checkpoints" / "step-000006" / "state.pt", weights_only=True
    )
    found = load_file(there / weights[1])
    assert set(found) == set(saved["names"])
    for name, master in zip(saved["names"], saved["optimizer"]["masters"], strict=True):
        assert np.array_equal(found[name], master.numpy())
    assert (there / "av" / "metrics.jsonl").read_bytes() == (
        run / "07_av" / "metrics.jsonl"
    ).read_bytes()
    assert not any(name.endswith(".pt") for name in contents(there))
    assert not any(str(run.parent).encode() in data for data in contents(there).values())
    again = push(str(run), str(there), what="trajectory", base_model="owner/toy", send=True)
    assert not again.moving
    assert "metrics.jsonl" in pull(str(there), tmp_path / "got").use
    stage = push(str(run / "07_av"), str(tmp_path / "one"), what="trajectory", base_model="o/toy")
    assert "step-000003/weights.safetensors" in states(stage)


def test_a_checkpoint_that_is_none(tmp_path: Path, run: Path) -> None:
    stage = tmp_path / "07_av"
    shutil.copytree(run / "07_av", stage)
    torch.save(print, stage / "checkpoints" / "step-000003" / "state.pt")
    with pytest.raises(DataError, match="no checkpoint of nlakit"):
        push(str(stage), str(tmp_path / "x"), what="trajectory", base_model="owner/toy")


def test_tables_are_a_dataset(tmp_path: Path, run: Path, hub: HubServer) -> None:
    push(str(run), REPO, what="tables", base_model="owner/toy", send=True)
    sent = hub.repos["dataset", REPO].files
    assert {f"{part}.parquet" for part in ("av", "ar", "rl", "test")} < set(sent)
    with pytest.raises(ServiceError, match="--repo-type"):
        pull(REPO, tmp_path / "got")
    pulled = pull(REPO, tmp_path / "got", repo_type="dataset")
    assert "sidecar" in pulled.use
    for part in ("av", "test"):
        table = (run / "05_tables" / f"{part}.parquet").read_bytes()
        assert (tmp_path / "got" / f"{part}.parquet").read_bytes() == table
    assert not push(str(tmp_path / "got"), REPO).moving


def test_exported_labels_keep_their_own_card(tmp_path: Path, run: Path) -> None:
    (tmp_path / "labels").mkdir()
    export_labels(RunDir(run), tmp_path / "labels" / "labels.jsonl")
    for source in ("labels", "labels/labels.jsonl"):
        push(str(tmp_path / source), str(tmp_path / "there"), send=True)
        assert contents(tmp_path / "there") == contents(tmp_path / "labels")
        shutil.rmtree(tmp_path / "there")
    use = pull(str(tmp_path / "labels"), tmp_path / "got").use
    assert "labeler: file" in use


def test_rows_of_unknown_origin_are_not_sent(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    write_table(tmp_path / "rows" / "t.parquet", {"n": [1]})
    with pytest.raises(ContractError, match="neither a sidecar nor a card"):
        push(str(tmp_path / "rows"), str(tmp_path / "there"))


def invoke(*words: object) -> Any:
    app = typer.Typer()
    cli_hub.register(app)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_line(tmp_path: Path, hub: HubServer) -> None:
    pair = toy_pair(tmp_path / "pair")
    dry = invoke("push", pair, REPO)
    assert dry.exit_code == 0
    assert "7 of 7 files to send" in dry.stdout
    assert "repeat the command with --send" in dry.stdout
    assert TOKEN not in dry.stdout
    assert "7 of 7 files sent" in invoke("push", pair, REPO, "--send").stdout
    assert "0 of 7 files to send" in invoke("push", pair, REPO).stdout
    pulled = invoke("pull", REPO, tmp_path / "got")
    assert "nlakit explain" in pulled.stdout
    for words in (
        ("push", pair, REPO, "--what", "half"),
        ("push", pair, REPO, "--repo-type", "space"),
        ("pull", REPO, tmp_path / "x", "--repo-type", "space"),
    ):
        wrong = invoke(*words)
        assert isinstance(wrong.exception, NlakitError)
        assert "one of" in str(wrong.exception)
