"""What a benchmark ran on, in a line, on which core, and how its times are shown."""

import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def machine() -> str:
    """Processor, cores, Python and torch."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}"


def spread(values: Sequence[float], unit: str) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):8.3f} {unit}  ({min(values):.3f} to {max(values):.3f}, n = {len(values)})"


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Processes started within stay on this core; None: anywhere."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
