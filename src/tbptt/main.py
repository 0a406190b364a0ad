"""The way in from a shell: help, checks, exit statuses; the work is done elsewhere."""

import logging
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from tbptt.command_line import checked
from tbptt.compose import CommandError, Source, composed
from tbptt.config import load_own, register
from tbptt.help_page import help_text
from tbptt.runtime import Interrupted, PastHydra, errors_past_hydra
from tbptt.secrets import hide
from tbptt.stores import absolute_uri, without_password
from tbptt.trouble import disk_trouble

FAILED, WRONG = 1, 2


def job(cfg: DictConfig) -> float | tuple[float, ...] | None:
    """One training run, as Hydra starts it."""
    from tbptt.train import train

    with errors_past_hydra():
        if cfg.resume:
            from tbptt.resume import resumed_config

            given = [word.split("=")[0] for word in HydraConfig.get().overrides.task]
            objective = train(resumed_config(cfg, given), resume=cfg.resume)
        else:
            objective = train(cfg)
    if cfg.progress != "none":
        print(ui_line(cfg.tracking.uri))
    return objective


REPORT_USAGE = "usage: python report.py STUDY|CURVES.csv [--verdict] [study.storage=URI] [tracking.uri=URI]"


def run(hydra_main: Callable[[], None], conf: Path) -> int:
    """Check what was typed, hand over to Hydra, and return the exit status.

    0 done; 1 something failed, a line says what and where; 2 the command or config is wrong, a line a problem;
    130 and 143 after SIGINT and SIGTERM. ``HYDRA_FULL_ERROR=1`` shows tracebacks.
    """
    _print_anything()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    argv = sys.argv[1:]
    try:
        load_own()
    except ValueError as error:
        return _ended(str(error), WRONG)
    if {"--help", "-h", "--hydra-help"} & set(argv):
        print(help_text(conf))
        return 0
    try:
        sys.argv[1:] = checked(argv, conf)
        hydra_main()
    except CommandError as error:
        return _ended(str(error), WRONG)
    except PastHydra as passed:
        if isinstance(passed.error, CommandError):
            return _ended(str(passed.error), WRONG)
        if isinstance(passed.error, Interrupted):
            return _ended(str(passed.error), 128 + passed.error.signum)
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            print(hide("".join(traceback.format_exception(passed.error))), file=sys.stderr)
        return _ended(failure_line(passed.error), FAILED)
    except KeyboardInterrupt:
        return _ended("stopped by SIGINT", 130)
    return 0


def leave(status: int) -> NoReturn:
    """End the process now. Python would take two seconds to take down what torch and MLflow have built."""
    logging.shutdown()
    with suppress(OSError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def report(argv: Sequence[str], conf: Path) -> int:
    """``python report.py STUDY [--verdict] [KEY=VALUE …]``: ``study.storage`` and ``tracking.uri`` if not the defaults;
    with ``--verdict`` the article's claims held against a study of ``sweep=article``, or against its curves.csv."""
    _print_anything()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    words = [word for word in argv if word != "--verdict"]
    if "--help" in argv or "-h" in argv:
        print(REPORT_USAGE)
        return 0
    if not words or any(word.startswith("-") for word in words) or "=" in words[0]:
        return _ended(REPORT_USAGE, WRONG)
    try:
        register()
        source = Source(conf)
        with source.opened():
            cfg, wrong = composed(source, words[1:])
        if cfg is None or wrong:
            raise CommandError(wrong)
        from tbptt.sweep import report_again, verdict_on

        print((report_again if len(words) == len(argv) else verdict_on)(words[0], cfg))
    except CommandError as error:
        return _ended(str(error), WRONG)
    except Exception as error:  # a server that is away, a full disk
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exception(error)
        return _ended(failure_line(error), FAILED)
    return 0


def ui_line(uri: str) -> str:
    """The command that opens the UI; a relative path stays so where MLflow reads it as it stands."""
    absolute = absolute_uri(uri)
    shown = absolute if absolute.startswith("sqlite+") else uri
    return hide(f"compare runs: mlflow ui --backend-store-uri {shlex.quote(shown)}")


def failure_line(error: BaseException) -> str:
    """What went wrong, and where in this package, in one line."""
    what = hide(without_password(" ".join(str(error).split()))) or "no message"
    if isinstance(error, ValueError):  # said to the user already, in full
        return what
    if trouble := disk_trouble(error):
        return hide(str(trouble))
    if isinstance(error, MemoryError) or "can't allocate memory" in what or "out of memory" in what:
        what = f"out of memory: {what}"
    package = str(Path(__file__).parent)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(package)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {what}{where}"


def _print_anything() -> None:
    """What a terminal's encoding has no letter for is shown as ``\\xd7``, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # a notebook's streams take everything
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _ended(line: str, status: int) -> int:
    print(hide(line), file=sys.stderr)
    return status
