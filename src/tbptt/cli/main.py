"""The entry points from a shell: help, checks and exit statuses. Other modules do the work."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from tbptt.cli.command_line import checked
from tbptt.cli.ending import OF_STORES, WRONG, ended, keys_of, ran, stores_named
from tbptt.cli.help_page import help_text
from tbptt.options.own import load_own
from tbptt.runs import progress
from tbptt.studies.planned import one_command
from tbptt.system.command import command
from tbptt.system.environment import said
from tbptt.system.runtime import errors_past_hydra, say
from tbptt.system.typed_command import note_typed


def job(cfg: DictConfig) -> float | tuple[float, ...] | None:
    """One training run, as Hydra starts it."""
    typed = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False) if HydraConfig.initialized() else []
    progress.starting(said(cast(list[str], typed)), cfg.progress)
    from tbptt.runs.context import RunContext
    from tbptt.runs.fit import train

    with errors_past_hydra():
        if cfg.resume:
            from tbptt.runs.resume import resumed_config

            given = [word.split("=")[0] for word in HydraConfig.get().overrides.task]
            return train(resumed_config(cfg, given), RunContext(resume=cfg.resume))
        words = cast(list[str], typed)
        return train(cfg, RunContext(typed=words, overrides=words if _is_from_shipped() else None))


def _is_from_shipped() -> bool:
    """Whether the config is made of the shipped files and what was typed only."""
    if not HydraConfig.initialized():
        return False
    hydra = HydraConfig.get()
    providers = {source.provider for source in hydra.runtime.config_sources}
    return hydra.job.config_name == "config" and providers <= {"hydra", "main", "schema"}


REPORT_TAKES = (
    "STUDY|verdict.csv [--verdict | --figures FOLDER | --watch [--port N]] [study.storage=URI] [tracking.uri=URI]"
)


def run(hydra_main: Callable[[], None], conf: Path) -> int:
    """Check what was typed, hand over to Hydra, and return the exit status (:func:`tbptt.cli.ending.ran`)."""
    return ran(lambda: _run(hydra_main, conf, sys.argv[1:]))


def _run(hydra_main: Callable[[], None], conf: Path, argv: list[str]) -> int:
    try:
        _see_that_code_is_from(conf.parent)
        load_own()
    except ValueError as error:
        return ended(str(error), WRONG)
    if {"--help", "-h", "--hydra-help"} & set(argv):
        say(help_text(conf))
        return 0
    note_typed(argv)
    with progress.Status(_typed_mode(argv)) as status, one_command():
        status.now("checking the command", after=10)  # late, so that a wrong command prints its problems only
        sys.argv[1:] = checked(argv, conf)
        hydra_main()
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


def report(argv: Sequence[str], conf: Path) -> int:
    """Run ``python report.py STUDY [--verdict | --figures FOLDER | --watch] [KEY=VALUE …]`` and return the exit
    status, as :func:`run` does.

    KEY is ``study.storage`` or ``tracking.uri``, if they are not the defaults. ``--verdict`` compares the article's
    claims with a study of ``sweep=article``, or with its verdict.csv. ``--figures`` writes the report's figures and
    tables for a paper. ``--watch`` serves the report on this machine while the study runs.
    """
    return ran(lambda: _report(argv, conf))


def _report(argv: Sequence[str], conf: Path) -> int:
    usage = f"usage: {command('report')} {REPORT_TAKES}"
    from tbptt.cli.watch import served, watch

    words, how = served([word for word in argv if word != "--verdict"])
    words, figures = _folder_of_figures(words)
    is_verdict = "--verdict" in argv
    if "--help" in argv or "-h" in argv:
        say(usage)
        return 0
    several = [is_verdict, figures is not None, how is not None].count(True) > 1
    if several or not words or words[0].startswith("-") or "=" in words[0]:
        return ended(usage, WRONG)
    if any(word.startswith("-") for word in words):
        return ended(usage, WRONG)
    words += how.stores if how else []
    cfg = keys_of(words[1:], conf, OF_STORES)
    from tbptt.cli.reports import figures_of, report_again, verdict_on

    uri = stores_named(cfg, words[1:])[0]
    if how is not None:
        watch(words[0], cfg, uri, how)
        return 0
    if figures is not None:
        say(figures_of(words[0], cfg, uri, Path(figures)))
        return 0
    say(str((verdict_on if is_verdict else report_again)(words[0], cfg, uri)))
    return 0


def _folder_of_figures(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """The words without ``--figures FOLDER``, and FOLDER. A flag without a folder stays, and is refused."""
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--figures=") else [word])]
    at = words.index("--figures") if "--figures" in words else len(words)
    if at + 1 >= len(words) or not words[at + 1] or words[at + 1].startswith("-"):
        return words, None
    return [*words[:at], *words[at + 2 :]], words[at + 1]
