"""What one PostgreSQL and one MLflow server bear: simulated workers make the storage calls of real ones, and train
nothing.

    python benchmarks/load.py [--workers N ...] [--seconds S] [--epochs N] [--pace SECONDS] [--sampler random|tpe]

For each number of workers (1, 8, 32), for ``--seconds`` (30): every worker claims trials of one study from a search
over the clip value, reports ``--epochs`` (20) epochs of each, asks whether to prune, and tells the end; and it opens an
MLflow run for each, sends 110 points an epoch in one call, a checkpoint of the article's size every tenth, and closes
it. Without pause, unless ``--pace`` says how long an epoch would train (2.3 s is the article's). Both servers are this
machine's own (tbptt.cli.servers), on loopback, started for this in a temporary folder; the workers share its cores with
them, so what is printed is the least that the servers can do.
"""

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from machine import machine

from tbptt.cli.servers import DATABASES, MLflow, PostgreSQL
from tbptt.config.schema import PrunerConfig, SamplerConfig, StartsRandom, TrackingConfig
from tbptt.runs.tracking import Store, is_outage
from tbptt.studies.space import Interval, Space
from tbptt.studies.study import Budget, Study

SPACE = Space((Interval("clip", "clip", (), 0.1, 10.0, True),))
POINTS = 110  # an epoch, as a run of 100 chunks sends
CHECKPOINT = 1_000_000  # bytes: the article's network with Adam's averages
FORK = multiprocessing.get_context("fork")


class Clock:
    """How often each kind of call was made, and the seconds that each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.failed: Counter[str] = Counter()  # not answered in time; a real run sends again

    def call(self, name: str, function: Any, *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments)
        except Exception as error:
            if not is_outage(error):
                raise
            self.failed[name] += 1
            return None
        finally:
            self.seconds.setdefault(name, []).append(time.perf_counter() - began)


def work(
    number: int, name: str, storage: str, uri: str, until: float, epochs: int, pace: float, sampler: str, results: Any
) -> None:
    """A worker, until its time is up."""
    clock, done = Clock(), 0
    study = Study(name, storage, ["val/loss"])
    store = Store(TrackingConfig(uri=uri, experiment=name, update_points=50), retry_seconds=60)
    pruner = PrunerConfig("none")
    kind = StartsRandom("tpe") if sampler == "tpe" else SamplerConfig("random")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "last.ckpt"
        checkpoint.write_bytes(os.urandom(CHECKPOINT))
        while time.time() < until:
            claimed = clock.call("claim", study.claim, SPACE, Budget(10**6, None, None, 1), kind, pruner, epochs, False)
            trial, point = claimed
            run = clock.call("open a run", store.start_run, f"{number}", {"trial.number": str(trial.number)})
            clock.call("params", run.log_params, {f"key{i}": i for i in range(60)})
            if run is None:
                continue
            for epoch in range(epochs):
                time.sleep(pace)
                if time.time() > until + 60:  # a server that does not keep up
                    break
                value = abs(point["clip"] - 1) + 1 / (epoch + 1)
                if epoch % 10 == 9:
                    clock.call("checkpoint", store.client.log_artifact, run.id, str(checkpoint), "checkpoints")
                points = [(f"metric{i % 10}", value + i, 11 * epoch + i // 10) for i in range(POINTS)]
                clock.call("points", run.log_points, points, int(time.time() * 1000))
                clock.call("report", trial.report, value, epoch)
                clock.call("prune?", trial.should_prune)
            clock.call("tell", study.optuna.tell, trial, value)
            clock.call("close a run", run.finish, "FINISHED")
            done += 1
    results.put((done, clock.seconds, clock.failed))


def size(server: PostgreSQL, database: str) -> int:
    import psycopg

    address = f"host=127.0.0.1 port={server.port} user=tbptt dbname={database} passfile={server.passwords}"
    with psycopg.connect(address) as connection:
        found = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return int(found[0]) if found else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--epochs", type=int, default=20, help="of a trial (20)")
    parser.add_argument("--pace", type=float, default=0, help="seconds that an epoch would take to train (0)")
    parser.add_argument("--sampler", choices=("random", "tpe"), default="random")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        server = PostgreSQL(Path(folder), 5441)
        server.start()
        os.environ |= server.environment
        tracking = MLflow(Path(folder), server.uri("mlflow"), server.environment, 5003)
        try:
            tracking.start()
            for workers in options.workers:
                measure(workers, server, tracking, options)
        finally:
            tracking.stop()
            server.stop()


def measure(workers: int, server: PostgreSQL, tracking: MLflow, options: argparse.Namespace) -> None:
    name, results = f"load-{workers}", FORK.Queue()
    storage = server.uri("optuna")
    Study(name, storage, ["val/loss"]).close()
    Store(TrackingConfig(uri=tracking.uri, experiment=name, update_points=50))
    before = {database: size(server, database) for database in DATABASES}
    began = time.time()
    arguments = (
        name,
        storage,
        tracking.uri,
        began + options.seconds,
        options.epochs,
        options.pace,
        options.sampler,
        results,
    )
    processes = [FORK.Process(target=work, args=(i, *arguments)) for i in range(workers)]
    for process in processes:
        process.start()
    answers = [results.get() for _ in processes]
    for process in processes:
        process.join()
    took = time.time() - began
    trials = sum(done for done, _, _ in answers)
    failed = sum((one for _, _, one in answers), Counter())
    calls: Counter[str] = Counter()
    seconds: dict[str, list[float]] = {}
    for _, one, _ in answers:
        for kind, values in one.items():
            calls[kind] += len(values)
            seconds.setdefault(kind, []).extend(values)
    print(f"\n{workers} workers: {trials} trials in {took:.0f} s, {3600 * trials / took:,.0f} an hour")
    print(f"  {sum(calls.values()) / took:,.0f} calls a second, {calls['points'] * POINTS / took:,.0f} points a second")
    for kind, values in seconds.items():
        high = sorted(values)[int(0.95 * (len(values) - 1))]
        line = f"  {kind:<12}{1000 * statistics.median(values):8.1f} ms, 95 % within {1000 * high:8.1f}"
        print(f"{line}   {sum(values) / sum(map(sum, seconds.values())):5.0%} of the waiting")
    print(f"  not answered in time: {dict(failed) or 'none'}")
    for database in DATABASES:
        grown = (size(server, database) - before[database]) / max(trials, 1)
        print(f"  database {database}: {1000 * grown / 2**20:,.0f} MB per 1,000 trials")


if __name__ == "__main__":
    sys.exit(main())
