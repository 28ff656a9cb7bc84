"""How much memory some work takes at its peak."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psutil

INTERVAL = 0.01  # seconds between two looks at the resident memory


def _cuda() -> Any:
    """torch.cuda if some work has begun to use it; a stage without a model never loads torch."""
    torch = sys.modules.get("torch")
    return (
        torch.cuda if torch and torch.cuda.is_available() and torch.cuda.is_initialized() else None
    )


@contextlib.contextmanager
def peak_memory() -> Iterator[dict[str, int]]:
    """Peaks inside the body in bytes, filled in at its end: `resident` of this process, and of all
    CUDA devices `allocated` (tensors) and `reserved` (what the allocator took for them).

    Resident memory starts at what the process holds already: leftovers of earlier work, if any,
    count. It is sampled every 10 ms.
    """
    process, stop, found = psutil.Process(), threading.Event(), {}
    peak = [process.memory_info().rss]
    if cuda := _cuda():
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)

    def watch() -> None:
        while not stop.wait(INTERVAL):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
        found["resident"] = max(peak[0], process.memory_info().rss)
        if cuda := _cuda():
            devices = range(cuda.device_count())
            found["allocated"] = sum(cuda.max_memory_allocated(device) for device in devices)
            found["reserved"] = sum(cuda.max_memory_reserved(device) for device in devices)
