"""Python's garbage collection while a process starts.

Importing torch, Lightning and MLflow makes a million objects that stay. With Python's own thresholds, a collection for
every few hundred of them walks over all that are there already: a fifth of the time to a run's first update. This
module and its package import nothing that takes time.
"""

import gc

SELDOM = (2_000_000, 10, 10)  # none until a run begins; in a process that trains nothing, one for that many objects

_usual: tuple[int, int, int] | None = None


def seldom() -> None:
    """Collect seldom from now on. Only for a process that is ours alone: the setting belongs to all of its threads."""
    global _usual
    if _usual is None:
        _usual = gc.get_threshold()
        gc.set_threshold(*SELDOM)


def as_usual() -> None:
    """After :func:`seldom`, collect as often as before. What exists by now is left out of all later collections, as it
    stays until the process ends: call it before there is anything large that has to be freed again. Does nothing
    otherwise, so a worker may call it for each of its runs."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None
