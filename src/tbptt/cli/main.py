"""The entry points from a shell: help, checks and exit statuses. Other modules do the work."""

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tbptt.cli.command_line import checked
from tbptt.cli.help_page import help_text
from tbptt.config.compose import CommandError, ConfigSource, composed
from tbptt.config.schema import register
from tbptt.options.own import load_own
from tbptt.runs import progress
from tbptt.studies.planned import one_command
from tbptt.system.endings import SweepFailed, failure_line, ui_line
from tbptt.system.environment import said, words_of_environment
from tbptt.system.runtime import Interrupted, PastHydra, StopSignals, errors_past_hydra, prepare_output, say
from tbptt.system.secrets import hide

FAILED, WRONG = 1, 2


def job(cfg: DictConfig) -> float | tuple[float, ...] | None:
    """One training run, as Hydra starts it."""
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False) if HydraConfig.initialized() else []
    progress.starting(said(cast(list[str], typed)), cfg.progress)
    from tbptt.runs.fit import train

    with errors_past_hydra():
        if cfg.resume:
            from tbptt.runs.resume import resumed_config

            given = [word.split("=")[0] for word in HydraConfig.get().overrides.task]
            objective = train(resumed_config(cfg, given), resume=cfg.resume)
        else:
            objective = train(cfg)
    if cfg.progress != "none":
        say(ui_line(cfg.tracking.uri))
    return objective


REPORT_USAGE = "usage: python report.py STUDY|CURVES.csv [--verdict] [study.storage=URI] [tracking.uri=URI]"


def run(hydra_main: Callable[[], None], conf: Path) -> int:
    """Check what was typed, hand over to Hydra, and return the exit status.

    0: done. 1: something failed; a line says what and where. 2: the command or config is wrong, with a line for each
    problem. 129, 130 and 143: stopped by SIGHUP, SIGINT and SIGTERM. ``HYDRA_FULL_ERROR=1`` shows tracebacks.
    """
    prepare_output()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    return _until_stopped(lambda: _run(hydra_main, conf, sys.argv[1:]))


def _until_stopped(do: Callable[[], int]) -> int:
    """The exit status that ``do`` returns, or the status of the signal that stopped it."""
    try:
        with StopSignals() as signals, signals.at_once():
            return do()
    except PastHydra as passed:
        return _status_of(passed.error)
    except Interrupted as stop:
        return _status_of(stop)
    except KeyboardInterrupt:  # outside the main thread, StopSignals cannot set handlers
        return _status_of(Interrupted(signal.SIGINT))


def _run(hydra_main: Callable[[], None], conf: Path, argv: list[str]) -> int:
    try:
        _see_that_code_is_from(conf.parent)
        load_own()
    except ValueError as error:
        return _ended(str(error), WRONG)
    if {"--help", "-h", "--hydra-help"} & set(argv):
        say(help_text(conf))
        return 0
    try:
        with progress.Status(_typed_mode(argv)) as status, one_command():
            status.now("checking the command", after=10)  # late, so that a wrong command prints its problems only
            sys.argv[1:] = checked(argv, conf)
            hydra_main()
    except Exception as error:  # a wrong command, or resume= cannot reach the server of its run
        return _status_of(error)
    return 0


def _see_that_code_is_from(project: Path) -> None:
    """Raise ValueError if the active environment belongs to another project, such as the one this folder was copied
    from."""
    there, here = project / "src" / "tbptt", Path(__file__).parents[1]
    if there.is_dir() and not there.samefile(here):
        advice = "make train makes one for it"
        raise ValueError(f"the active environment would run the code in {here}, and not that of {project}; {advice}")


def _typed_mode(argv: Sequence[str]) -> str:
    """The value of ``progress`` on the command line (``auto`` if none), for use before the config is composed."""
    typed = [word.partition("=")[2] for word in argv if word.startswith("progress=")]
    return next((mode for mode in reversed(typed) if mode in ("plain", "none")), "auto")


def _status_of(error: Exception) -> int:
    """Print how a command ended, and return its exit status."""
    if isinstance(error, CommandError):
        return _ended(str(error), WRONG)
    if isinstance(error, SweepFailed):
        return _ended(str(error), FAILED)
    if isinstance(error, Interrupted):
        return _ended(str(error), 128 + error.signum)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        say(hide("".join(traceback.format_exception(error))), sys.stderr)
    return _ended(failure_line(error), FAILED)


def report(argv: Sequence[str], conf: Path) -> int:
    """Run ``python report.py STUDY [--verdict] [KEY=VALUE …]`` and return the exit status, as :func:`run` does.

    KEY is ``study.storage`` or ``tracking.uri``, if they are not the defaults. ``--verdict`` compares the article's
    claims with a study of ``sweep=article``, or with its curves.csv.
    """
    prepare_output()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    return _until_stopped(lambda: _report(argv, conf))


def _report(argv: Sequence[str], conf: Path) -> int:
    words = [word for word in argv if word != "--verdict"]
    if "--help" in argv or "-h" in argv:
        say(REPORT_USAGE)
        return 0
    if not words or any(word.startswith("-") for word in words) or "=" in words[0]:
        return _ended(REPORT_USAGE, WRONG)
    try:
        register()
        source = ConfigSource(conf)
        with source.opened():
            typed = [word.split("=")[0] for word in words[1:]]
            cfg, wrong = composed(source, [*words[1:], *words_of_environment(typed)])
        if cfg is None or wrong:
            raise CommandError(wrong)
        from tbptt.cli.reports import report_again, verdict_on

        say(str((report_again if len(words) == len(argv) else verdict_on)(words[0], cfg)))
    except CommandError as error:
        return _ended(str(error), WRONG)
    except Exception as error:  # such as a server that does not answer, or a full disk
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            say(hide("".join(traceback.format_exception(error))), sys.stderr)
        return _ended(failure_line(error), FAILED)
    return 0


def _ended(line: str, status: int) -> int:
    say(hide(line), sys.stderr)
    return status
