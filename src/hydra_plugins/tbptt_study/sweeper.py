"""Hydra's entry to studies. Hydra accepts sweepers only from a package below ``hydra_plugins``."""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class StudySweeperConfig:
    _target_: str = "hydra_plugins.tbptt_study.sweeper.StudySweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="study", node=StudySweeperConfig, provider="tbptt")


class StudySweeper(Sweeper):
    """Every ``-m`` command is a study; see :mod:`tbptt.studies.study`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config

    def sweep(self, arguments: list[str]) -> Any:
        from tbptt.runs import progress
        from tbptt.studies import pool
        from tbptt.system.environment import said
        from tbptt.system.runtime import errors_past_hydra

        assert self.config is not None
        with errors_past_hydra():
            if not self.config.study.dry_run:
                progress.starting(f" the study{said(arguments)}", self.config.progress)
            workers = pool.early(self.config)
            try:
                from tbptt.cli.reports import write_report
                from tbptt.studies.sweep import run_sweep

                run_sweep(self.config, self.context, arguments, write_report, workers)
            finally:
                pool.stop(workers)
