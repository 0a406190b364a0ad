"""How much memory this process may still take. It is checked before something large is read."""

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil


def free_memory() -> int | None:
    """Free bytes: the least of what the system, the container (cgroup) and ``ulimit -v`` leave; None if unknown."""
    return min(_limits(), default=None)


def resident_memory() -> int:
    """Bytes of memory that this process has now."""
    return int(psutil.Process().memory_info().rss)


def _limits() -> Iterator[int]:
    with suppress(OSError):
        yield int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # "max" where there is no limit
        yield _left_in(Path("/sys/fs/cgroup"))
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    if most != resource.RLIM_INFINITY:
        with suppress(OSError):
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            yield max(0, most - used)


def _left_in(group: Path) -> int:
    """Free bytes below a cgroup's limit. Cached files count as free: the kernel drops them when memory is needed."""
    most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return max(0, most - used + int(facts["inactive_file"]))


def too_large(needed: int) -> str | None:
    """The end of a message about something that needs so many bytes; None if there is room for it."""
    free = free_memory()
    if free is None or needed <= free:
        return None
    return f"needs about {_gigabytes(needed)} of memory, and {_gigabytes(free)} are free"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
