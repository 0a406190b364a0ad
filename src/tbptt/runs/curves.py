"""The curves of many runs from their store at once.

MLflow's client asks once for each run and metric: 13,000 times for 1,000 runs. Here a database gets one query for 500
runs. A server is asked for 100 runs at a time, by several threads, within a time limit.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import pandas as pd
import sqlalchemy
from mlflow.entities import ViewType
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun

from tbptt import compat
from tbptt.runs.tracking import Store

BY_UPDATE = ("train/chunk_loss", "grad/norm")
NO_CURVES = ("best/", "test/", "baseline/", "system/")  # one value a run, or of the machine and by the clock
OF_A_RUN = ("seed", "data.fold")  # params that tell the runs of a trial apart
IN_ONE_QUERY, IN_ONE_CALL, AT_ONCE = 500, 100, 8  # runs; runs; calls

Row = tuple[str, str, int, float, int]  # run, metric, step, value, milliseconds


@dataclass(frozen=True)
class Found:
    """What a store has of some runs.

    Attributes:
        points: a row for each point: ``run``, ``metric``, ``step``, ``value``. A step that was trained again after a
            crash has its newest value.
        params: of each run, those of OF_A_RUN.
        missing: runs whose curves did not come.
    """

    points: pd.DataFrame
    params: dict[str, dict[str, str]]
    missing: list[str]


def is_curve(metric: str) -> bool:
    """Whether a metric has a value for each epoch."""
    return metric not in BY_UPDATE and not metric.startswith(NO_CURVES)


def curves_of(
    store: Store, runs: Sequence[str], metrics: Sequence[str] | None = None, seconds: float | None = None
) -> Found:
    """Read the curves of runs.

    Args:
        metrics: their names; None for all that are measured by epoch.
        seconds: how long to wait for a server; None for as long as it takes. A database is not limited.
    """
    runs = list(dict.fromkeys(runs))
    rows: list[Row] = []
    params: dict[str, dict[str, str]] = {run: {} for run in runs}
    missing: list[str] = []
    if store.uri.startswith("http"):
        missing = _from_server(store, runs, metrics, rows, params, seconds)
    else:
        missing = store.retry(lambda: _from_database(store.uri, runs, metrics, rows, params))
    points = pd.DataFrame(rows, columns=["run", "metric", "step", "value", "time"])
    points = points.astype({"step": "int64", "value": "float64", "time": "int64"})
    for name, known in (("run", runs), ("metric", list(dict.fromkeys(row[1] for row in rows)))):
        points[name] = pd.Categorical(points[name], categories=known)
    points = points.sort_values("time", kind="stable").drop_duplicates(["run", "metric", "step"], keep="last")
    return Found(points.drop(columns="time"), params, missing)


def _parts(runs: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (runs[i : i + size] for i in range(0, len(runs), size))


# --- a database -----------------------------------------------------------------------------------------------------


def _from_database(
    uri: str,
    runs: Sequence[str],
    metrics: Sequence[str] | None,
    rows: list[Row],
    params: dict[str, dict[str, str]],
) -> list[str]:
    """Fill ``rows`` and ``params``. Returns the runs that are not there."""
    rows.clear()
    there: set[str] = set()
    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    table, param = SqlMetric.__table__.c, SqlParam.__table__.c
    columns = (table.run_uuid, table.key, table.step, table.value, table.timestamp, table.is_nan)
    try:
        with engine.connect() as connection:
            for some in _parts(runs, IN_ONE_QUERY):
                known = sqlalchemy.select(SqlRun.__table__.c.run_uuid).where(SqlRun.__table__.c.run_uuid.in_(some))
                there.update(run for (run,) in connection.execute(known))
                names = metrics or _names_in(connection, some)
                wanted = sqlalchemy.select(*columns).where(table.run_uuid.in_(some), table.key.in_(names))
                for run, name, step, value, when, is_nan in connection.execute(wanted):
                    rows.append((run, name, step, float("nan") if is_nan else value, when))
                of_run = sqlalchemy.select(param.run_uuid, param.key, param.value)
                of_run = of_run.where(param.run_uuid.in_(some), param.key.in_(OF_A_RUN))
                for run, name, value in connection.execute(of_run):
                    params[run][name] = value
    finally:
        engine.dispose()
    return [run for run in runs if run not in there]


def names_of(store: Store, runs: Sequence[str]) -> list[str]:
    """The metrics that runs have curves of, in a database; empty for a server, which would be asked for each run."""
    if store.uri.startswith("http"):
        return []
    engine = sqlalchemy.create_engine(store.uri, poolclass=sqlalchemy.NullPool)
    try:
        with engine.connect() as connection:
            found = [name for some in _parts(runs, IN_ONE_QUERY) for name in _names_in(connection, some, True)]
    finally:
        engine.dispose()
    return sorted(set(found))


def _names_in(connection: sqlalchemy.Connection, runs: Sequence[str], by_update: bool = False) -> list[str]:
    """The metrics by epoch that some runs have. With their names, the query below uses an index that leaves the points
    of each update alone, of which there are seven times as many."""
    table = SqlLatestMetric.__table__.c
    found = connection.execute(sqlalchemy.select(table.key).distinct().where(table.run_uuid.in_(runs)))
    return [name for (name,) in found if is_curve(name) or (by_update and name in BY_UPDATE)]


# --- a server -------------------------------------------------------------------------------------------------------


def _from_server(
    store: Store,
    runs: Sequence[str],
    metrics: Sequence[str] | None,
    rows: list[Row],
    params: dict[str, dict[str, str]],
    seconds: float | None,
) -> list[str]:
    """Fill ``rows`` and ``params``. Returns the runs that did not come."""
    waiting: SimpleQueue[Sequence[str]] = SimpleQueue()
    for some in _parts(runs, IN_ONE_CALL):
        waiting.put(some)
    came: list[tuple[Sequence[str], list[Row], dict[str, dict[str, str]]]] = []
    over = Event()

    def fetch() -> None:
        with suppress(Exception):  # an error of the server
            experiments = [e.experiment_id for e in store.client.search_experiments(view_type=ViewType.ALL)]
            while not over.is_set():
                some = waiting.get_nowait()
                came.append((some, *_fetched(store, experiments, some, metrics)))

    end = None if seconds is None else time.monotonic() + seconds
    threads = [Thread(target=fetch, daemon=True) for _ in range(min(AT_ONCE, waiting.qsize()))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(None if end is None else max(0.0, end - time.monotonic()))
    over.set()
    there: set[str] = set()
    for some, points, its_params in list(came):
        rows += points
        params |= its_params
        there |= set(some)
    return [run for run in runs if run not in there]


def _fetched(
    store: Store, experiments: Sequence[str], runs: Sequence[str], metrics: Sequence[str] | None
) -> tuple[list[Row], dict[str, dict[str, str]]]:
    quoted = ", ".join(f"'{run}'" for run in runs)
    found = store.client.search_runs(
        list(experiments), f"attributes.run_id IN ({quoted})", run_view_type=ViewType.ALL, max_results=len(runs)
    )
    params = {r.info.run_id: {name: r.data.params[name] for name in OF_A_RUN if name in r.data.params} for r in found}
    names = metrics or [n for n in dict.fromkeys(n for r in found for n in r.data.metrics) if is_curve(n)]
    return [row for name in names for row in _of_metric(store.uri, list(params), name)], params


def _of_metric(uri: str, runs: Sequence[str], metric: str) -> Iterable[Row]:
    """The points of a metric. A full answer may have been cut short: then half as many runs are asked for."""
    found: list[dict[str, Any]] = compat.points_in_bulk(uri, runs, metric) if runs else []
    if len(found) >= compat.MOST_IN_BULK and len(runs) > 1:
        ask, half = partial(_of_metric, uri, metric=metric), len(runs) // 2
        return [*ask(runs[:half]), *ask(runs[half:])]
    return [(p["run_id"], metric, int(p["step"]), float(p["value"]), int(p["timestamp"])) for p in found]
