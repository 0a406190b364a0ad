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
OF_MLFLOW, OF_OPTUNA = ("experiments", "runs"), ("studies", "trials")  # tables by which a database is recognised


# Three forms of a secret in a URI: user:password@ after :// (up to the last @ of the word, as a password may contain @
# and /; after :/ too, as pathlib drops one of two /), a token as the user of a server, a secret among the parameters.
_PASSWORD = re.compile(
    r"((?<=://)|(?<=:/)(?=[^/]))[^/@\s]*:\S*@|((?<=http://)|(?<=https://))[^/@\s]+@"
    r"|(?<=[?&#;])[\w.-]*(password|passwd|passphrase|pwd|token|secret|credential|signature|sig|auth|"
    r"(api|access)[_-]?key)=[^&\s'\"]*",
    re.IGNORECASE,
)


def without_password(text: str) -> str:
    """A text in which each password or token of a URI is replaced, so that it can be shown."""
    return _PASSWORD.sub("…@", text)


def sqlite_path(uri: str) -> Path | None:
    """The absolute path in a ``sqlite:///PATH`` URI, with every character taken literally; None for any other URI."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None


def absolute_uri(uri: str) -> str:
    """A SQLite URI with its path made absolute and quoted; a PostgreSQL URI with its driver; others unchanged.

    Unquoted, a ``?`` or ``#`` in the path would silently cut it short.
    """
    path = sqlite_path(uri)
    if path is None:  # psycopg is the PostgreSQL driver that this project installs
        return re.sub(r"^postgresql(?=://)", "postgresql+psycopg", uri)
    import sqlalchemy

    plain = f"{SQLITE}{path}"
    quoted = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    # For a sqlite:/// URI, MLflow makes the folder, but under the quoted name. With the driver named it makes none.
    return plain if quoted == plain else quoted.replace("sqlite:", "sqlite+pysqlite:", 1)


def uri_problem(uri: str, tables: Sequence[str] = OF_MLFLOW) -> str | None:
    """What is wrong with a store's URI, or None. Looks at the file and tries to write beside it, but leaves nothing.

    Args:
        tables: the tables that a SQLite database must have, if it has any: :data:`OF_MLFLOW` or :data:`OF_OPTUNA`.
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
    """What is wrong with a database that belongs to another program. None if it has these tables or no tables, or if it
    cannot be read just now."""
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
    """The names of a SQLite database's tables; empty if it cannot be read. Writes nothing."""
    if not path.is_file():
        return set()
    # Reading a database in WAL mode makes two files beside it, and ``immutable`` prevents that. If the two files are
    # there already, another process is writing to the database, and it must be read as it is.
    still = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    is_wal = _begins(path)[18:] == b"\2\2"
    uri = f"file:{quote(str(path))}?mode=ro{still if is_wal else ''}"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=0)) as database:
            rows = database.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    except sqlite3.Error:  # locked or damaged: opening the database later reports that
        return set()
    return {str(name) for (name,) in rows if not str(name).startswith("sqlite_")}


def _begins(path: Path) -> bytes:
    """The first 20 bytes of a file; fewer if it is shorter, none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(20)
    except OSError:
        return b""


def refuse_locked(path: Path, seconds: float) -> None:
    """Raise sqlite3.OperationalError if another process, a reader or a writer, keeps a SQLite file locked for so many
    seconds: a write could not be committed. Other errors are ignored here: the write itself will meet them."""
    uri = f"file:{quote(str(path))}?mode=rw"  # does not make the file
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
    """Hold an exclusive lock on a file; other processes wait. Makes the file if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_own(path, os.O_WRONLY), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
