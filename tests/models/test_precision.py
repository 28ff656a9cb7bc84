"""`auto` takes bfloat16 where the device has units for it, and never asks a clock."""

from __future__ import annotations

import time

import pytest
import torch

from nlakit.config.sections import SubjectConfig
from nlakit.models import precision


@pytest.fixture(autouse=True)
def _forget():
    precision._best.cache_clear()
    yield
    precision._best.cache_clear()


def cpu_with(monkeypatch: pytest.MonkeyPatch, **features: object) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "float32"),
        ({"l1d_cache_size": 32768, "cpu_name": "bf16"}, "float32"),  # a name is no unit
    ],
)
def test_auto_is_what_the_cpu_has(monkeypatch, features, expected):
    cpu_with(monkeypatch, **features)
    assert precision.settled(SubjectConfig(device="cpu")).dtype == expected


def test_the_choice_does_not_depend_on_time(monkeypatch):
    def asked() -> float:
        raise AssertionError("a clock was asked")

    for name in ("perf_counter", "time", "monotonic", "process_time"):
        monkeypatch.setattr(time, name, asked)
    cpu_with(monkeypatch, avx512_bf16=True)
    assert precision.settled(SubjectConfig(device="cpu")).dtype == "bfloat16"


def test_the_features_of_this_cpu_are_known():
    assert all(isinstance(name, str) for name in precision.cpu_features())
    assert precision.has_bfloat16_units(torch.device("cpu")) in (True, False)


def test_an_older_torch_names_one_feature(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert precision.cpu_features() == {"avx512_bf16": True}


def test_a_named_dtype_stays(monkeypatch):
    cpu_with(monkeypatch)
    assert precision.settled(SubjectConfig(device="cpu", dtype="bfloat16")).dtype == "bfloat16"


def test_quantised_weights_compute_in_what_is_fast(monkeypatch):
    cpu_with(monkeypatch)
    found = precision.settled(SubjectConfig(device="cpu", quantisation="nf4"))
    assert found.precision == "nf4+float32"


@pytest.mark.parametrize(
    ("native", "quantisation", "expected"),
    [(True, None, "bfloat16"), (False, None, "float32"), (False, "nf4", "nf4+float16")],
)
def test_auto_on_a_gpu(monkeypatch, native, quantisation, expected):
    """Without bfloat16, float16 is safe only where the residual stream is wider."""
    monkeypatch.setattr(precision, "pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: native)
    assert precision.settled(SubjectConfig(quantisation=quantisation)).precision == expected
