"""Where runs are kept: tracking URIs, made absolute, checked, and opened safely by several processes at once."""

import contextlib
import difflib
import fcntl
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")
SERVERS = ("http", "https")


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


def uri_problem(uri: str) -> str | None:
    """What is wrong with a store's URI, or None. Looks, and tries to write, but leaves nothing."""
    scheme = uri.split(":", 1)[0].split("+")[0].lower()
    if without_password(uri) != uri:
        return (
            "got a password in the URI, where logs would show it; takes one without, and from the environment "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for an MLflow server, PGPASSWORD for PostgreSQL"
        )
    path = sqlite_path(uri)
    if path is not None:
        return _unwritable(path)
    if scheme not in (*DATABASES, *SERVERS) or "://" not in uri:
        near = difflib.get_close_matches(scheme, [*DATABASES, *SERVERS, "sqlite"], n=1)
        hint = f" (did you mean {near[0]}?)" if near and near[0] != scheme else ""
        return f"got {uri!r}; takes sqlite:///PATH, http(s)://HOST or a database URI ({', '.join(DATABASES)}){hint}"
    return None


def _unwritable(path: Path) -> str | None:
    if path.is_dir():
        return f"got {path}, a directory; takes the path of a database file"
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
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


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is made if need be; others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
