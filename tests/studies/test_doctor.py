"""The doctor: computed findings, no secret in any of them, and planted clashes found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nlakit.config.sections import SubjectConfig
from nlakit.models.precision import settled
from nlakit.studies import doctor
from nlakit.studies.doctor import API_KEYS, Finding, examine, openmp_finding, shadowed


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MEASURE_SECONDS", 0.001)


def named(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_everything_is_looked_at():
    findings = examine()
    names = {finding.name for finding in findings}
    expected = "python cpu memory OpenMP bitsandbytes nlakit".split()
    expected += ["API keys", "cache folder", "current folder", "embedded model", "float32 on cpu"]
    assert set(expected) <= names
    assert all(finding.detail for finding in findings)
    assert all(finding.advice for finding in findings if finding.status == "problem")


def test_keys_are_named_and_their_values_never_shown(monkeypatch: pytest.MonkeyPatch):
    for number, name in enumerate(API_KEYS):
        monkeypatch.setenv(name, f"planted-secret-{number}")
    findings = examine()
    assert "planted-secret" not in repr(findings)
    assert all(name in named(findings, "API keys").detail for name in API_KEYS)


def test_an_unset_or_empty_key_is_not_named(monkeypatch: pytest.MonkeyPatch):
    for name in API_KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_TOKEN", "")
    assert "HF_TOKEN" not in next(iter(doctor._keys())).detail


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch):
    def _broken_part():
        raise OSError("no such library")

    monkeypatch.setattr(doctor, "CHECKS", (_broken_part, doctor._memory))
    findings = examine()
    assert findings[0].name == "broken part"
    assert findings[0].status == "problem"
    assert "no such library" in findings[0].detail
    assert findings[1].name == "memory"


@pytest.mark.parametrize(
    ("paths", "status"),
    [
        ([], "ok"),
        (["/usr/lib/libc.so.6", "/v/libompl.txt/libz.so"], "ok"),
        (["/v/torch/lib/libgomp.so.1", "/v/torch/lib/libgomp.so.1"], "ok"),
        (["/v/torch/lib/libgomp.so.1", "/v/sklearn.libs/libgomp-a1b2.so.1"], "note"),
        (["/v/torch/lib/libgomp.so.1", "/conda/lib/libiomp5.so"], "problem"),
        (["/v/torch/lib/libomp.dylib", "/conda/lib/libiomp5.dylib"], "problem"),
        ([r"C:\torch\lib\libiomp5md.dll", r"C:\Windows\System32\VCOMP140.DLL"], "problem"),
    ],
)
def test_two_openmp_runtimes_are_found(paths: list[str], status: str):
    finding = openmp_finding(paths)
    assert finding.status == status
    if status != "ok":
        assert all(path in finding.detail for path in paths)


@pytest.mark.parametrize(("system", "advised"), [("nt", True), ("posix", False)])
def test_the_windows_way_out_is_advised_on_windows_only(monkeypatch, system: str, advised: bool):
    monkeypatch.setattr("nlakit.studies.doctor.os.name", system)
    advice = openmp_finding(["libgomp.so.1", "libiomp5.so"]).advice
    monkeypatch.undo()
    assert ("KMP_DUPLICATE_LIB_OK" in advice) == advised


def test_libraries_are_compared_with_what_is_declared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "1.26.4")
    old = doctor._library(Requirement("numpy>=2.0"))
    assert (old.status, old.advice) == ("problem", "pip install 'numpy>=2.0'")
    assert doctor._library(Requirement("numpy>=1.20,<2")).status == "ok"


def test_a_missing_library_is_a_problem():
    finding = doctor._library(Requirement("no-such-library-anywhere>=1"))
    assert finding.status == "problem"
    assert "not installed" in finding.detail


def torchvision_finding(monkeypatch: pytest.MonkeyPatch, vision: str, torch: str) -> Finding:
    versions = {"torchvision": vision, "torch": torch}
    monkeypatch.setattr(doctor.metadata, "version", versions.__getitem__)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["numpy", "torch==2.13.0"])
    return next(iter(doctor._torchvision()))


@pytest.mark.parametrize(
    ("vision", "torch", "status"),
    [
        ("0.28.0+cpu", "2.13.0+cpu", "ok"),
        ("0.28.0", "2.13.0", "ok"),
        ("0.28.0", "2.12.1", "problem"),  # made for another version
        ("0.28.0+cu130", "2.13.0+cpu", "problem"),  # of another build
    ],
)
def test_a_mismatched_torchvision_is_found(monkeypatch, vision: str, torch: str, status: str):
    assert torchvision_finding(monkeypatch, vision, torch).status == status


@pytest.mark.parametrize(("value", "found"), [("1", 1), ("true", 1), ("0", 0), ("", 0)])
def test_offline_switches_are_told(monkeypatch: pytest.MonkeyPatch, value: str, found: int):
    for name in doctor.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert len(list(doctor._offline())) == found


def test_files_that_hide_modules_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "random.py").touch()
    (tmp_path / "mine.py").touch()
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "numpy").mkdir()  # without __init__.py it hides nothing
    found = [tmp_path / "random.py", tmp_path / "torch"]
    assert shadowed([tmp_path, tmp_path / "none"], {"random", "torch", "numpy"}) == found

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(tmp_path / "none")]))
    finding = next(iter(doctor._python_path()))
    assert finding.status == "problem"
    assert "random.py" in finding.detail


def test_a_full_disk_and_a_small_memory_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "ENOUGH_DISK", 2**80)
    monkeypatch.setattr(doctor, "ENOUGH_MEMORY", 2**80)
    assert {finding.status for finding in doctor._disk()} == {"problem"}
    assert next(iter(doctor._memory())).status == "note"


def test_the_embedded_model_is_found_where_the_cache_is(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NLAKIT_CACHE", str(tmp_path))
    assert next(iter(doctor._embedded_model())).status != "ok"
    (tmp_path / "gemma-3-270m").mkdir()
    (tmp_path / "gemma-3-270m" / "conversion.json").write_text("{}")
    assert next(iter(doctor._embedded_model())).status == "ok"


def test_a_format_that_cannot_multiply_is_a_note(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(doctor, "_multiplies", lambda device, dtype: dtype != torch.bfloat16)
    findings = list(doctor._formats(torch.device("cpu")))
    assert named(findings, "bfloat16 on cpu").status == "note"
    assert named(findings, "float16 on cpu").status == "ok"


def test_it_says_the_number_format_that_a_run_would_take():
    import torch

    chosen = named(list(doctor._formats(torch.device("cpu"))), "subject.dtype=auto on cpu")
    assert chosen.detail == settled(SubjectConfig(device="cpu")).dtype


@pytest.mark.gpu
def test_the_gpu_is_described():
    finding = named(examine(), "cuda:0")
    assert "compute capability" in finding.detail
    assert named(examine(), "bfloat16 on cuda:0").status in ("ok", "note")
