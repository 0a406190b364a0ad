"""What a run is told beside its config: by a study, by a test, by nobody."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tbptt.data.options import DataConfig
from tbptt.runs.epoch import Epoch
from tbptt.system.runtime import StopSignals
from tbptt.tasks.options import TaskConfig
from tbptt.tasks.prepare import Prepared, prepare


@dataclass(frozen=True)
class RunContext:
    """The defaults are those of a single run.

    Attributes:
        name: of the run, in MLflow and in the progress line.
        parent: id of the MLflow run to put this one under.
        tags: more tags for the run.
        resume: id of a run to go on with from its last finished epoch; a new run where it has none.
        after_epoch: takes each finished epoch, those of a resumed run too; True prunes the run: it stops with
            ``stop.reason=pruned``.
        on_start: takes the run's id as soon as it has one.
        signals: where SIGINT, SIGTERM and SIGHUP are noted; this run's own by default.
        prepare: gives the data.
        show: whether to show progress and result.
        check_lease: raises LeaseLost where the run may be another worker's by now: it is left alone then.
        test: whether the best epoch is judged on the test part; a study judges its chosen trial only.
        retry_seconds: how long a tracking server that is away is tried again when the run begins.
    """

    name: str = ""
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

    def check(self) -> None:
        """Go on, or raise Interrupted or LeaseLost. Called before the run is opened and after each chunk, so it waits
        for nothing."""
        self.signals.check()
        self.check_lease()
