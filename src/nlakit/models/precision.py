"""On which device the subject lies, and in which number format it is held and multiplied there."""

from __future__ import annotations

import functools

import torch

from nlakit.config.sections import SubjectConfig
from nlakit.errors import DataError, ModelError
from nlakit.run.progress import say


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA, then Apple's GPU, then the CPU. Raises ModelError for a device that is not
    here."""
    if name != "auto":
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                "no such device here", found=f"{name}: {error}", do="auto, cpu, cuda, cuda:0 or mps"
            ) from error
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


def settled(config: SubjectConfig) -> SubjectConfig:
    """The settings with a definite dtype in place of `auto`: bfloat16 where the device has units
    for it, else float32. A GPU without them takes float16 under 4-bit weights, where the residual
    stream is float32: in a stream of float16 many models overflow."""
    if config.dtype != "auto":
        return config
    dtype = _best(pick_device(config.device), config.quantisation == "nf4")
    return config.model_copy(update={"dtype": dtype})


@functools.cache
def _best(device: torch.device, quantised: bool) -> str:
    if has_bfloat16_units(device):
        return "bfloat16"
    if device.type == "cuda" and quantised:
        return "float16"
    say(f"{device} has no bfloat16 units: the subject is held and multiplied in float32")
    return "float32"


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether the device says that it multiplies bfloat16 in hardware. It is asked and not timed:
    the answer must not change with what else the machine is doing."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return any(found is True and "bf16" in name for name, found in cpu_features().items())
    try:  # Apple's GPUs multiply it from macOS 14 on, and refuse it before
        ones = torch.ones(2, 2, device=device, dtype=torch.bfloat16)
        return bool((ones @ ones == 2).all())
    except (RuntimeError, TypeError):
        return False


def cpu_features() -> dict[str, object]:
    """The CPU's instruction sets by name (`avx512_bf16`, `amx_bf16`, ...), as torch read them."""
    try:
        return dict(torch.cpu.get_capabilities())
    except AttributeError:  # torch before 2.11 names only this one
        return {"avx512_bf16": torch.cpu._is_avx512_bf16_supported()}


def check_finite(values: torch.Tensor, what: str, precision: str) -> None:
    """Raise DataError if a number is NaN or infinite."""
    if not bool(torch.isfinite(values).all()):
        raise DataError(
            f"{what} are not finite",
            found=f"precision {precision}",
            do="use bfloat16 or float32; float16 overflows in many models",
        )
