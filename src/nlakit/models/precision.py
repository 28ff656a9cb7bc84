"""In which number format the subject is held and multiplied on the device at hand."""

from __future__ import annotations

import functools
import time

import torch

from nlakit.config.sections import SubjectConfig
from nlakit.errors import DataError
from nlakit.run.progress import say

# A CPU without bfloat16 units multiplies it some hundred times slower than float32; one with them,
# or a GPU, at least half as fast. Nothing lies between, so a measurement always decides alike.
SLOW = 0.25
WIDTH, REPEATS = 256, 3


def settled(config: SubjectConfig) -> SubjectConfig:
    """The settings with a definite dtype in the place of `auto`: bfloat16 where the device
    multiplies it fast, else float32. A GPU without it takes float16 under 4-bit weights, where the
    residual stream is float32: in a stream of float16 many models overflow."""
    if config.dtype != "auto":
        return config
    from nlakit.models.subject import pick_device

    dtype = _best(pick_device(config.device), config.quantisation == "nf4")
    return config.model_copy(update={"dtype": dtype})


@functools.cache
def _best(device: torch.device, quantised: bool) -> str:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float16" if quantised else "float32"
    try:
        slow = speed(device, torch.bfloat16) < SLOW * speed(device, torch.float32)
    except RuntimeError:
        slow = True
    if slow:
        say(f"{device} has no bfloat16 units: the subject is held and multiplied in float32")
    return "float32" if slow else "bfloat16"


def speed(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a small square matmul, the best of three after one to warm up."""
    ones, times = torch.ones(WIDTH, WIDTH, device=device, dtype=dtype), []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        (ones @ ones)[0, 0].item()  # reading a number waits for the device
        times.append(time.perf_counter() - started)
    return 2 * WIDTH**3 / min(times[1:])


def check_finite(values: torch.Tensor, what: str, precision: str) -> None:
    """Raise DataError if a number is NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            f"{what} are not finite",
            found=f"precision {precision}",
            do="use bfloat16 or float32; float16 overflows in many models",
        )
