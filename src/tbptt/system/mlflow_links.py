"""Addresses of pages in MLflow's UI.

The names in the query are those that the UI itself writes into its address (3.17). Without ``workflowType`` an
experiment opens on a page about language models.
"""

from typing import Any
from urllib.parse import quote, urlencode

from tbptt.system.secrets import hide

LOCAL = "http://127.0.0.1:5000"  # where `mlflow ui` listens
VIEW = {"workflowType": "machine_learning"}


def server_of(uri: str) -> str:
    """The address of the UI for a store: the server itself, or where ``mlflow ui`` shows a database."""
    return hide(uri.rstrip("/")) if uri.startswith("http") else LOCAL


def run_page(uri: str, experiment: str, run_id: str) -> str:
    """The page of one run."""
    return f"{server_of(uri)}/#/experiments/{experiment}/runs/{run_id}?{urlencode(VIEW)}"


def artifact_page(experiment: str, run_id: str, name: str) -> str:
    """The page that shows a file of a run, as a link from another page of the same UI."""
    return f"#/experiments/{experiment}/runs/{run_id}/artifacts/{quote(name)}?{urlencode(VIEW)}"


def sorting(study: str, objective: str, ascending: bool) -> dict[str, Any]:
    """What the UI calls a list of a study's runs, sorted by the objective at each run's best epoch.

    Args:
        ascending: whether the smallest value comes first.
    """
    return {"searchFilter": _is_of(study), "orderByKey": f"metrics.`best/{objective}`", "orderByAsc": ascending}


def study_page(uri: str, experiment: str, study: str, objective: str, ascending: bool, view: str | None = None) -> str:
    """The list of a study's runs beside their charts, sorted as :func:`sorting` says.

    Args:
        view: a view that the experiment keeps; None for MLflow's own order of charts.
    """
    sorted_by = sorting(study, objective, ascending) | {"orderByAsc": str(ascending).lower()}
    # A view has its own filter and order; where the address has them too, the UI leaves the view's charts out.
    query = {**({"viewStateShareKey": view} if view else sorted_by), "compareRunsMode": "CHART", **VIEW}
    return f"{server_of(uri)}/#/experiments/{experiment}/runs?{urlencode(query, quote_via=quote)}"


def _is_of(study: str) -> str:
    """MLflow's search for the runs of a study. In its texts nothing can be escaped, so ``_`` stands for a quote."""
    if "'" not in study:
        return f"tags.`study.name` = '{study}'"
    return "tags.`study.name` LIKE '" + study.replace("'", "_") + "'"
