"""The settings of a run that are not in its config; a study or a test may set them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tbptt.data.options import DataConfig
from tbptt.runs.epoch import Epoch
from tbptt.system.runtime import StopSignals
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.prepare import Prepared, prepare

if TYPE_CHECKING:
    from tbptt.runs.lane import Pace


@dataclass(frozen=True)
class RunContext:
    """Settings of a run besides its config. The defaults are those of a single run.

    Attributes:
        name: the run's name in MLflow and in the progress line; empty for a run of its own, whose name in MLflow says
            what was typed.
        typed: the overrides that were typed.
        overrides: the overrides that make the run's config of the shipped one; None if that is not all of it.
        parent: id of the MLflow run to put this run under.
        tags: more tags for the run.
        resume: id of a run to resume after its last finished epoch. If it has finished none, a new run begins.
        after_epoch: called with each finished epoch, also with those of a resumed run. If it returns True, the run is
            pruned: it stops with ``stop.reason=pruned``.
        on_start: called with the run's id as soon as it has one.
        signals: records SIGINT, SIGTERM and SIGHUP; by default the run has its own. The runs of a pack share one, as
            they end in any order.
        prepare: returns the data.
        show: whether to show progress and result.
        check_lease: raises LeaseLost if another worker may have the run by now; this process then leaves it alone.
        test: whether the best epoch is judged on the test part; a study judges its chosen trial only.
        retry_seconds: for how long a run that begins retries a tracking server that is away.
        pack: what the run shares with the other runs of its pack (:mod:`tbptt.runs.lane`); None for a run alone.
    """

    name: str = ""
    typed: Sequence[str] = ()
    overrides: Sequence[str] | None = None
    parent: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    resume: str | None = None
    after_epoch: Callable[[Epoch], bool] = lambda epoch: False
    on_start: Callable[[str], None] = lambda run_id: None
    signals: StopSignals = field(default_factory=StopSignals)
    prepare: Callable[[DataConfig, TaskConfig], Prepared] = prepare
    show: bool = True
    check_lease: Callable[[], None] = lambda: None
    test: bool = True
    retry_seconds: float = 0.0
    pack: "Pace | None" = None

    def check(self) -> None:
        """Raise Interrupted or LeaseLost if the run must stop.

        It is called before the run is opened and after each chunk, so it waits for nothing.
        """
        self.signals.check()
        self.check_lease()
