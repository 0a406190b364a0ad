"""Several writes to a study's SQLite file as one transaction: each by itself waits for the disk three or four times."""

from collections.abc import Iterator
from contextlib import contextmanager

from optuna.storages import RDBStorage

from tbptt.studies.postgres import ServerStorage
from tbptt.system.trouble import first_error

JOINED = "tbptt.together"


@contextmanager
def together(storage: RDBStorage) -> Iterator[None]:
    """A context in which all that this thread does with a study's SQLite file is one transaction: the file gets all of
    it at the end or, after an error, nothing. Each of Optuna's own transactions is a savepoint in it. Within another
    such context, it is part of that one.

    Others who write wait meanwhile, so nothing slow belongs into it. What is sent to a server goes one by one, as each
    call is retried by itself.
    """
    sessions = storage.scoped_session  # each thread has its own
    if isinstance(storage, ServerStorage) or (sessions.registry.has() and JOINED in sessions().info):
        yield
        return
    with first_error(), storage.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        sessions.remove()
        sessions(bind=connection, join_transaction_mode="create_savepoint", info={JOINED: True})
        try:
            yield
            connection.commit()
        finally:
            sessions.remove()
