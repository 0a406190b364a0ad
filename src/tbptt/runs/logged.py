"""The models of runs in MLflow, as it lists them. Without PyTorch, which takes seconds to import."""

import logging
from collections.abc import Sequence
from typing import Any

from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException

from tbptt.options.values import shortened
from tbptt.runs.store_errors import is_locked, is_outage
from tbptt.runs.tracking import Run, Store

log = logging.getLogger("tbptt")

EPOCH_TAG = "epoch"  # of a model: which epoch of its run it is, counted from 1
BEST_MODEL = "best.model"  # tag of a study's run: the models of its best trial


def models_of(store: Store, experiment: str, run_id: str) -> list[Any]:
    """The models of a run, the newest first, those too that are not complete."""
    newest = [{"field_name": "creation_timestamp", "ascending": False}]
    query = f"source_run_id = '{run_id}'"
    return list(store.client.search_logged_models([experiment], query, order_by=newest))


def newest_model(store: Store, experiment: str, run_id: str) -> Any | None:
    """The last complete model of a run; None if it has none."""
    models = models_of(store, experiment, run_id)
    return next((model for model in models if model.status == LoggedModelStatus.READY), None)


def show_models(store: Store, parent: Run, runs: Sequence[str]) -> None:
    """Show the models of a study's best trial with the study's run, too.

    Args:
        runs: the runs of that trial, one for each seed.
    """
    try:
        _show(store, parent, runs)
    except MlflowException as error:
        if is_locked(error) or (is_outage(error) and not store.is_local):
            raise
        log.warning("the study's run does not show its best model: %s", shortened(str(error), 200))


def _show(store: Store, parent: Run, runs: Sequence[str]) -> None:
    found = [model for run in runs if (model := newest_model(store, parent.experiment, run)) is not None]
    if not found:
        return
    outputs = store.client.get_run(parent.id).outputs
    shown = {each.model_id for each in outputs.model_outputs} if outputs else set()
    if new := [model for model in found if model.model_id not in shown]:
        steps = [LoggedModelOutput(model.model_id, step=int(model.tags.get(EPOCH_TAG, 1)) - 1) for model in new]
        store.client.log_outputs(parent.id, steps)
    parent.set_tags({BEST_MODEL: ", ".join(f"models:/{model.model_id}" for model in found)})
