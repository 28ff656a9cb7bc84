"""The run folder's contract, on small fake stages: complete, unchanged, or refused."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from nlakit.config.load import parse_config
from nlakit.config.sections import RunConfig
from nlakit.errors import ConfigError, RunError
from nlakit.run.folder import Rows, RunDir, atomic_path, atomic_write, device_used
from nlakit.run.stage import stage, stage_state

calls: list[str] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    calls.clear()


@stage("corpus", sections=["corpus"])
def corpus(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    calls.append("corpus")
    atomic_write(folder / "text.txt", f"{config.corpus.min_characters} characters")
    return Rows(entered=3, kept=2, dropped={"short": 1})


@stage("split", parents=["corpus"], sections=["split", "seed"])
def split(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    calls.append("split")
    atomic_write(folder / "parts.txt", str(config.seed))
    return Rows(entered=2, kept=2)


@stage("labels", sections=["labels"])
def labels(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
    """Four chunks; a chunk that exists is not made again. Killed after two if the test says so."""
    for number in range(4):
        path = folder / "chunks" / f"{number}.txt"
        if path.exists():
            continue
        if number == 2 and (rundir.path / "kill").exists():
            raise KeyboardInterrupt
        calls.append(f"chunk {number}")
        atomic_write(path, f"{number} of {config.labels.min_words} words")
    return Rows(entered=4, kept=4)


def settings(**sections: Any) -> RunConfig:
    return parse_config({"name": "t", **sections})


def new(tmp_path: Path, **sections: Any) -> tuple[RunConfig, RunDir]:
    config = settings(**sections)
    return config, RunDir.create(tmp_path / "run", config)


def half_done(tmp_path: Path) -> tuple[RunConfig, RunDir]:
    """A run whose labels stage died after two of its four chunks."""
    config, rundir = new(tmp_path)
    (rundir.path / "kill").touch()
    with pytest.raises(KeyboardInterrupt):
        labels(config, rundir)
    (rundir.path / "kill").unlink()
    assert stage_state(labels, config, rundir) == ("partial", [])
    return config, rundir


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def write_half(target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError


def test_atomic_path_leaves_nothing_when_the_body_raises(tmp_path: Path):
    target = tmp_path / "new" / "a.txt"
    with pytest.raises(ZeroDivisionError):
        write_half(target)
    assert list(target.parent.iterdir()) == []


def test_atomic_path_keeps_the_old_file_when_the_body_raises(tmp_path: Path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(target)
    assert contents(tmp_path) == {"a.txt": b"old"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_pipe_or_a_device_is_never_replaced(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, Path(os.devnull), tmp_path):
        with pytest.raises(ConfigError, match="is no file"):
            atomic_write(target, "x")
    assert pipe.is_fifo() and not Path(os.devnull).is_file()


def test_atomic_write_replaces_and_writes_the_same_bytes_everywhere(tmp_path: Path):
    target = tmp_path / "a.txt"
    atomic_write(target, "old")
    atomic_write(target, "ū\n")
    assert contents(tmp_path) == {"a.txt": b"\xc5\xab\n"}


def test_a_finished_stage_has_a_manifest_and_is_skipped(tmp_path: Path):
    config, rundir = new(tmp_path)
    assert stage_state(corpus, config, rundir) == ("missing", [])
    first = corpus(config, rundir)
    assert (first.rows.entered, first.rows.kept, first.rows.dropped) == (3, 2, {"short": 1})
    assert first.files["text.txt"].bytes == len("400 characters")
    assert corpus(config, rundir) == first
    assert calls == ["corpus"]
    assert stage_state(corpus, config, rundir) == ("done", [])


def test_a_manifest_records_the_stages_own_peak_memory(tmp_path: Path):
    @stage("eval")
    def large(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
        held = bytearray(200 << 20)
        held[::4096] = b"x" * len(held[::4096])  # a page counts once it is touched
        time.sleep(0.1)
        return Rows(kept=len(held) >> 20)

    config, rundir = new(tmp_path)
    before = psutil.Process().memory_info().rss
    peak = large(config, rundir).peak_bytes["resident"]
    assert peak >= before + (150 << 20)
    small = corpus(config, rundir).peak_bytes["resident"]
    assert small < peak - (100 << 20)


def test_settings_of_other_stages_do_not_matter(tmp_path: Path):
    config, rundir = new(tmp_path)
    corpus(config, rundir)
    corpus(settings(seed=5, ar={"batch_rows": 2}), rundir)
    assert calls == ["corpus"]


def test_a_changed_setting_is_refused_and_named(tmp_path: Path):
    config, rundir = new(tmp_path)
    corpus(config, rundir)
    other = settings(corpus={"min_characters": 7})
    with pytest.raises(RunError, match=r"corpus\.min_characters: 400 -> 7") as caught:
        corpus(other, rundir)
    assert "--redo corpus" in str(caught.value)
    assert stage_state(corpus, other, rundir) == ("stale", ["corpus.min_characters: 400 -> 7"])
    assert calls == ["corpus"]


def test_a_changed_parent_is_refused_and_named(tmp_path: Path):
    config, rundir = new(tmp_path)
    corpus(config, rundir)
    split(config, rundir)
    other = settings(corpus={"min_characters": 7})
    rundir.set_aside("corpus")
    corpus(other, rundir)
    with pytest.raises(RunError, match="result of stage corpus"):
        split(other, rundir)
    assert stage_state(split, other, rundir) == ("stale", ["result of stage corpus"])


def test_a_parent_redone_with_the_same_result_leaves_its_child_fresh(tmp_path: Path):
    config, rundir = new(tmp_path)
    corpus(config, rundir)
    split(config, rundir)
    rundir.set_aside("corpus")
    corpus(config, rundir)
    split(config, rundir)
    assert calls == ["corpus", "split", "corpus"]


def test_a_stage_without_its_parent_says_what_to_run(tmp_path: Path):
    config, rundir = new(tmp_path)
    with pytest.raises(RunError, match="stage corpus is not finished"):
        split(config, rundir)
    assert calls == []


def test_set_aside_keeps_every_old_folder(tmp_path: Path):
    config, rundir = new(tmp_path)
    assert rundir.set_aside("corpus") is None
    kept = []
    for size in (1, 2):
        corpus(settings(corpus={"min_characters": size}), rundir)
        before = contents(rundir.folder("corpus"))
        aside = rundir.set_aside("corpus")
        assert aside is not None
        kept.append((aside, before))
    corpus(config, rundir)
    assert kept[0][0] != kept[1][0]
    assert all(contents(folder) == before for folder, before in kept)
    assert [before["text.txt"] for _, before in kept] == [b"1 characters", b"2 characters"]


@pytest.mark.parametrize("damage", ["truncated", "grown", "missing", "zeroed"])
def test_damaged_files_are_named_and_mended(tmp_path: Path, damage: str):
    config, rundir = new(tmp_path)
    corpus(config, rundir)
    file = rundir.folder("corpus") / "text.txt"
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        broken = {"truncated": whole[:-1], "grown": b"x" * 100, "zeroed": bytes(len(whole))}
        file.write_bytes(broken[damage])
    for use in (lambda: split(config, rundir), lambda: rundir.need("corpus")):
        with pytest.raises(RunError, match=r"damaged: text\.txt"):
            use()
    seen = stage_state(corpus, config, rundir)[0]
    assert seen == ("done" if damage == "zeroed" else "damaged")
    assert stage_state(corpus, config, rundir, verify=True)[0] == "damaged"
    corpus(config, rundir)
    assert file.read_bytes() == whole
    assert stage_state(corpus, config, rundir, verify=True) == ("done", [])
    assert calls == ["corpus", "corpus"]


@pytest.mark.parametrize("text", ["", "{", "\0\0\0"])
def test_an_unreadable_record_of_the_beginning_is_one_line(tmp_path: Path, text: str):
    config, rundir = half_done(tmp_path)
    (rundir.folder("labels") / "begin.json").write_text(text)
    with pytest.raises(RunError, match="nothing says under which settings stage labels was begun"):
        labels(config, rundir)
    assert stage_state(labels, config, rundir)[0] == "stale"


def test_a_truncated_manifest_is_refused(tmp_path: Path):
    config, rundir = new(tmp_path)
    corpus(config, rundir)
    manifest = rundir.folder("corpus") / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    with pytest.raises(RunError, match="cannot be read"):
        corpus(config, rundir)


def test_checkpoints_and_temporary_files_are_no_result(tmp_path: Path):
    @stage("ar")
    def train(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
        atomic_write(folder / "weights.txt", "w")
        atomic_write(folder / "checkpoints" / "step-1" / "state.txt", "s")
        (folder / ".left.tmp-1").touch()
        return Rows()

    config, rundir = new(tmp_path)
    assert set(train(config, rundir).files) == {"begin.json", "weights.txt"}


def test_a_half_done_stage_resumes_to_the_result_of_an_uninterrupted_one(tmp_path: Path):
    config, rundir = half_done(tmp_path)
    resumed = labels(config, rundir)
    assert calls == [f"chunk {number}" for number in range(4)]
    whole = labels(config, RunDir.create(tmp_path / "whole", config))
    assert resumed.files == whole.files
    assert resumed.identity() == whole.identity()


def test_chunks_of_other_settings_are_never_mixed_in(tmp_path: Path):
    _, rundir = half_done(tmp_path)
    before = contents(rundir.folder("labels"))
    other = settings(labels={"min_words": 9})
    with pytest.raises(RunError, match=r"labels\.min_words: 6 -> 9"):
        labels(other, rundir)
    assert contents(rundir.folder("labels")) == before
    assert stage_state(labels, other, rundir) == ("stale", ["labels.min_words: 6 -> 9"])

    rundir.set_aside("labels")
    labels(other, rundir)
    chunks = contents(rundir.folder("labels") / "chunks").values()
    assert all(chunk.endswith(b"of 9 words") for chunk in chunks)


def full_disk(target: Path) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(target))


def device_full(target: Path) -> None:
    with Path("/dev/full").open("w") as handle:
        handle.write("x")


has_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


@pytest.mark.parametrize("fill", [full_disk, pytest.param(device_full, marks=has_dev_full)])
def test_a_full_disk_says_so_and_keeps_the_finished_chunks(tmp_path: Path, fill):
    @stage("eval")
    def write(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
        atomic_write(folder / "first.txt", "done")
        fill(folder / "second.txt")
        return Rows()

    config, rundir = new(tmp_path)
    with pytest.raises(RunError, match="disk is full") as caught:
        write(config, rundir)
    assert "free some space" in str(caught.value)
    assert (rundir.folder("eval") / "first.txt").read_text() == "done"
    assert stage_state(write, config, rundir) == ("partial", [])


def test_other_system_errors_are_not_called_a_full_disk(tmp_path: Path):
    @stage("eval")
    def write(config: RunConfig, rundir: RunDir, folder: Path) -> Rows:
        raise PermissionError(errno.EACCES, "Permission denied")

    config, rundir = new(tmp_path)
    with pytest.raises(PermissionError):
        write(config, rundir)


def test_a_folder_of_another_format_is_refused(tmp_path: Path):
    config, rundir = new(tmp_path)
    for text in ('{"format": 999}', "not json", "[]"):
        (rundir.path / "run.json").write_text(text)
        with pytest.raises(RunError, match="another format"):
            RunDir.create(rundir.path, config)
        with pytest.raises(RunError, match="another format"):
            rundir.check_format()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="not a run folder"):
        RunDir.create(tmp_path, settings())
    assert contents(tmp_path) == {"thesis.txt": b"mine"}


def test_the_resolved_settings_lie_in_the_folder(tmp_path: Path):
    _, rundir = new(tmp_path, seed=3)
    assert json.loads((rundir.path / "run.json").read_text()) == {"format": 1}
    assert "seed: 3" in (rundir.path / "config.yaml").read_text()
    assert RunDir.create(rundir.path, settings(seed=3)).path == rundir.path


@contextmanager
def held_elsewhere(path: Path) -> Iterator[int]:
    """Another process holds the run while the body runs."""
    code = (
        "import sys\nfrom nlakit.run.folder import RunDir\n"
        "with RunDir(sys.argv[1]).lock():\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.stdin.close()


def test_a_run_held_by_another_process_is_refused(tmp_path: Path):
    rundir = RunDir(tmp_path)
    with held_elsewhere(tmp_path) as pid:
        assert rundir.holder() == pid
        with pytest.raises(RunError, match=f"process {pid}"), rundir.lock():
            pass
        assert rundir.holder() == pid  # the refused one takes nothing away
    assert rundir.holder() is None
    with rundir.lock():
        assert rundir.holder() is not None


def test_a_reused_process_id_does_not_hold_the_run(tmp_path: Path):
    rundir = RunDir(tmp_path)
    with held_elsewhere(tmp_path):
        path = tmp_path / ".holder.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "started": record["started"] - 60}))
        assert rundir.holder() is None


@pytest.mark.parametrize("text", ["", "{}", "not json"])
def test_a_broken_holder_file_holds_nothing(tmp_path: Path, text: str):
    (tmp_path / ".holder.json").write_text(text)
    assert RunDir(tmp_path).holder() is None


def test_a_device_that_is_not_there_is_named_as_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage that needs no device is not ended by one that is missing."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_used("cuda:1") == "cuda:1"
    assert device_used("auto").startswith("cpu")
