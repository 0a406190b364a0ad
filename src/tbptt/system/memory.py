"""How much memory this process may still take, asked before something large is read."""

import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil


def free_memory() -> int | None:
    """Bytes: the least that the system, a container (cgroup) and ``ulimit -v`` leave; None where none of them says."""
    return min(_limits(), default=None)


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
    """Of a cgroup's limit; the files that it has in cache give way."""
    most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return max(0, most - used + int(facts["inactive_file"]))


def too_large(needed: int) -> str | None:
    """What to say of something that needs so many bytes; None where there is room for it."""
    free = free_memory()
    if free is None or needed <= free:
        return None
    return f"needs about {_gigabytes(needed)} of memory, and {_gigabytes(free)} are free"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
