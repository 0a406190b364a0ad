"""What the head of a sweep tells its workers, on this machine or another."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from tbptt.config.compose import ConfigSource, parsed
from tbptt.config.schema import register
from tbptt.studies.plan import Plan, make_plan
from tbptt.system.liveness import boot_id


@dataclass(frozen=True)
class WorkerSpec:
    """What a worker needs to know; it can be sent as text.

    Attributes:
        folder, config_name, also, first: the parts of the ConfigSource.
        overrides: as they were typed, with the study's name.
        parent: id of the study's MLflow run.
        deadline: a time.monotonic() after which no trial starts, or None. It belongs to the machine start with id
            ``boot``.
        seconds: the seconds until the deadline at the moment when the spec was given out.
    """

    folder: str
    config_name: str
    also: str | None
    overrides: list[str]
    parent: str
    deadline: float | None = None
    seconds: float | None = None
    boot: str = ""
    first: str | None = None

    def within(self, seconds: float | None) -> "WorkerSpec":
        """The same spec, with a deadline so many seconds from now."""
        if seconds is None:
            return self
        return replace(self, deadline=time.monotonic() + seconds, seconds=seconds, boot=boot_id())

    def given(self) -> "WorkerSpec":
        """The same spec, given out now."""
        return self if self.deadline is None else self.within(self.deadline - time.monotonic())

    def own_deadline(self) -> float | None:
        """The deadline by this process's time.monotonic(). All processes of a machine share that clock until it boots
        again, and nobody sets it. On another machine, the seconds count from this call."""
        if self.deadline is None or self.seconds is None or (self.boot and self.boot == boot_id()):
            return self.deadline
        return time.monotonic() + self.seconds

    @property
    def source(self) -> ConfigSource:
        also, first = (Path(folder) if folder else None for folder in (self.also, self.first))
        return ConfigSource(Path(self.folder), self.config_name, also, first=first)

    def plan(self) -> Plan:
        """The study's plan, checked here, because this process is not the head and may be on another machine.
        ``source`` must be open. Raises CommandError with a line for everything that is wrong here."""
        register()
        return make_plan(self.source, parsed(self.overrides)[0])
