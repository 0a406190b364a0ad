"""What a study trains on: said once before its trials begin, and kept with it for its report."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from omegaconf import OmegaConf

from tbptt.config.names import SWEEPS
from tbptt.config.schema import Config
from tbptt.evaluation.data_words import data_lines, warning_lines, wrapped
from tbptt.runs.dataset import log_dataset, tags_of
from tbptt.runs.tracking import Run
from tbptt.studies.folds import fold_data
from tbptt.studies.plan import Plan
from tbptt.system.files import write_text
from tbptt.system.secrets import hidden

FILE = "data.json"  # in a study's folder, and with its parent run


def data_of(plan: Plan) -> dict[str, Any]:
    """What the trials of a plan train on, as plain values without secrets: those of
    :func:`tbptt.evaluation.data_words.described`, ``fingerprint``, and ``varies``, the keys of the data and the task
    that differ between trials; then the rest is of the first point. With folds it is of the last one.

    Raises:
        ValueError: the data cannot be used.
    """
    from tbptt.data.split import load_split
    from tbptt.evaluation.data_words import described

    config = cast(Config, OmegaConf.to_object(plan.cfg))
    data = fold_data(config.data, plan.settings)[-1]
    warnings: tuple[str, ...] = ()
    if getattr(data, "inputs", None):
        from tbptt.tasks.prepare import prepare  # imports torch, which the head of a sweep needs at its end only

        prepared = prepare(data, config.task)
        split, warnings = prepared.split, prepared.warnings
    else:
        split = load_split(data, config.task)
    varies = [d.key for d in plan.space.dimensions if d.key.split(".")[0] in ("data", "task")]
    about = hidden(described(data, config.task, split, warnings))
    return {**about, "fingerprint": split.fingerprint(), "varies": varies}


def lines_of(about: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[str]]:
    """What :func:`data_of` returns, as lines, and its warnings, a line each."""
    varies = f"data: of the first point; these differ between trials: {', '.join(about['varies'])}"
    return [*data_lines(about), *(wrapped(varies) if about["varies"] else [])], warning_lines(about)


def keep_data(name: str, parent: Run, about: Mapping[str, Any]) -> None:
    """Keep what a study trains on in its folder, and with its parent run: as a file, a dataset and tags."""
    path = SWEEPS / name / FILE
    write_text(path, json.dumps(about, ensure_ascii=False, indent=1))
    parent.store.retry(lambda: parent.keep(path))
    if tags := tags_of(about):
        parent.store.retry(lambda: parent.set_tags(tags))
    log_dataset(parent, about, about["fingerprint"])
