"""The stores of the tests are those that MLflow makes by itself."""

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy
import tables
from mlflow.store.db import utils


def content(path: Path) -> list[list[str]]:
    """Statements, of lines in an order of their own: the constraints of a table come in any."""
    with closing(sqlite3.connect(path)) as database:
        return sorted(sorted(line.strip(" \t,;") for line in text.splitlines()) for text in database.iterdump())


def test_the_tables_at_once_are_those_of_the_migrations(tmp_path: Path) -> None:
    assert utils._initialize_tables is tables._initialize
    for name, make in (("slow.db", tables.migrate), ("quick.db", utils._initialize_tables)):
        engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / name}")
        make(engine)
        engine.dispose()
    assert content(tmp_path / "quick.db") == content(tmp_path / "slow.db")
    assert len(content(tmp_path / "quick.db")) > 100
