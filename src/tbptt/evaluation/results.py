"""The results of judging a trained network (judged.py), as runs keep and show them."""

from dataclasses import asdict, dataclass, field
from typing import Any

from tbptt.evaluation.chance import Verdict

# The files of a run, and of a study, that keep a result: its numbers, and what they rest on step by step.
RESULT, STEPS = "evaluation.json", "evaluation.npz"


@dataclass(frozen=True)
class PartResult:
    """The result on one part, with frozen weights.

    Attributes:
        series: the number of series.
        steps: the number of times at which at least one series is scored. Where series were not cut by time: the number
            of steps of the longest one, without warm-up.
        block: about how many neighbouring steps of the measured values are correlated.
        observations: the number of independent observations, steps / block; for independent series, their number.
        metrics: by name without the part's name; ``loss`` is among them.
        baselines: the loss of each baseline.
        sides: the mean profit a step of being long, short or flat; empty if the task makes no decisions.
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
    """The result of a run.

    Attributes:
        best_baseline, best_side: the baseline and the side that are best on val.
        val: the result on val. Epochs and trials are chosen on this part, so no verdict can rest on it.
        test: the result on test, a part that chose nothing. None if there is no test part, or it was not asked for.
        skill: on test, by baseline (the mean, and the best on val): 1 - loss / baseline loss, tested against chance.
        networks: the number of networks in the average; they are trained with different seeds.
        decision: on test, the mean profit a step minus that of the side that is best on val.
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
        """The inverse of :meth:`as_dict`. Raises TypeError, KeyError or AttributeError for any other content."""
        return cls(
            best_baseline=content["best_baseline"],
            best_side=content["best_side"],
            val=PartResult(**content["val"]),
            test=PartResult(**content["test"]) if content["test"] else None,
            skill={name: Verdict(**verdict) for name, verdict in content["skill"].items()},
            decision=Verdict(**content["decision"]) if content["decision"] else None,
            networks=int(content.get("networks", 1)),
        )
