"""How each command begins and ends: output, signals, exit statuses, one line for a mistake."""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from omegaconf import DictConfig

from tbptt.config.compose import CommandError
from tbptt.system.endings import SweepFailed, failure_line
from tbptt.system.runtime import Interrupted, PastHydra, StopSignals, prepare_output, say
from tbptt.system.secrets import hide

FAILED, WRONG = 1, 2
OF_STORES = ("study.storage", "tracking.uri")  # the keys of commands that read what was trained
KINDS = dict.fromkeys(OF_STORES, "URI")


def ran(do: Callable[[], int]) -> int:
    """Run a command and return its exit status.

    0: done. 1: something failed; a line says what and where. 2: the command or config is wrong, with a line for each
    problem. 129, 130 and 143: stopped by SIGHUP, SIGINT and SIGTERM. ``HYDRA_FULL_ERROR=1`` shows tracebacks.
    """
    prepare_output()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        with StopSignals() as signals, signals.at_once():
            return do()
    except PastHydra as passed:
        return status_of(passed.error)
    except KeyboardInterrupt:  # outside the main thread, StopSignals cannot set handlers
        return status_of(Interrupted(signal.SIGINT))
    except Exception as error:
        return status_of(error)


@contextmanager
def as_mistakes() -> Iterator[None]:
    """Within, a line for the user, about what was named or its content, is a mistake in the command."""
    try:
        yield
    except ValueError as error:
        raise CommandError([str(error)]) from error


def status_of(error: Exception) -> int:
    """Print how a command ended, and return its exit status."""
    if isinstance(error, CommandError):
        return ended(str(error), WRONG)
    if isinstance(error, SweepFailed):
        return ended(str(error), FAILED)
    if isinstance(error, Interrupted):
        return ended(str(error), 128 + error.signum)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        say(hide("".join(traceback.format_exception(error))), sys.stderr)
    return ended(failure_line(error), FAILED)


def ended(line: str, status: int) -> int:
    """Print a line to stderr; returns the status."""
    say(hide(line), sys.stderr)
    return status


class Arguments(argparse.ArgumentParser):
    """A command's arguments besides KEY=VALUE. A mistake in them is a CommandError of one line."""

    def __init__(self, prog: str, description: str):
        super().__init__(prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise CommandError([f"{message}; see {self.prog} --help"])


def keys_of(words: Sequence[str], conf: "os.PathLike[str]", allowed: Sequence[str] | None = None) -> DictConfig:
    """The config of a command that takes some keys but trains nothing, such as ``tracking.uri`` or ``study.storage``;
    the environment's words count, too.

    Args:
        allowed: the keys that it takes; None for all.

    Raises CommandError with a line for each problem.
    """
    if allowed is not None and (wrong := [w for w in words if "=" not in w or w.partition("=")[0] not in allowed]):
        takes = " and ".join(f"{key}={KINDS.get(key, 'VALUE')}" for key in allowed)
        raise CommandError([f"{word}: unknown here; takes {takes}" for word in wrong])
    from pathlib import Path

    from tbptt.config.compose import ConfigSource, composed
    from tbptt.config.schema import register
    from tbptt.system.environment import words_of_environment

    register()
    source = ConfigSource(Path(conf))
    with source.opened():
        typed = [word.split("=")[0] for word in words]
        cfg, wrong = composed(source, [*words, *words_of_environment(typed)])
    if cfg is None or wrong:
        raise CommandError(wrong)
    return cfg


def stores_named(cfg: DictConfig, words: Sequence[str]) -> tuple[str | None, str | None]:
    """``tracking.uri`` and ``study.storage`` if the user named them, on the command line, in the environment or in a
    config of their own; None where it is the default, as a study may know better where its runs are."""
    from tbptt.config.names import DEFAULT_STORAGE
    from tbptt.system.environment import DEFAULT_URI, uri_given

    typed = {word.partition("=")[0] for word in words}
    uri, storage = cfg.tracking.uri, cfg.study.storage
    is_named = "tracking.uri" in typed or uri_given() or uri != DEFAULT_URI
    return (
        uri if is_named else None,
        storage if "study.storage" in typed or storage != DEFAULT_STORAGE else None,
    )
