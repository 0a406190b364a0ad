"""A study's storage on a PostgreSQL server. Calls are repeated while the server is away; the server itself holds the
locks."""

import contextlib
import hashlib
import logging
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from tbptt import compat
from tbptt.system.retry import retry
from tbptt.system.runtime import LeaseLost
from tbptt.system.stores import absolute_uri, without_password
from tbptt.system.trouble import causes

log = logging.getLogger("tbptt")
logging.getLogger(compat.OPTUNA_STORAGE_LOG).setLevel(logging.ERROR)

RETRY_SECONDS = 600.0  # how long a worker tries to reach its database, until it gives up
# A cut network is noticed within half a minute on both sides; libpq's own waits are hours.
_SECONDS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15000,
    # A lock's transaction ends with its holder, even one that hangs. In UTC, heartbeats have no summer time.
    "options": f"{_SECONDS} -c idle_in_transaction_session_timeout=600000 -c timezone=UTC",
}
T = TypeVar("T")


def is_outage(error: BaseException | None) -> bool:
    """Whether an error says that the server was away, rather than that something was wrong."""
    # PendingRollbackError: Optuna goes on with a session that has just lost its connection.
    away = (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError, sqlalchemy.exc.PendingRollbackError)
    return any(
        isinstance(each, away) or (isinstance(each, sqlalchemy.exc.DBAPIError) and each.connection_invalidated)
        for each in causes(error)
    )


class ServerStorage(RDBStorage):
    """Optuna's storage on a server. Its calls wait up to ``RETRY_SECONDS`` while the server is away.

    The call that makes a trial is not repeated: if only its answer was lost, the trial exists. Code that makes trials
    therefore runs under :meth:`locked`, within which no call is repeated. It starts over as a whole (:meth:`retry`).

    Args:
        heartbeat: seconds between two heartbeats of a worker. A worker that was silent for four times as long is dead.

    Attributes:
        check: called while waiting; may raise to stop.
    """

    def __init__(self, uri: str, heartbeat: int):
        self.check: Callable[[], None] = lambda: None
        self._here = threading.local()
        self._warned = False
        url = absolute_uri(uri)
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args=POSTGRESQL)
        settings = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 3, "connect_args": POSTGRESQL}
        with warnings.catch_warnings(), _said_shortly(uri), _held(engine, "tbptt tables"):
            warnings.simplefilter("ignore")  # the heartbeat is "experimental"
            super().__init__(url, settings, heartbeat_interval=heartbeat, grace_period=4 * heartbeat)

    def retry(self, call: Callable[[], T]) -> T:
        """The result of ``call``, once the server answers. Raises the outage after too long, and any other error at
        once."""
        if getattr(self._here, "fails_at_once", False):
            return call()
        found = retry(call, is_outage, RETRY_SECONDS, self.check, before_wait=self._warn)
        if self._warned:
            log.warning("the study's database answers again")
        self._warned = False
        return found

    def _warn(self, error: BaseException) -> None:
        if not self._warned:
            log.warning("the study's database does not answer; waiting up to %.0f minutes", RETRY_SECONDS / 60)
        self._warned = True

    @contextlib.contextmanager
    def without_retry(self) -> Iterator[None]:
        """Within this context, this thread does not wait: an outage is an error."""
        before = getattr(self._here, "fails_at_once", False)
        self._here.fails_at_once = True
        try:
            yield
        finally:
            self._here.fails_at_once = before

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the study's lock. Other processes wait, on any machine. The lock ends with the connection of its
        holder."""
        with self.without_retry(), _held(self.engine, f"tbptt {name}"):
            yield

    def beat(self, trial_id: int) -> None:
        """Record, by the server's clock, that a trial's worker is alive. Raises if the server is away."""
        with self.without_retry():
            self.record_heartbeat(trial_id)

    def stale(self, study_id: int) -> set[int]:
        """Trials whose worker was silent for too long, by the server's clock."""
        return compat.stale_trials(self, study_id)

    def silence(self, study_id: int) -> float | None:
        """Seconds since a worker of the study's running trials was last heard, by the server's clock; None if none
        was."""
        return self.retry(lambda: compat.last_heartbeat(self.engine, study_id))


class Heartbeat:
    """While entered, a thread records every few seconds that a trial's worker is alive. This keeps the worker's
    lease."""

    def __init__(self, storage: ServerStorage, trial_id: int):
        self.storage, self.trial_id = storage, trial_id
        self.every = storage.get_heartbeat_interval() or 1
        self._end = threading.Event()
        self._last = time.monotonic()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def check_lease(self) -> None:
        """Raise LeaseLost if no heartbeat arrived for so long that others will soon take the worker for dead."""
        if time.monotonic() - self._last > 3 * self.every:
            raise LeaseLost

    def _beat(self) -> None:
        while not self._end.wait(self.every):
            began = time.monotonic()
            try:
                self.storage.beat(self.trial_id)
                with self.storage.without_retry():
                    if self.storage.get_trial(self.trial_id).state != TrialState.RUNNING:  # others took it for dead
                        began = -math.inf
            except Exception as error:
                if not is_outage(error):
                    raise
            else:
                self._last = began
                if began == -math.inf:
                    return

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()


def _retried(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    def call(self: ServerStorage, *arguments: Any, **settings: Any) -> Any:
        return self.retry(lambda: method(self, *arguments, **settings))

    return call


for _name in compat.storage_calls():
    if _name not in ("create_new_trial", "create_new_study"):
        setattr(ServerStorage, _name, _retried(_name))


@contextlib.contextmanager
def _held(engine: sqlalchemy.Engine, name: str) -> Iterator[None]:
    """Hold PostgreSQL's advisory lock of a name, in a transaction."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
    with engine.connect() as connection, connection.begin():
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
        yield


@contextlib.contextmanager
def _said_shortly(uri: str) -> Iterator[None]:
    """Turn an outage at the start into an error of one line."""
    try:
        yield
    except Exception as error:
        if not is_outage(error):
            raise
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        what = "does not let this user in" if "password" in reason or "authentication" in reason else "does not answer"
        raise ConnectionError(f"study.storage: {uri} {what}: {without_password(reason)}") from error
