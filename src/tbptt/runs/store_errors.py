"""The meaning of MLflow's errors about a store: it is away, locked, or of another version."""

import contextlib
import shlex
import sqlite3
from collections.abc import Iterator

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from tbptt.config.compose import CommandError
from tbptt.system.stores import absolute_uri, is_busy, sqlite_path, without_password
from tbptt.system.trouble import causes


def is_locked(error: BaseException) -> bool:
    """Whether an error says that another process has locked a SQLite file on this machine, not behind a server."""
    return any(is_busy(each) for each in causes(error) if isinstance(each, sqlite3.Error))


def still_locked(uri: str) -> ConnectionError:
    """The error to raise if a store has been locked for too long."""
    return ConnectionError(f"tracking.uri: {sqlite_path(uri)} is locked by another process, for more than a minute")


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the server was away or in trouble itself: the same call may then work later."""
    if is_locked(error):  # a file on this machine
        return False
    for each in causes(error):
        if isinstance(each, requests.RequestException):
            return True
        if isinstance(each, MlflowException):
            # The last two: more clients than MLflow has database connections; two clients set one tag at one moment.
            signs = ("failed with exception", "failed with error code 5", "QueuePool limit", "duplicate key value")
            return any(sign in str(each) for sign in signs) or each.error_code in (
                "INTERNAL_ERROR",
                "TEMPORARILY_UNAVAILABLE",
            )
    return False


@contextlib.contextmanager
def said_shortly(uri: str) -> Iterator[None]:
    """A context that turns an error of the store into one line, with MLflow's own reason if it gave one."""
    try:
        yield
    except (MlflowException, sqlite3.Error, SQLAlchemyError) as error:
        if is_locked(error):
            raise still_locked(uri) from error
        message = error.message if isinstance(error, MlflowException) else error
        reason = without_password(" ".join(str(message).split())).split(" [SQL:")[0]
        if "database schema" in reason:  # of an older or a newer MLflow; it says itself what to do about an older one
            reason = reason.split(" NOTE:")[0].replace("<database_uri>", shlex.quote(absolute_uri(uri)))
            newer = "one of a newer MLflow takes that MLflow, or another tracking.uri"
            raise CommandError([f"tracking.uri: got {uri}; {reason.removesuffix('.')}; {newer}"]) from error
        is_away = sqlite_path(uri) is None and is_outage(error)
        said = "does not answer" if is_away else f"cannot be used: {reason}"
        raise ConnectionError(f"tracking.uri: {without_password(uri)} {said}") from error


def how_to_restore(uri: str, run_id: str) -> str:
    """The shell command that brings a deleted run back."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(absolute_uri(uri))} mlflow runs restore --run-id {run_id}"
