"""A view of a study's runs that MLflow's UI keeps with the experiment: its charts begin with the losses.

Without one, the UI orders charts by the metrics' names, and draws some twenty bars of baselines before the first curve.
The form is that in which the UI itself (3.17) saves a view; tests/test_mlflow_ui.py opens it.
"""

import base64
import contextlib
import hashlib
import json
import zlib
from typing import Any

from mlflow.exceptions import MlflowException

from tbptt.options.metrics import sign
from tbptt.options.option import GROUPS
from tbptt.runs.tracking import Store
from tbptt.studies.study import Study
from tbptt.system.mlflow_links import sorting

TAG = "mlflow.sharedViewState."
BESIDE = ("train/loss", "train/eval_loss")  # the losses that are drawn beside the objectives
GRADIENT = ("grad/norm_max", "grad/clipped_fraction", "schedule/chunks", "lr")
MOST_COLUMNS = 8  # searched keys in the table


def key_of(study: str) -> str:
    """The name of a study's view in an address."""
    return f"tbptt-{hashlib.sha256(study.encode()).hexdigest()[:12]}"


def kept(study: Study, store: Store) -> str | None:
    """Keep the view of a study with its experiment; returns its name in an address, None if the store does not take
    it now."""
    key = key_of(study.name)
    with contextlib.suppress(MlflowException, OSError):
        tags = store.client.get_experiment(store.experiment).tags
        text = _packed(_state(study))
        before = tags.get(TAG + key)
        if before is None or json.loads(before).get("state") != text:
            view = {"name": study.name, "createdAt": 0, "updatedAt": 0, "state": text}
            store.client.set_experiment_tag(store.experiment, TAG + key, json.dumps(view))
        return key
    return None


def remove(study: str, store: Store) -> None:
    """Remove the view of a study that is removed; one that the store does not give up is left."""
    with contextlib.suppress(MlflowException, OSError):
        store.client.delete_experiment_tag(store.experiment, TAG + key_of(study))


def _packed(state: dict[str, Any]) -> str:
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode(), 9)).decode()


def _state(study: Study) -> dict[str, Any]:
    first = study.objectives[0]
    losses = [name for name in study.objectives if not name.startswith("time/")]
    sections = {"losses": list(dict.fromkeys([*losses, *BESIDE])), "gradient and schedule": list(GRADIENT)}
    columns = [
        f"metrics.`best/{first}`",
        *(f"params.`{_param(key)}`" for key in list(study.record.space)[:MOST_COLUMNS]),
    ]
    return {
        **sorting(study.name, first, ascending=sign(first) == 1),
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "compareRunCharts": [
            _line(f"chart-{i}-{j}", f"section-{i}", metric)
            for i, metrics in enumerate(sections.values())
            for j, metric in enumerate(metrics)
        ],
        "compareRunSections": [
            {
                "uuid": f"section-{i}",
                "name": name,
                "display": True,
                "isReordered": True,
                "deleted": False,
                "isGenerated": False,
            }
            for i, name in enumerate(sections)
        ],
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _param(key: str) -> str:
    """The param of a searched key. That of a group is the name of its option."""
    return f"{key.replace('/', '.')}.name" if key in GROUPS else key


def _line(uuid: str, section: str, metric: str) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "type": "LINE",
        "runsCountToCompare": 10,
        "metricSectionId": section,
        "deleted": False,
        "isGenerated": False,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "selectedYAxisMetricKey": [metric],
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "lineSmoothness": 0,
        "range": {"xMin": None, "xMax": None, "yMin": None, "yMax": None},
    }
