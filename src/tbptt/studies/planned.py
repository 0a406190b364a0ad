"""Carry the plan of a command from its check to its run. Hydra stands between the two and passes on words only."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hydra.core.override_parser.types import Override

from tbptt.config.compose import CommandError, ConfigSource, parsed
from tbptt.studies.begun import begun_earlier
from tbptt.studies.plan import Plan, make_plan
from tbptt.system.devices import from_another_process

Key = tuple[Path, str, Path | None, tuple[str, ...]]

_kept: ContextVar[dict[Key, Plan] | None] = ContextVar("plans of a command", default=None)


@contextmanager
def one_command() -> Iterator[None]:
    """Within this context, :func:`plan_of` returns the plan that :func:`checked_plan` made for the same words."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def checked_plan(source: ConfigSource, overrides: Sequence[Override]) -> Plan:
    """:func:`make_plan` for a process that does not train itself. The plan is kept for the rest of the command."""
    with from_another_process():  # the workers train, not this one
        try:
            plan = make_plan(source, overrides)
        except CommandError:  # it may be wrong with today's defaults only
            if (begun := begun_earlier(source, overrides)) is None:
                raise
            plan = begun
    kept = _kept.get()
    if kept is not None:
        kept[_key(source, [str(o.input_line) for o in overrides])] = plan
    return plan


def plan_of(source: ConfigSource, words: Sequence[str]) -> Plan:
    """The plan that :func:`checked_plan` kept for exactly these words. If there is none, the plan is made now. This
    happens if some of the command's words were meant for Hydra itself, which does not pass them on."""
    kept = (_kept.get() or {}).get(_key(source, words))
    if kept is not None:
        return kept
    with source.opened():
        return checked_plan(source, parsed(words)[0])


def _key(source: ConfigSource, words: Sequence[str]) -> Key:
    return source.folder, source.name, source.also, tuple(words)
