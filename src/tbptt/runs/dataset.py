"""The data of a run or a study in MLflow: as a dataset and as tags."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from tbptt.evaluation.data_words import PARTS, few, left_out_words, series_words
from tbptt.options.values import shortened
from tbptt.runs.store_errors import is_outage
from tbptt.runs.tracking import LONGEST_TAG, Run

log = logging.getLogger("tbptt")

DIGITS = 16  # of the fingerprint, as the dataset's digest
LONGEST_DATASET = 500  # letters of its name, the most that MLflow takes
LONGEST_SOURCE = 8000  # of a path
MOST_COLUMNS, LONGEST_COLUMN = 1000, 200  # in a dataset's schema, for which MLflow takes a million letters


def tags_of(about: Mapping[str, Any]) -> dict[str, str]:
    """Tags that say what is trained, each no longer than MLflow takes. None for series that are generated."""
    if not about["series"]:
        return {}
    texts = {
        "source": about["source"],
        "rows": str(about["rows"]),
        "series": _fitting(lambda most: series_words(about, most), len(about["series"])),
        "time": about["time"],
        "zone": about["zone"],
        "first": about["first"],
        "last": about["last"],
        "found": "; ".join(about["found"]),
        "inputs": _fitting(lambda most: few(about["inputs"], most), len(about["inputs"])),
        "left_out": _fitting(lambda most: left_out_words(about["left_out"], most), len(about["left_out"])),
        "warnings": "\n".join(about["warnings"]),
    }
    return {f"data.{name}": shortened(text, LONGEST_TAG) for name, text in texts.items() if text}


def _fitting(said: Callable[[int], str], count: int) -> str:
    """``said(most)`` for the largest number of names, at most ``count``, that fits into a tag."""
    low, high = 1, max(count, 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(said(middle)) <= LONGEST_TAG else (low, middle - 1)
    return said(low)


def dataset_of(about: Mapping[str, Any], fingerprint: str) -> DatasetInput:
    """The data as MLflow's UI shows them: columns, rows, steps of each part, where they are from."""
    source = {"uri": shortened(about["source"], LONGEST_SOURCE)}
    if not about["is_file"]:
        source = {"tags": {"mlflow.source.name": source["uri"]}}  # type: ignore[dict-item]
    columns = [{"name": name, "type": "datetime", "required": True} for name in [about["time"]] if name]
    columns += [{"name": one["name"], "type": "double", "required": True} for one in about["series"]]
    columns += [{"name": name, "type": "double", "required": False} for name in about["inputs"]]
    columns = [{**column, "name": shortened(column["name"], LONGEST_COLUMN)} for column in columns[:MOST_COLUMNS]]
    profile = {
        "rows": about["rows"],
        "series": about["count"],
        **{f"steps {word}": about["parts"][part]["steps"] for part, word in PARTS.items()},
        **{name: about[name] for name in ("first", "last", "zone", "fold") if about[name]},
    }
    dataset = Dataset(
        name=shortened(Path(about["source"]).name or about["source"], LONGEST_DATASET),
        digest=fingerprint[:DIGITS],
        source_type="local" if about["is_file"] else "code",
        source=json.dumps(source, ensure_ascii=False),
        schema=json.dumps({"mlflow_colspec": columns}, ensure_ascii=False) if columns else None,
        profile=json.dumps(profile, ensure_ascii=False),
    )
    return DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])


def log_dataset(run: Run, about: Mapping[str, Any], fingerprint: str) -> None:
    """Show the data with a run. If its store cannot, the run goes on: its tags say the same."""
    given = dataset_of(about, fingerprint)
    for last in (False, True):
        try:
            run.store.retry(lambda: run.store.client.log_inputs(run.id, [given]))
            return
        except MlflowException as error:
            if is_outage(error):
                raise
            # Two workers may add the same dataset at one moment; the second time it is there.
            if last or "UNIQUE constraint" not in str(error):
                log.warning("run %s: its data are not shown as a dataset: %s", run.id, shortened(str(error), 200))
                return
