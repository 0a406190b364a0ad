"""Writing reports: ``report.py`` does it for an existing study, and a sweep for its own study when it ends."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from omegaconf import DictConfig, OmegaConf

from tbptt.cli.ending import as_mistakes
from tbptt.config.compose import CommandError
from tbptt.config.names import SWEEPS
from tbptt.config.schema import TrackingConfig

if TYPE_CHECKING:
    from tbptt.runs.tracking import Store
    from tbptt.studies.study import Study


def write_report(study: "Study", store: "Store") -> Sequence[Path]:
    """Write a study's report. Returns the files that are also kept with its parent run."""
    from tbptt.reports import (
        page,  # plots and importances take a second to import; the workers run meanwhile
    )

    path = page.write_report(study, store)
    there = (path.with_name(name) for name in page.SHARED)
    return [each for each in there if each.exists()]  # a store that was away gave no curves


def report_again(name: str, cfg: DictConfig, uri: str | None) -> Path:
    """Write an existing study's report. Raises CommandError if there is no such study.

    Args:
        uri: the store of its runs, if the user named it.
    """
    study = _study(name, cfg)
    from tbptt.reports import page

    return page.write_report(study, _store(study, cfg, uri))


def verdict_on(name: str, cfg: DictConfig, uri: str | None) -> Path:
    """Write the verdict on the article's claims, from a study of ``sweep=article`` or from a file of its curves.

    Raises:
        CommandError: there is no such study or file, or it does not hold these curves.
    """
    path = Path(name)
    study = None if path.suffix == ".csv" else _study(name, cfg)
    from tbptt.article import claims, page

    try:
        if study is None:
            return page.write_verdict(claims.read_curves(path), SWEEPS / path.name, path.stem)
        return page.write_verdict(claims.curves_of(study, _store(study, cfg, uri)), SWEEPS / study.name, study.name)
    except FileNotFoundError:
        raise CommandError([f"STUDY: got {name!r}; there is no such file"]) from None
    except ValueError as error:
        raise CommandError([str(error)]) from None


def figures_of(name: str, cfg: DictConfig, uri: str | None, folder: Path) -> str:
    """Write the figures and tables of a study's report for a paper. Returns a line on what was written.

    Raises CommandError if there is no such study, nothing to draw with, or ``folder`` is none.
    """
    from tbptt.reports import papers

    with as_mistakes():
        browser = papers.checked(folder)
        study = _study(name, cfg)
        return papers.write(study, _store(study, cfg, uri), folder, browser)


def opened(name: str, cfg: DictConfig, uri: str | None) -> "tuple[Study, Store]":
    """An existing study and the store of its runs. Raises CommandError if there is no such study."""
    study = _study(name, cfg)
    return study, _store(study, cfg, uri)


def _study(name: str, cfg: DictConfig) -> "Study":
    from tbptt.studies.found import study_called

    try:
        return study_called(name, cfg.study.storage, "STUDY", here=True)
    except ValueError as error:
        raise CommandError([str(error)]) from None


def _store(study: "Study", cfg: DictConfig, uri: str | None) -> "Store":
    from tbptt.runs.tracking import Store
    from tbptt.studies.found import uri_of_runs

    try:
        where = uri_of_runs(study, uri)
    except ValueError as error:
        raise CommandError([str(error)]) from None
    return Store(replace(cast(TrackingConfig, OmegaConf.to_object(cfg.tracking)), uri=where))
