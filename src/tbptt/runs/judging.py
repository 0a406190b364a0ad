"""The end of a run: what its best epoch comes to, in two files of the run and in its store.

``evaluation.json`` has the numbers and verdicts (:class:`tbptt.evaluation.judged.Judged`), ``evaluation.npz`` what they
rest on step by step, for a study's report.
"""

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tbptt.evaluation.judged import judge
from tbptt.evaluation.results import Judged
from tbptt.models.protocol import Network
from tbptt.runs import checkpoint, contents
from tbptt.system.files import replaced, write_json
from tbptt.tasks.prepare import Prepared

log = logging.getLogger("tbptt")

RESULT, STEPS = "evaluation.json", "evaluation.npz"
TEST_DATA = "data.test_fingerprint"  # the tag by which uses of the same test part are counted


def judge_best(folder: Path, network: Network, prepared: Prepared, with_test: bool) -> Judged | None:
    """Judge a run's best epoch, and keep what comes out in the run's folder. None where there is no best epoch,
    or its checkpoint is damaged.

    Args:
        folder: the run's.
        network: as the run's, on the device to compute on; its weights become those of the best epoch.
        with_test: whether it may look at the test part.
    """
    path = folder / "checkpoints" / "best.ckpt"
    if not path.exists():
        return None
    try:
        state = checkpoint.load(path, contents.OF_A_RUN)
    except ValueError as error:  # damaged: the run ends all the same
        log.warning("the best epoch cannot be judged: %s", error)
        return None
    network.load_state_dict(state["model"])
    judged, steps = judge([network], prepared, with_test)
    keep(folder, judged, steps, prepared)
    return judged


def keep(folder: Path, judged: Judged, steps: dict[str, NDArray[np.float64]], prepared: Prepared, **more: Any) -> None:
    """Write both files; ``more`` goes to the result."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False, **{name: values.astype(np.float32) for name, values in steps.items()}
    )
    with replaced(folder / STEPS) as beside:
        beside.write_bytes(buffer.getvalue())
    content = {**judged.as_dict(), **more}
    if judged.test is not None:
        content[TEST_DATA] = prepared.split.test_fingerprint()
    write_json(folder / RESULT, content)


def kept(folder: Path) -> dict[str, Any] | None:
    """What :func:`keep` wrote of a run's result; None where there is nothing, or nothing that is understood."""
    try:
        content: dict[str, Any] = json.loads((folder / RESULT).read_text())
        Judged.of(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return content


def points(content: dict[str, Any]) -> list[tuple[str, float, int]]:
    """The metrics of a run's result, as MLflow takes them: ``test/NAME``, ``baseline/NAME/val_loss`` and so on."""
    judged = Judged.of(content)
    found: dict[str, float] = {}
    for part, result in (("val", judged.val), ("test", judged.test)):
        if result is None:
            continue
        found |= {f"baseline/{name}/{part}_loss": value for name, value in result.baselines.items()}
        found |= {f"baseline/{name}/{part}_value": value for name, value in result.sides.items()}
        if part == "test":
            found |= {f"test/{name}": value for name, value in result.metrics.items()}
            found["test/observations"] = result.observations
    verdicts = {f"test/skill_over_{name}": verdict for name, verdict in judged.skill.items()}
    if judged.decision is not None:
        verdicts[f"test/value_over_{judged.best_side}"] = judged.decision
    for name, verdict in verdicts.items():
        ends = {"": verdict.estimate, "_low": verdict.low, "_high": verdict.high}
        found |= {f"{name}{end}": value for end, value in ends.items() if value is not None}
    return [(name, value, 0) for name, value in found.items() if np.isfinite(value)]


def tags(content: dict[str, Any]) -> dict[str, str]:
    """The verdicts of a run's result, and what tells one test part from another."""
    judged = Judged.of(content)
    if judged.test is None:
        return {}
    found = {f"verdict.{name}": f"{verdict.word} {name}" for name, verdict in judged.skill.items()}
    if judged.decision is not None:
        found["verdict.decision"] = f"{judged.decision.word} {judged.best_side}"
    return {**found, TEST_DATA: str(content[TEST_DATA])}


def forget(folder: Path) -> None:
    """Drop what :func:`keep` wrote: the run trains on, and its best epoch may become another."""
    for name in (RESULT, STEPS):
        (folder / name).unlink(missing_ok=True)
