"""Judge the chosen trial of a study on the test part, once, at the end of the study. No other trial is judged there."""

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from optuna.trial import FrozenTrial

from tbptt.config.names import SWEEPS
from tbptt.evaluation import words
from tbptt.evaluation.results import RESULT, STEPS
from tbptt.runs import progress
from tbptt.runs.store_errors import is_outage
from tbptt.runs.tracking import Run, Store
from tbptt.studies.ranking import best_trial
from tbptt.studies.records import TrialRecord
from tbptt.studies.study import Study
from tbptt.system.endings import failure_line
from tbptt.system.runtime import Interrupted
from tbptt.system.trouble import disk_trouble

if TYPE_CHECKING:
    from tbptt.models.protocol import Network
    from tbptt.tasks.prepare import Prepared

log = logging.getLogger("tbptt")


def judge_chosen(study: Study, store: Store, parent: Run) -> None:
    """Judge a study's best trial on the test part, if there is a test part and the trial was not judged yet.

    The result goes into ``evaluation.json`` and ``evaluation.npz`` in the study's folder, for its report, and to the
    parent run in MLflow. If the trial has only one run, the result also goes to that run. With several seeds, their
    average is judged. If the trial cannot be judged, for example because a file is missing, a warning says so and the
    sweep goes on.
    """
    best = best_trial(study.trials(), *study.objectives)
    folder = SWEEPS / study.name
    if best is None or _is_judged(folder, best):
        return
    progress.now("judging the chosen trial on the test part")
    try:
        _judge(study, store, parent, best, folder)
    except Exception as error:
        if disk_trouble(error) or is_outage(error) or isinstance(error, Interrupted):
            raise
        log.warning(
            "study %s: its best trial, %d, could not be judged: %s", study.name, best.number, failure_line(error)
        )


def _is_judged(folder: Path, best: FrozenTrial) -> bool:
    try:
        content = json.loads((folder / RESULT).read_text())
        is_of = (content.get("trial"), content.get("runs")) == (best.number, list(TrialRecord.of(best).run_ids))
        return is_of and "uses" in content
    except (OSError, ValueError, AttributeError):
        return False


def _judge(study: Study, store: Store, parent: Run, best: FrozenTrial, folder: Path) -> None:
    from tbptt.evaluation.judged import judge
    from tbptt.runs import description, judging

    run_ids = list(TrialRecord.of(best).run_ids)
    networks, prepared = _trained(store, run_ids)
    if not networks or not prepared.split.test:
        return
    judged, steps = judge(networks, prepared, with_test=True)
    content = judging.result(judged, prepared, look=f"trial {best.number}", trial=best.number, runs=run_ids)
    milliseconds = int(time.time() * 1000)
    points, tags = judging.points(content), judging.tags(content, parent.tags())
    parent.log_points(points, milliseconds)
    parent.set_tags(tags)
    own = store.run(run_ids[0]) if len(run_ids) == 1 else None
    if own is not None:
        own.log_points(points, milliseconds)
        # Only the verdicts: the two runs together are one use of the test part.
        verdicts = {name: value for name, value in tags.items() if name.startswith("verdict.")}
        lines = description.bullets(list(map(description.escaped, words.lines(judged))))
        own.set_tags({**verdicts, **description.added(own.tags(), description.ON_TEST, lines)})
    content["uses"] = judging.uses(store, content[judging.TEST_DATA])
    judging.keep(folder, content, steps)  # last: this file says that all of the above is done
    for name in (STEPS, RESULT):
        parent.keep(folder / name)


def _trained(store: Store, run_ids: Sequence[str]) -> "tuple[list[Network], Prepared]":
    """The networks of a trial's runs at their best epochs, and their data. With folds, only the runs of the last fold
    count, because all other data lie before that fold. Raises ValueError if a checkpoint is missing or the data have
    changed."""
    import torch
    from omegaconf import OmegaConf

    from tbptt.config.schema import typed
    from tbptt.data.options import DataConfig, SplitData, fold_of
    from tbptt.runs import checkpoint, contents
    from tbptt.runs.load import network_of
    from tbptt.tasks.options import TaskConfig
    from tbptt.tasks.prepare import prepare

    networks: list[Network] = []
    prepared: Prepared | None = None
    for run_id in run_ids:
        path = store.artifact(run_id, "checkpoints/best.ckpt")
        if path is None:
            raise ValueError(f"run {run_id} has no checkpoint any more")
        state = checkpoint.load(path, contents.OF_A_RUN)
        cfg = typed(state["config"], needs=("model", "task", "data"))
        torch.set_num_threads(cfg.threads)  # as its run was: threads that wait for a busy core take it from others
        data = cast(DataConfig, OmegaConf.to_object(cfg.data))
        fold = fold_of(data.fold) if isinstance(data, SplitData) and data.fold else None
        if fold and fold[0] < fold[1]:
            continue
        prepared = prepared or prepare(data, cast(TaskConfig, OmegaConf.to_object(cfg.task)))
        if store.client.get_run(run_id).data.tags.get("data.fingerprint") != prepared.fingerprint:
            raise ValueError("the data are not those that it was trained with")
        networks.append(network_of(state, cfg))
    if prepared is None:
        raise ValueError("it has no run that saw all before the test part")
    return networks, prepared
