"""MLflow's tables in the tests' stores: its migrations are made once, and what they left is put into each empty SQLite
database. They take a second each time, and a small run a fifth of that. Commands that are not forked make their own.
"""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import sqlalchemy
from conftest import TABLES
from mlflow.store.db import utils

migrate = utils._initialize_tables


def use() -> None:
    """From now on this process makes them so."""
    utils._initialize_tables = _initialize  # type: ignore[attr-defined]


def _initialize(engine: sqlalchemy.Engine) -> None:
    if TABLES not in os.environ or engine.dialect.name != "sqlite" or sqlalchemy.inspect(engine).get_table_names():
        migrate(engine)
        return
    kept = Path(os.environ[TABLES], "tables.sql")
    if not kept.exists():
        _make(kept)
    with engine.connect() as connection:
        for statement in kept.read_text().split(";\n\n"):
            connection.exec_driver_sql(statement)


def _make(kept: Path) -> None:
    with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
        engine = sqlalchemy.create_engine(f"sqlite:///{folder}/made.db")
        migrate(engine)
        engine.dispose()
        with closing(sqlite3.connect(f"{folder}/made.db")) as database:
            Path(folder, "tables.sql").write_text(";\n\n".join(line.removesuffix(";") for line in database.iterdump()))
        Path(folder, "tables.sql").replace(kept)
