"""A trial in a pack: several runs that one process trains at once, an epoch of each at a time.

Each run is a generator (:func:`tbptt.runs.fit.in_steps`) that yields its lane whenever it has to wait for the others,
and does everything else as a run of its own does. :class:`Epochs` trains an epoch of all lanes together.
"""

import copy
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch

from tbptt.config.schema import Config
from tbptt.models import kernels
from tbptt.models.protocol import Network
from tbptt.options.metrics import measured
from tbptt.options.own import is_own
from tbptt.runs.callbacks import AfterEpoch, Prune, SaveCheckpoints, SendToStore, ShowProgress, WriteJournal
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.epoch import Epoch
from tbptt.runs.tracking import Store
from tbptt.runs.training import Training
from tbptt.system.runtime import Interrupted, LeaseLost
from tbptt.training.optimizers import rates
from tbptt.training.pack import Together, error_of
from tbptt.training.pack_on_gpu import why_not
from tbptt.training.pack_row import Row
from tbptt.training.schedule import ChunkSchedule
from tbptt.training.segments import Asked, RandomState, SegmentMemory

T = TypeVar("T")
# The steps of an epoch, between which all lanes of a pack wait for each other: each epoch is trained and closed; all of
# them are reported to the study, in one transaction; each is kept, and the run ends if it was the last.
TURNS = CLOSE, REPORT, KEEP = ("close", "report", "keep")


class Lane(Training):
    """The training of one run in a pack.

    The random generators of PyTorch are one for the whole process. Here each run has their states to itself
    (:meth:`at_work`), so that it draws the same numbers in any pack as alone.

    Args:
        after_chunk: called after each chunk of the pack; may raise to stop.
    """

    def __init__(
        self, network: Network, config: Config, schedule: ChunkSchedule, after_chunk: Callable[[], None], device: str
    ):
        self._init_training(network, config, schedule, after_chunk)
        self.device = torch.device(device)
        self.epoch = 0
        self.failure: Exception | None = None  # that of the epoch that was to be trained
        self.together: Together | None = None  # what trains it
        self._row: Row | None = None
        self._is_ended = False
        self._stops = False
        self._random = RandomState(self.device).get()

    def begin(self, data: SequenceDataModule) -> None:
        """Move everything to the device, and restore what a checkpoint has of the optimizer and the generators."""
        self.network.to(self.device)
        self.train, self.val = data.prepared.on(self.device)
        self.epoch = self.first_epoch
        if restored := self.restored_random():
            self._random[: len(restored)] = restored
        self.optimizer = self.make_optimizer()
        self.network.train(True)
        self.on_gpu = why_not(self.row()) is None

    @property
    def cut(self) -> Asked:
        """``segment_length``."""
        asked: Asked = self.config.segment_length
        return asked

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within, PyTorch's random generators are this run's, and the layers those that its config asks for."""
        generators = RandomState(self.device)
        before = generators.get()
        generators.set(self._random)
        try:
            with kernels.torch_only() if self.config.kernels == "torch" else nullcontext():
                yield
        finally:
            self._random = generators.get()
            generators.set(before)

    def is_asked_to_stop(self) -> bool:
        return self._stops

    def ask_to_stop(self, is_asked: bool) -> None:
        self._stops = is_asked

    def optimizer_itself(self) -> torch.optim.Optimizer:
        return self.optimizer

    def row(self) -> Row:
        """What the pack needs to train the next epoch."""
        self.heed_changes()
        scheduled = self.scheduled
        self._row = Row(
            network=self.network,
            parameters=self.parameters_,
            optimizer=self.optimizer,
            clip=self.config.clip,
            clip_mode=self.config.clip_mode,
            first_update=self.updates,
            before_update=self.set_rates if self.scheduled else None,
            share=self.scheduled.share if self.scheduled else None,
            fixed=self._fixed,
            at_work=self.at_work,
            compiled=self.config.kernels == "auto",
            config=self.config.optimizer,
            lr=next(iter(scheduled.full if scheduled else rates(self.optimizer)), None),
            factor=(lambda i: scheduled.factor(self.moment(i))) if scheduled else None,
        )
        return self._row

    def optimizer_state(self) -> dict[str, Any]:
        if self.together is None or self._row is None:  # it has not trained an epoch yet
            return super().optimizer_state()
        return self.together.optimizer_state(self._row)

    def end_epoch(self) -> Epoch:
        """Validate and close the epoch that the pack has trained, unless a thread of the pack has done so."""
        if not self._is_ended:
            with self.at_work():
                self.end()
        self._is_ended = False
        assert self.finished is not None
        return self.finished

    def end(self) -> None:
        self.validate(self.val)
        self.close_epoch()
        self._is_ended = True

    def ends_in_a_thread(self) -> bool:
        """Whether nothing that ends an epoch is the user's own: that may use what the whole process has once."""
        task = self.config.task
        ways = [way for metric in measured(task.name) for way in (metric.measure, metric.at_once)]
        return not is_own(type(task)) and not any(is_own(way) for way in ways if way is not None)

    def kind(self) -> object:
        """Lanes of one kind can be trained together: they have the same data, network and ways to compute."""
        c = self.config
        ways = (c.precision, c.kernels, c.segment_length, c.threads, c.cuda_graphs, self.device, self.on_gpu)
        return (id(self.train), repr(c.model), repr(ways))

    def snapshot(self, epoch: Epoch) -> dict[str, Any]:
        with self.at_work():
            return super().snapshot(epoch)


class Pace:
    """When a lane of a pack is to be saved, so that all of them together spend a small share of the time on that.

    With an epoch a second or more, each lane is saved after each of its epochs, as a run alone is.

    Attributes:
        store: the store of runs that they share, once the first of them has opened it.
    """

    SHARE, EVERY = 0.1, 1.0  # of the time; seconds between two savings of a lane at least

    def __init__(self) -> None:
        self.store: Store | None = None
        self._began, self._spent = time.monotonic(), 0.0

    def is_due(self, last: float) -> bool:
        """Whether a lane that was saved at ``last``, a time.monotonic(), is due."""
        now = time.monotonic()
        return now - last >= self.EVERY and self._spent <= self.SHARE * (now - self._began)

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Within, a lane is saved."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._spent += time.monotonic() - began


class Keeper(AfterEpoch):
    """Saves, journals and sends a lane's epochs: not after each one, but when the pack's pace allows, and at the end.

    Until then they are kept in memory, and so are the checkpoints of the last one and of the best one. After a kill the
    run goes on from its last checkpoint, and computes the epochs after it again, bit for bit.

    Args:
        save: makes the checkpoints.
        after: is called for each epoch that is in a checkpoint: the journal first.
        send: is called after that, with the last of them.
    """

    def __init__(self, save: SaveCheckpoints, after: WriteJournal, send: SendToStore, pace: Pace):
        self.save, self.after, self.send, self.pace = save, after, send, pace
        self._epochs: list[Epoch] = []
        self._last: dict[str, Any] = {}
        self._best: dict[str, Any] | None = None
        self._saved = time.monotonic()

    def take(self, module: Training, epoch: Epoch) -> None:
        improved = self.save.best.take(epoch)
        snapshot = module.snapshot(epoch)
        for name in ("optimizer", "lr_schedule"):  # these may be the run's own, which the next epoch changes
            if name in snapshot:
                snapshot[name] = copy.deepcopy(snapshot[name])
        self._last = self.save.content(module, snapshot, epoch, self._epochs)
        self._epochs.append(epoch)
        if improved:
            self._best = self._last
        if module.stop_reason is not None:
            self.flush(module)
        elif self.pace.is_due(self._saved):
            with self.pace.spending():
                self.flush(module)

    def flush(self, module: Training) -> None:
        """Save and send what is kept in memory."""
        if not self._epochs:
            return
        self.save.write(self._last, self._best)
        epochs, self._epochs, self._best = self._epochs, [], None
        self._saved = time.monotonic()
        for epoch in epochs:
            self.after.take(module, epoch)
        self.send.take(module, epochs[-1])


def in_a_pack(lane: Lane, data: SequenceDataModule, actions: Sequence[pl.Callback], pace: Pace) -> Generator[Lane]:
    """Train a run in a pack to its end. Yields the lane at each of TURNS.

    Args:
        actions: those of a run alone (:func:`tbptt.runs.callbacks.in_order`), in their order.
    """
    prune, show = _the(Prune, actions), _the(ShowProgress, actions)
    keeper = Keeper(_the(SaveCheckpoints, actions), _the(WriteJournal, actions), _the(SendToStore, actions), pace)
    lane.begin(data)
    try:
        while lane.stop_reason is None:
            yield lane
            if lane.failure is not None:
                raise lane.failure
            lane.after_chunk()  # others may have taken the run over
            epoch = lane.end_epoch()
            yield lane
            error = error_of(partial(prune.take, lane, epoch))
            yield lane
            if error is not None:  # only now: what follows an error is no part of the transaction
                raise error
            keeper.take(lane, epoch)
            show.take(lane, epoch)
            lane.epoch += 1
    except LeaseLost:  # another process may have the run by now
        raise
    except BaseException:
        with suppress(Exception):  # it is the first error that counts
            keeper.flush(lane)
        raise
    finally:
        lane.release()


def _the(kind: type[T], actions: Sequence[pl.Callback]) -> T:
    return next(action for action in actions if isinstance(action, kind))


class Epochs:
    """Trains epochs of several lanes together.

    Args:
        threads: how many of the machine's cores they have.
        most: lanes at once.
        check: called after each chunk; may raise to stop.
    """

    def __init__(self, threads: int, most: int, check: Callable[[], None]):
        self.threads, self.most, self.check = threads, most, check
        self._kinds: dict[object, Together] = {}

    def train(self, lanes: Sequence[Lane]) -> None:
        """Train the next epoch of each lane. Lanes of one kind that have the same number of chunks step together."""
        kinds: dict[object, list[Lane]] = {}
        for lane in lanes:
            kinds.setdefault(lane.kind(), []).append(lane)
        for gone in self._kinds.keys() - kinds.keys():
            self._kinds.pop(gone).close()
        for kind, alike in kinds.items():
            if kind not in self._kinds:
                config = alike[0].config
                memory = SegmentMemory(config.segment_memory, config.study.workers)
                graphs, on_gpu = config.cuda_graphs, alike[0].on_gpu
                self._kinds[kind] = Together(memory, self.threads, self.most, on_gpu, graphs)
            try:
                self._train(alike, self._kinds[kind])
            except Interrupted:
                raise
            except Exception as error:  # each of their trials ends with it, and others take their places
                for lane in alike:
                    lane.failure = error

    def close(self) -> None:
        """End the threads."""
        for together in self._kinds.values():
            together.close()

    def _train(self, lanes: Sequence[Lane], together: Together) -> None:
        """Train lanes of one kind."""
        rows = {lane: lane.row() for lane in lanes}
        together.keep(list(rows.values()))
        groups: dict[int, list[Lane]] = {}
        for lane in lanes:
            groups.setdefault(lane.schedule.chunks, []).append(lane)
        for chunks, group in groups.items():
            began, first = time.perf_counter(), group[0]
            for lane in group:
                lane.begin_epoch()
                lane.together = together
            mine = [rows[lane] for lane in group]
            records = together.train(mine, first.train, chunks, first.config.segment_length, self.check)
            share = (time.perf_counter() - began) / len(group)  # of the time that they took together
            for lane, record in zip(group, records, strict=True):
                if isinstance(record, Exception):
                    lane.failure = record
                else:
                    lane.take_pass(record, first.train, share)
            if together.uses_threads:
                ready = [lane for lane in group if lane.failure is None and lane.ends_in_a_thread()]
                for lane, error in zip(ready, together.in_threads([lane.end for lane in ready]), strict=True):
                    lane.failure = error
