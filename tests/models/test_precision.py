"""`auto` takes bfloat16 only where it is fast."""

from __future__ import annotations

import pytest
import torch

from nlakit.config.sections import SubjectConfig
from nlakit.models import precision


@pytest.fixture(autouse=True)
def _forget():
    precision._best.cache_clear()
    yield
    precision._best.cache_clear()


def speeds(monkeypatch: pytest.MonkeyPatch, bfloat16: float, float32: float) -> None:
    known = {torch.bfloat16: bfloat16, torch.float32: float32}
    monkeypatch.setattr(precision, "speed", lambda device, dtype: known[dtype])


@pytest.mark.parametrize(
    ("bfloat16", "expected"), [(4.0, "bfloat16"), (0.5, "bfloat16"), (0.01, "float32")]
)
def test_auto_is_float32_where_bfloat16_is_emulated(monkeypatch, bfloat16, expected):
    speeds(monkeypatch, bfloat16, 1.0)
    assert precision.settled(SubjectConfig(device="cpu")).dtype == expected


def test_a_named_dtype_stays(monkeypatch):
    speeds(monkeypatch, 0.01, 1.0)
    assert precision.settled(SubjectConfig(device="cpu", dtype="bfloat16")).dtype == "bfloat16"


def test_quantised_weights_compute_in_what_is_fast(monkeypatch):
    speeds(monkeypatch, 0.01, 1.0)
    assert precision.settled(SubjectConfig(device="cpu", quantisation="nf4")).precision == (
        "nf4+float32"
    )


@pytest.mark.parametrize(
    ("native", "quantisation", "expected"),
    [(True, None, "bfloat16"), (False, None, "float32"), (False, "nf4", "nf4+float16")],
)
def test_auto_on_a_gpu(monkeypatch, native, quantisation, expected):
    """Without bfloat16, float16 is safe only where the residual stream is wider."""
    monkeypatch.setattr("nlakit.models.subject.pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: native)
    assert precision.settled(SubjectConfig(quantisation=quantisation)).precision == expected


def test_speed_is_that_of_a_product():
    assert precision.speed(torch.device("cpu"), torch.float32) > 1e6
