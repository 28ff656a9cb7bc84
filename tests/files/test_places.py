"""Places that are tried before the work."""

from __future__ import annotations

import os
import shlex
import tempfile
from pathlib import Path
from typing import Any

import pytest

from nlakit.errors import ConfigError
from nlakit.files.places import check_file, check_folder, quoted


def test_good_places_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "old.jsonl"
    old.write_text("x", encoding="utf-8")
    check_file(old, [".jsonl"])
    check_file(tmp_path / "new" / "folder" / "a.JSONL", [".csv", ".jsonl"])
    check_folder(tmp_path)
    check_folder(tmp_path / "runs" / "gemma-3.5")
    monkeypatch.chdir(tmp_path)
    check_file(Path("b.jsonl"), [".jsonl"])
    check_folder(Path("c"))
    assert [path.name for path in tmp_path.rglob("*")] == ["old.jsonl"]
    assert old.read_text(encoding="utf-8") == "x"


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x", encoding="utf-8")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file.txt", "dangling"):
        with pytest.raises(ConfigError, match=rf"nothing can be written at .*{name} is no folder"):
            check_file(tmp_path / name / "deep" / "x.jsonl", [".jsonl"])
        with pytest.raises(ConfigError, match=rf"{name} is no folder; do: give another place"):
            check_folder(tmp_path / name / "run")
    (tmp_path / "plain").write_text("x", encoding="utf-8")
    with pytest.raises(ConfigError, match="plain is no folder"):
        check_folder(tmp_path / "plain")
    (tmp_path / "a.jsonl").mkdir()
    with pytest.raises(ConfigError, match=r"a\.jsonl is a folder"):
        check_file(tmp_path / "a.jsonl", [".jsonl"])


def test_a_place_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(dir: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    for check in (check_folder, lambda path: check_file(path / "a.json", [".json"])):
        with pytest.raises(ConfigError, match="nothing can be written at .*Permission denied"):
            check(tmp_path)


def test_endings_that_say_another_format(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found: \.csv; do: end it in \.jsonl or \.parquet"):
        check_file(tmp_path / "out.csv", [".jsonl", ".parquet"])
    with pytest.raises(ConfigError, match=r"found: no ending; do: end it in \.json"):
        check_file(tmp_path / "out", [".json"])
    with pytest.raises(ConfigError, match="out.json is to be a folder"):
        check_folder(tmp_path / "out.json")


@pytest.mark.skipif(os.name == "nt", reason="quotes of a POSIX shell")
def test_a_path_in_a_command_line_is_one_word() -> None:
    assert quoted(Path("runs/demo")) == "runs/demo"
    assert shlex.split(quoted("my runs/it's")) == ["my runs/it's"]
