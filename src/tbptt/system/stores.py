"""Where runs are kept: tracking URIs, made absolute, checked, and opened safely by several processes at once."""

import contextlib
import difflib
import fcntl
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from tbptt.system.files import open_own

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")
SERVERS = ("http", "https")
OF_MLFLOW, OF_OPTUNA = ("experiments", "runs"), ("studies", "trials")  # tables by which a database is known


# user:password@ behind :// (to the last @ of the word: a password may hold one, or a /; pathlib leaves one / of two), a
# token as the user of a server, or a secret among the parameters
_PASSWORD = re.compile(
    r"((?<=://)|(?<=:/)(?=[^/]))[^/@\s]*:\S*@|((?<=http://)|(?<=https://))[^/@\s]+@"
    r"|(?<=[?&#;])[\w.-]*(password|passwd|passphrase|pwd|token|secret|credential|signature|sig|auth|"
    r"(api|access)[_-]?key)=[^&\s'\"]*",
    re.IGNORECASE,
)


def without_password(text: str) -> str:
    """A text that may hold a URI, as it can be shown."""
    return _PASSWORD.sub("…@", text)


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a ``sqlite:///PATH`` URI, every character taken as it stands; None for another kind."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def absolute_uri(uri: str) -> str:
    """The URI with a SQLite path made absolute and quoted; others as they are.

    A ``?`` or ``#`` in the path would otherwise cut it short without a word.
    """
    path = sqlite_path(uri)
    if path is None:  # psycopg is the driver that this project installs
        return re.sub(r"^postgresql(?=://)", "postgresql+psycopg", uri)
    import sqlalchemy

    plain = f"{SQLITE}{path}"
    quoted = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    # MLflow makes the folder of a sqlite:/// URI, under its quoted name; one that names the driver it leaves alone.
    return plain if quoted == plain else quoted.replace("sqlite:", "sqlite+pysqlite:", 1)


def uri_problem(uri: str, tables: Sequence[str] = OF_MLFLOW) -> str | None:
    """What is wrong with a store's URI, or None. Looks, and tries to write, but leaves nothing.

    Args:
        tables: which a SQLite database has to have, if it has any: :data:`OF_MLFLOW` or :data:`OF_OPTUNA`.
    """
    scheme = uri.split(":", 1)[0].split("+")[0].lower()
    if without_password(uri) != uri:
        return (
            "got a password in the URI, where logs would show it; takes one without, and from the environment "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for an MLflow server, PGPASSWORD for PostgreSQL"
        )
    path = sqlite_path(uri)
    if path is not None:
        return _unwritable(path) or foreign(path, tables)
    if scheme not in (*DATABASES, *SERVERS) or "://" not in uri:
        near = difflib.get_close_matches(scheme, [*DATABASES, *SERVERS, "sqlite"], n=1)
        hint = f" (did you mean {near[0]}?)" if near and near[0] != scheme else ""
        return f"got {uri!r}; takes sqlite:///PATH, http(s)://HOST or a database URI ({', '.join(DATABASES)}){hint}"
    return None


def _unwritable(path: Path) -> str | None:
    if path.is_dir():
        return f"got {path}, a directory; takes the path of a database file"
    if (begins := _begins(path)) and begins[:16] != b"SQLite format 3\0":
        return f"got {path}, which is no SQLite database; takes one, or a path where there is nothing yet"
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        if path.is_file():
            with path.open("r+b"):
                pass
    except OSError as error:
        return f"got {path}, and {folder} cannot be written ({error.strerror}); takes a place that can"
    return None


def foreign(path: Path, tables: Sequence[str]) -> str | None:
    """What is wrong with a database that is somebody else's; None of one that has these tables, or none, or that cannot
    be looked at just now."""
    found = _tables(path)
    if not found or found.issuperset(tables):
        return None
    with contextlib.suppress(OSError), (path.parent / ".lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # another process may be making its tables
        found = _tables(path)
    if not found or found.issuperset(tables):
        return None
    some = ", ".join(repr(name[:40])[1:-1] for name in sorted(found)[:3]) + (", …" if len(found) > 3 else "")
    whose = "MLflow's" if tables == OF_MLFLOW else "Optuna's"
    advice = f"takes one of {whose}, or a path where there is nothing yet"
    return f"got {path}, a database of something else (tables {some}); {advice}"


def _tables(path: Path) -> set[str]:
    """The names of a SQLite database's tables, for which nothing is written; none where it cannot be read."""
    if not path.is_file():
        return set()
    # To read one in WAL mode would make two files beside it, unless it is being written and has them.
    still = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    is_wal = _begins(path)[18:] == b"\2\2"
    uri = f"file:{quote(str(path))}?mode=ro{still if is_wal else ''}"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    except sqlite3.Error:  # locked, or damaged: who opens it says so
        return set()
    return {str(name) for (name,) in rows if not str(name).startswith("sqlite_")}


def _begins(path: Path) -> bytes:
    """The first 20 bytes of a file; fewer where it has no more, none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(20)
    except OSError:
        return b""


def refuse_locked(path: Path, seconds: float) -> None:
    """Raise sqlite3.OperationalError where another process keeps a SQLite file locked for so long, to write or to read
    it: what is written could not be committed. Any other error is left to who writes."""
    uri = f"file:{quote(str(path))}?mode=rw"  # makes none
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=seconds, isolation_level=None)) as database:
            database.execute("BEGIN EXCLUSIVE")
            database.execute("ROLLBACK")
    except sqlite3.Error as error:
        if is_busy(error):
            raise


def is_busy(error: sqlite3.Error) -> bool:
    """Whether an error says that another process has a SQLite file locked."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is made if need be; others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_own(path, os.O_WRONLY), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
