"""In which number format the subject is held and multiplied on the device at hand."""

from __future__ import annotations

import functools
import time

import torch

from nlakit.config import SubjectConfig
from nlakit.progress import say

# A CPU without bfloat16 units multiplies it some hundred times slower than float32; one with them,
# or a GPU, at least half as fast. Nothing lies between, so a measurement always decides alike.
SLOW = 0.25
WIDTH, REPEATS = 256, 3


def settled(config: SubjectConfig) -> SubjectConfig:
    """The settings with a definite dtype in the place of `auto`: bfloat16 where the device
    multiplies it fast; else float16 on a GPU, and on a CPU float32."""
    if config.dtype != "auto":
        return config
    from nlakit.models.subject import pick_device

    dtype = _best(pick_device(config.device))
    return config.model_copy(update={"dtype": dtype})


@functools.cache
def _best(device: torch.device) -> str:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if native else "float16"
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
