"""Writing reports: ``report.py`` does it for an existing study, and a sweep for its own study when it ends."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from omegaconf import DictConfig, OmegaConf

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


def report_again(name: str, cfg: DictConfig) -> Path:
    """Write an existing study's report. Raises CommandError if there is no such study."""
    from tbptt.studies.best_of import existing_study

    study = existing_study("STUDY", name, cfg.study.storage)
    from tbptt.reports import page

    return page.write_report(study, _store(cfg))


def verdict_on(name: str, cfg: DictConfig) -> Path:
    """Write the verdict on the article's claims, from a study of ``sweep=article`` or from a file of its curves.

    Raises:
        CommandError: there is no such study or file, or it does not hold these curves.
    """
    from tbptt.studies.best_of import existing_study

    path = Path(name)
    study = None if path.suffix == ".csv" else existing_study("STUDY", name, cfg.study.storage)
    from tbptt.article import claims, page

    try:
        if study is None:
            return page.write_verdict(claims.read_curves(path), SWEEPS / path.name, path.stem)
        return page.write_verdict(claims.curves_of(study, _store(cfg)), SWEEPS / study.name, study.name)
    except FileNotFoundError:
        raise CommandError([f"STUDY: got {name!r}; there is no such file"]) from None
    except ValueError as error:
        raise CommandError([str(error)]) from None


def _store(cfg: DictConfig) -> "Store":
    from tbptt.runs.tracking import Store

    return Store(cast(TrackingConfig, OmegaConf.to_object(cfg.tracking)))
