"""What judging a trained network comes to (judged.py), as it is kept and shown."""

from dataclasses import asdict, dataclass, field
from typing import Any

from tbptt.evaluation.chance import Verdict


@dataclass(frozen=True)
class PartResult:
    """Of one part, on frozen weights.

    Attributes:
        series, steps: how many, the latter of the longest one, warm-up not counted.
        block: for how many steps about what is measured hangs together.
        observations: how many independent ones the steps amount to: steps / block; of independent series, the series.
        metrics: by name without the part's, ``loss`` among them.
        baselines: the loss of each.
        sides: the mean profit a step of being long, short or flat; empty where the task does not decide.
    """

    series: int
    steps: int
    block: float
    observations: float
    metrics: dict[str, float]
    baselines: dict[str, float]
    sides: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """What a run comes to.

    Attributes:
        best_baseline, best_side: the ones that are best on val.
        val: of the part by which epochs and trials are chosen: no verdict can rest on it.
        test: of the part that nothing was chosen by; None where there is none, or it was not asked for.
        skill: on test, by baseline (the mean, and the best on val): 1 - loss / its loss, and what chance would do.
        networks: how many, trained with different seeds, it is the average of.
        decision: on test, the mean profit a step above that of the best side on val.
    """

    best_baseline: str
    best_side: str | None
    val: PartResult
    test: PartResult | None = None
    skill: dict[str, Verdict] = field(default_factory=dict)
    decision: Verdict | None = None
    networks: int = 1

    def as_dict(self) -> dict[str, Any]:
        """In plain types, for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "Judged":
        """What :meth:`as_dict` gave. Raises TypeError, KeyError or AttributeError for anything else."""
        return cls(
            best_baseline=content["best_baseline"],
            best_side=content["best_side"],
            val=PartResult(**content["val"]),
            test=PartResult(**content["test"]) if content["test"] else None,
            skill={name: Verdict(**verdict) for name, verdict in content["skill"].items()},
            decision=Verdict(**content["decision"]) if content["decision"] else None,
            networks=int(content.get("networks", 1)),
        )
