"""PostgreSQL and an MLflow server on this machine's loopback, to try out the set-up of a cluster: ``make server``.

    python -m tbptt.cli.servers start|stop [FOLDER]

FOLDER (by default ``.server``) has everything: data, artifacts, logs, and a password that only its owner can read. If
others should use the servers too, see docs/scaling.md.
"""

import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tbptt.system.command import command
from tbptt.system.files import write_text
from tbptt.system.liveness import started_at

HOST = "127.0.0.1"
POSTGRESQL_PORT, MLFLOW_PORT = 5439, 5001
ROLE = "tbptt"
DATABASES = ("optuna", "mlflow")  # one for each program, as their tables would collide
ANSWER_SECONDS = 60.0


class ServerTrouble(Exception):
    """A server did not start. The message is one line that says why."""


class PostgreSQL:
    """A PostgreSQL server with its own data, by default on loopback only.

    Args:
        folder: where everything is kept; it is made if it does not exist.
        port, host: to listen on. With a host other than loopback, that host's whole network may connect, with the
            password.
    """

    def __init__(self, folder: Path, port: int = POSTGRESQL_PORT, host: str = HOST):
        self.folder, self.port, self.host = folder.absolute(), port, host
        self.data, self.passwords, self.log = self.folder / "data", self.folder / "pgpass", self.folder / "log"
        self.user = _other_user()

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that a client needs."""
        return {"PGPASSFILE": str(self.passwords)}

    def uri(self, database: str) -> str:
        return f"postgresql+psycopg://{ROLE}@{self.host}:{self.port}/{database}"

    def start(self) -> None:
        """Start the server and make its databases. Does nothing if it runs already. Raises ServerTrouble."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.passwords.exists():
            self._make()
        if self.runs():
            return
        where = f"-p {self.port} -c listen_addresses={self.host} -c unix_socket_directories="
        self._run("pg_ctl", "start", "-D", self.data, "-l", self.log, "-w", "-t", int(ANSWER_SECONDS), "-o", where)
        for database in DATABASES:
            self._make_database(database)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server. Does nothing if it does not run."""
        if self.runs():
            self._run("pg_ctl", "stop", "-D", self.data, "-m", mode, "-w")

    def runs(self) -> bool:
        return self.data.exists() and self._pg("pg_ctl", "status", "-D", self.data).returncode == 0

    def _make(self) -> None:
        password = secrets.token_urlsafe(24)
        file = self.folder / "password"
        for path, content in ((file, password), (self.passwords, f"{self.host}:{self.port}:*:{ROLE}:{password}\n")):
            path.touch(mode=0o600)
            path.write_text(content)
        self.data.mkdir(exist_ok=True, mode=0o700)
        self.log.touch()
        if self.user:
            for path in (file, self.data, self.log):
                shutil.chown(path, self.user)
        try:
            options = ["--auth=scram-sha-256", f"--username={ROLE}", "--encoding=UTF8", "--locale=C"]
            self._run("initdb", "-D", self.data, f"--pwfile={file}", *options)
            if self.host != HOST:
                with (self.data / "pg_hba.conf").open("a") as rules:
                    rules.write(f"host all {ROLE} samenet scram-sha-256\n")
        except ServerTrouble:
            shutil.rmtree(self.data)
            self.passwords.unlink()
            raise
        finally:
            file.unlink()

    def _make_database(self, name: str) -> None:
        import psycopg

        where: dict[str, Any] = {"host": self.host, "port": self.port, "user": ROLE, "dbname": "postgres"}
        try:
            with psycopg.connect(**where, passfile=str(self.passwords), autocommit=True) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                    connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
        except psycopg.Error as error:
            raise ServerTrouble(f"PostgreSQL: {' '.join(str(error).split())}; {self.log} says more") from error

    def _run(self, program: str, *arguments: object) -> None:
        done = self._pg(program, *arguments)
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())
            log = self.log.read_text().strip().splitlines()[-1:] if self.log.exists() else []
            raise ServerTrouble(f"{program}: {' '.join([said, *log])}")

    def _pg(self, program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """Run one of PostgreSQL's programs. PostgreSQL refuses to run as root, so root runs it as another user."""
        with (self.folder / f"{program}.out").open("w+") as out:  # a pipe would stay open as long as the server runs
            done = subprocess.run(
                [_program(program), *map(str, arguments)],
                stdout=out,
                stderr=subprocess.STDOUT,
                user=self.user,
                group=self.user and pwd.getpwnam(self.user).pw_gid,
                extra_groups=[] if self.user else None,
                cwd="/",
            )
            out.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), "")


class MLflow:
    """An MLflow tracking server, by default on loopback. It keeps runs in a database and artifacts in a folder; clients
    send artifacts through the server.

    Args:
        folder: has the artifacts, the log and the server's process number.
        database: the URI of the server's own database.
        environment: the environment variables that the server needs to reach its database.
        port, host: to listen on.
    """

    def __init__(
        self, folder: Path, database: str, environment: dict[str, str], port: int = MLFLOW_PORT, host: str = HOST
    ):
        self.folder, self.database, self.environment = folder.absolute(), database, environment
        self.port, self.host = port, host
        self.log, self._pid = self.folder / "mlflow.log", self.folder / "mlflow.pid"
        self._process: subprocess.Popen[bytes] | None = None  # set if this process started the server

    @property
    def uri(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it answers. Does nothing if it answers already. Raises ServerTrouble."""
        if self.answers():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            self.host,
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        command += ["--allowed-hosts", f"{self.host}:{self.port}"] if self.host != HOST else []
        command += ["--backend-store-uri", self.database, "--artifacts-destination", str(self.folder / "artifacts")]
        env = {**os.environ, **self.environment, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self.log.open("ab") as out:
            self._process = process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, env=env
            )
        write_text(self._pid, f"{process.pid} {started_at(process.pid)}")
        until = time.monotonic() + ANSWER_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > until:
                self.stop()
                last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
                raise ServerTrouble(f"mlflow server: {' '.join(last) or 'no answer'}; {self.log} says more")
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop the server and all of its processes. Does nothing if it does not run."""
        if not self._pid.exists():
            return
        number, began = self._pid.read_text().split()
        group = int(number)
        if started_at(group) != began:  # the server has ended, and another process may have its number
            self._pid.unlink()
            return
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + 10
        while self._listens() and time.monotonic() < until:
            time.sleep(0.1)
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        if self._process:
            self._process.wait()
        self._pid.unlink()

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((self.host, self.port)) == 0


def _program(name: str) -> str:
    """The path of one of PostgreSQL's server programs; Debian does not put them on the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which(name, path=os.pathsep.join([str(places[-1])] if places else []) or None)
    if found is None:
        raise ServerTrouble(f"{name} is missing: install PostgreSQL's server (Debian: apt-get install postgresql)")
    return found


def _other_user() -> str | None:
    """The user to run PostgreSQL as if this process runs as root; else None."""
    if os.geteuid():
        return None
    names = {user.pw_name for user in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def start(folder: Path) -> None:
    """Start both servers, and print where they listen and how to use them."""
    database = PostgreSQL(folder)
    was_there = database.runs()
    tracking = MLflow(folder, database.uri("mlflow"), database.environment)
    try:
        database.start()
        tracking.start()
    except BaseException:  # leave no server running that the user does not know of
        if not was_there:
            database.stop()
        raise
    print(f"PostgreSQL  {HOST}:{database.port}")
    print(f"MLflow      {tracking.uri}")
    how = command("servers")
    how = "make server-stop" if how.endswith(".py") else f"{how} stop"
    print(f"\nUse them, from as many terminals as you like, and stop them with `{how}`:\n")
    for name, value in database.environment.items():
        print(f"  export {name}={shlex.quote(value)}")
    print(f"  {command('train')} -m optimizer=adam,rmsprop clip=0.5,1,2 cluster=server")


def stop(folder: Path) -> None:
    """Stop both servers. Their data stays."""
    database = PostgreSQL(folder)
    MLflow(folder, database.uri("mlflow"), {}).stop()
    database.stop()


def main(arguments: Sequence[str], conf: Path | None = None) -> int:
    """Run ``tbptt servers start|stop [FOLDER]`` and return its exit status. There is nothing in ``conf`` for it."""
    actions: dict[str, Any] = {"start": start, "stop": stop}
    how = command("servers")
    usage = f"usage: {'python -m tbptt.cli.servers' if how.endswith('.py') else how} start|stop [FOLDER]"
    if {"--help", "-h"} & set(arguments):
        print(usage)
        return 0
    if not arguments or arguments[0] not in actions or len(arguments) > 2:
        print(usage, file=sys.stderr)
        return 2
    try:
        actions[arguments[0]](Path(arguments[1] if len(arguments) > 1 else ".server"))
    except ServerTrouble as trouble:
        print(trouble, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
