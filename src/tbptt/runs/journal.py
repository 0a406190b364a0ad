"""Sends a run's curves to MLflow: they are written to a journal on this machine first, then sent to the store.

Training waits neither for a server nor for a file that another process has locked. Points that could not be sent stay
in the journal, ``pending/RUN/curves.jsonl`` beside the store. They are sent when the store takes them, or when the next
run starts. A store drops points that it has already, so it is safe to send them again.
"""

import contextlib
import json
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tbptt.evaluation.results import Judged
from tbptt.runs import checkpoint, description, judging, system_metrics
from tbptt.runs.epoch import Epoch
from tbptt.runs.model import log_model
from tbptt.runs.pending import (
    CLAIM,
    JOURNAL,
    OF_ITS_OWN,
    OUTCOME,
    OWNER,
    RunTaken,
    claim_run,
    claimed,
    pending_folder,
    this_owner,
)
from tbptt.runs.points import best_points, grouped, log_epochs
from tbptt.runs.store_errors import is_locked, is_outage, still_locked
from tbptt.runs.tracking import LOCKED, Run, Store
from tbptt.system.claims import release
from tbptt.system.files import open_own, replaced, write_json, write_text
from tbptt.system.retry import retry
from tbptt.system.secrets import hide
from tbptt.system.stores import refuse_locked, without_password
from tbptt.system.trouble import disk_trouble

log = logging.getLogger("tbptt")

COLUMNS = ("update", "epoch", "chunks", "loss", "grad_norm", "clipped")
LONGEST_WAIT = 30.0  # seconds between two tries to reach a server
LAST_TRY = 10.0  # seconds that the end of a run waits for a server
HELD_BY_OTHERS = 120.0  # seconds to wait for another process that delivers what a run left behind
CHECKPOINTS_EVERY = 5.0  # seconds between two checkpoints sent to a server
SHORT_LOCK = 0.5  # seconds that training waits for others who write to a store on this machine; MLflow waits 20
AFTER_A_LOCK = 5.0  # seconds until training tries again
SEND_EVERY = 1.0  # seconds between two times that such a store gets points: shorter epochs go in together
LONGEST_SEND = 1.0  # seconds of sending to such a store in one go: after a long lock, Ctrl-C must not wait for it all


def hold(store: Store, run_id: str, ends: contextlib.ExitStack, check: Callable[[], None]) -> None:
    """Claim a run for this process alone until ``ends`` ends.

    If another process is delivering what the run left behind, this waits for it. Raises RunTaken if another process
    keeps the run. For a run on a server, the store decides who may resume it.
    """
    folder = pending_folder(store.folder, run_id)
    ends.callback(release, folder / CLAIM)
    if store.is_local:
        claim_run(folder, HELD_BY_OTHERS, check)
    else:
        with contextlib.suppress(RunTaken):
            claim_run(folder)


class Outbox:
    """The journal of one run, and its sender. This process must hold the run (:func:`hold`).

    Args:
        update_points: the most updates per epoch to send to MLflow; ``updates.parquet`` has all updates.
    """

    def __init__(self, run: Run, update_points: int):
        self.run, self.update_points = run, update_points
        self.folder = pending_folder(run.store.folder, run.id)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / OUTCOME).unlink(missing_ok=True)
        write_json(self.folder / OWNER, this_owner())
        if not run.is_local:
            run.take_over()
        self.journal = self.folder / JOURNAL
        self._epochs = read_journal(self.journal)
        self._sent = self._system_sent = 0
        self._wake, self._end = threading.Event(), threading.Event()
        self._closing = False
        self._warned = False
        self._locked_since: float | None = None
        self._next_try = time.monotonic() + SEND_EVERY
        self._thread = None if run.store.is_local else threading.Thread(target=self._send_always, daemon=True)
        if self._thread:
            self._thread.start()

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs in the journal."""
        return list(self._epochs)

    def agree_with(self, last: Epoch | None, before: Sequence[Epoch] = ()) -> None:
        """Make the journal agree with the last checkpoint.

        Epochs after the checkpoint's are dropped, as they will be trained again. After a crash between checkpoint and
        journal, the checkpoint's epoch is added.

        Args:
            last: the checkpoint's epoch.
            before: the epochs up to ``last``, if another machine may have trained some of them.
        """
        self._epochs = [e for e in before or self._epochs if last is not None and e.number <= last.number]
        if last is not None and not any(e.number == last.number for e in self._epochs):
            self._epochs.append(last)
        write_text(self.journal, "".join(map(_line, self._epochs)))

    def add(self, epoch: Epoch) -> None:
        """Write an epoch down; :meth:`send` passes it on."""
        with os.fdopen(open_own(self.journal, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(_line(epoch))
        self._epochs.append(epoch)

    def send(self) -> None:
        """Send new epochs: to a server by the thread; to a store on this machine now, or with one of the next where
        epochs are short."""
        if self._thread:
            self._wake.set()
        elif time.monotonic() >= self._next_try:
            try:
                self._send_new()
                self._next_try = time.monotonic() + SEND_EVERY
            except Exception as error:
                self._keep(error)

    def abandon(self) -> None:
        """Send nothing more, as another worker may have the run. A later start sends or drops the journal here."""
        self._stop()
        release(self.folder / CLAIM)

    def close(self, status: str, reason: str | None, quiet: bool = False) -> None:
        """Send the rest, write ``updates.parquet`` and set the run's status, now or at the next start.

        Raises nothing; with ``quiet`` it logs nothing either.
        """
        self._stop()
        if self._thread:
            self._thread.join(LAST_TRY)
        try:
            write_updates(self._epochs, self.run.folder / "updates.parquet")
            write_json(self.folder / OUTCOME, {"status": status, "reason": reason})
            self._deliver()
            if self._warned:
                log.warning("run %s: the store takes its curves again; nothing is missing", self.run.id)
        except Exception as error:
            if quiet:
                return
            log.warning(
                "run %s: its end is not in the store yet (%s); it is kept in %s and sent when the next run starts",
                self.run.id,
                _first_line(error),
                self.folder,
            )
        finally:
            release(self.folder / CLAIM)

    def _deliver(self) -> None:
        def once() -> None:
            deliver(self.run, self.folder, self._epochs[self._sent :], self.update_points, self._system_sent)

        store = self.run.store
        store.retry(once) if store.is_local else once()  # a server's thread has waited

    def _stop(self) -> None:
        self._closing = True
        self._end.set()
        self._wake.set()

    def _send_new(self) -> None:
        """Send what the store does not have yet. Raises any error that keeps the store from taking it."""
        began = time.monotonic()
        ready = self._epochs[self._sent :]
        if ready and not self.run.is_local:
            # Checkpoints go first: another machine would train, and send, points without a checkpoint again.
            self.run.send_checkpoints()
        if ready and self.run.store.path:
            refuse_locked(self.run.store.path, SHORT_LOCK)
        for group in grouped(ready, self.update_points):
            if self._closing:
                return
            log_epochs(self.run, group, self.update_points)
            self._sent += len(group)
            if self.run.store.path and time.monotonic() - began > LONGEST_SEND:
                break
        self._system_sent = system_metrics.send(self.run, self.folder, self._system_sent)
        self._locked_since = None
        if self._warned:
            log.warning("run %s: the store takes its curves again; nothing is missing", self.run.id)
        self._warned = False

    def _keep(self, error: BaseException) -> None:
        """Log that new points stay in the journal for now; training goes on."""
        if self.run.store.is_local and (trouble := disk_trouble(error)):
            raise trouble from error  # the next checkpoint would meet the same trouble
        if self._warned or self._is_lock_that_may_pass(error):
            return
        why = _first_line(still_locked(self.run.store.tracking.uri) if is_locked(error) else error)
        log.warning("run %s: the store does not take its curves (%s); they are kept", self.run.id, why)
        self._warned = True

    def _is_lock_that_may_pass(self, error: BaseException) -> bool:
        """Whether an error is a lock on a store here, and too recent to be worth a message."""
        if not is_locked(error):
            return False
        now = time.monotonic()
        self._next_try = now + AFTER_A_LOCK
        self._locked_since = now if self._locked_since is None else self._locked_since
        return now - self._locked_since < LOCKED

    def _check_open(self) -> None:
        if self._closing:
            raise _Closing

    def _send_always(self) -> None:
        with contextlib.suppress(_Closing):
            while not self._closing:
                self._wake.wait()
                self._wake.clear()
                retry(
                    self._send_new,
                    lambda error: True,
                    math.inf,
                    self._check_open,
                    first_wait=1.0,
                    longest_wait=LONGEST_WAIT,
                    before_wait=self._keep,
                )
                if not self.run.is_local:
                    self._end.wait(CHECKPOINTS_EVERY)


class _Closing(Exception):
    """The run ends: its thread sends nothing more."""


def read_journal(path: Path) -> list[Epoch]:
    """The epochs that a journal holds; a last line that was cut by a crash is left out."""
    epochs: list[Epoch] = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in path.read_text().splitlines():
            epochs.append(Epoch(**json.loads(line)))
    return epochs


def _line(epoch: Epoch) -> str:
    return json.dumps(asdict(epoch)) + "\n"


def _best(run: Run) -> Mapping[str, Any]:
    """A run's best epoch, as its last checkpoint has it; empty if it has none."""
    try:
        return (checkpoint.load_newest(run.folder / "checkpoints" / "last.ckpt") or {}).get("best", {})
    except ValueError:  # damaged: the run ends all the same
        return {}


def log_result(run: Run, best: Mapping[str, Any], reason: str | None) -> None:
    """Log a run's result, read from its folder, as metrics, as tags, and in its description."""
    tags, judged = run.tags(), None
    if content := judging.kept(run.folder):
        run.log_points(judging.points(content), int(time.time() * 1000))
        run.set_tags(judging.tags(content, tags))
        judged = Judged.of(content)
    lines = description.result(best or None, reason, judged)
    run.set_tags(description.added(tags, description.RESULT, description.bullets(lines)))


def write_updates(epochs: list[Epoch], path: Path) -> None:
    """Write all updates to a Parquet table; for a resumed run, its rows of earlier epochs stay."""
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for e in epochs:
        count = len(e.losses)
        first = e.first_update
        of_all: list[list[Any]] = [list(range(first, first + count)), [e.number] * count, [e.chunks] * count]
        for name, column in zip(COLUMNS, [*of_all, e.losses, e.norms, e.clipped], strict=True):
            columns[name].extend(column)
    types = (pa.int64(), pa.int32(), pa.int32(), pa.float32(), pa.float32(), pa.bool_())
    table = pa.table([pa.array(v).cast(t) for v, t in zip(columns.values(), types, strict=True)], names=list(COLUMNS))
    if path.exists() and not path.is_symlink() and epochs:
        before = parquet.read_table(path)
        table = pa.concat_tables([before.filter(pa.compute.less(before["epoch"], epochs[0].number)), table])
    with replaced(path) as beside:
        parquet.write_table(table, beside)


def deliver(run: Run, folder: Path, epochs: list[Epoch], update_points: int, system_sent: int = 0) -> None:
    """Send an ended run to the store, complete: points, artifacts, status. Raises the error if that fails.

    Args:
        system_sent: how many lines of its system metrics the store has already.
    """
    outcome = json.loads((folder / OUTCOME).read_text())
    if epochs and not run.is_local:
        run.send_checkpoints()  # see Outbox
    best = _best(run)
    with run.store.together():
        for group in grouped(epochs, update_points):
            if not run.is_own():
                break
            log_epochs(run, group, update_points)
        if is_own := run.is_own():
            run.log_points(*best_points(best, read_journal(folder / JOURNAL)))
            system_metrics.send(run, folder, system_sent)
    if not is_own:
        log.warning("run %s: another machine has gone on with it; what this one had of it is left out", run.id)
        shutil.rmtree(folder, ignore_errors=True)
        return
    if outcome["status"] == "FINISHED":
        log_model(run)
    with run.store.together():
        log_result(run, best, outcome["reason"])
        run.finish(outcome["status"], outcome["reason"], leave_out=OF_ITS_OWN)
    if outcome["status"] == "FINISHED" or outcome["reason"] == "pruned":
        shutil.rmtree(folder, ignore_errors=True)  # all of it is in the store now
    else:  # it may be resumed
        write_json(folder / OUTCOME, {**outcome, "delivered": True})


def deliver_pending(store: Store, update_points: int) -> int:
    """Send to the store what earlier runs could not deliver; a run with no live process becomes KILLED there.

    Returns how many runs could not be delivered now either.
    """
    left = 0
    for folder in sorted((store.folder / "pending").glob("*")) if (store.folder / "pending").exists() else []:
        with contextlib.suppress(OSError, ValueError, RunTaken):  # for example, another process trains the run
            outcome = json.loads((folder / OUTCOME).read_text()) if (folder / OUTCOME).exists() else None
            if (outcome and outcome.get("delivered")) or not (folder / OWNER).exists():
                continue
            with claimed(folder):
                try:
                    _deliver_one(store, folder, update_points)
                except Exception as error:
                    left += is_outage(error)
                    log.warning("run %s: still not in the store (%s)", folder.name, _first_line(error))
    return left


def _deliver_one(store: Store, folder: Path, update_points: int) -> None:
    run = store.run(folder.name)
    if run is None or run.is_deleted:
        return
    if not run.is_own():  # another machine has gone on with it
        shutil.rmtree(folder, ignore_errors=True)
        return
    if not (folder / OUTCOME).exists():
        write_json(folder / OUTCOME, {"status": "KILLED", "reason": "interrupted"})
    deliver(run, folder, read_journal(folder / JOURNAL), update_points)


def _first_line(error: BaseException) -> str:
    line = str(error).splitlines()[0] if str(error) else ""
    return hide(without_password(line.split(" failed with exception")[0][:200])) or type(error).__name__
