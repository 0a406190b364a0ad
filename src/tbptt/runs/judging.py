"""The end of a run: the result of its best epoch, kept in two files of the run and in its store.

``evaluation.json`` has the numbers and verdicts (:class:`tbptt.evaluation.judged.Judged`). ``evaluation.npz`` has the
values of each step that these rest on, for a study's report.
"""

import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tbptt.evaluation.judged import judge
from tbptt.evaluation.results import RESULT, STEPS, Judged
from tbptt.models.protocol import Network
from tbptt.runs import checkpoint, contents
from tbptt.system.devices import gpu_trouble
from tbptt.system.endings import failure_line
from tbptt.system.files import replaced, write_json
from tbptt.system.runtime import Interrupted, LeaseLost
from tbptt.system.trouble import disk_trouble
from tbptt.tasks.prepare import Prepared

if TYPE_CHECKING:
    from tbptt.runs.tracking import Store

log = logging.getLogger("tbptt")

TEST_DATA = "data.test_fingerprint"  # the tag that says on which test part a run was judged
LOOKS = "test.looks"  # the tag that lists what was judged on that part: a run's epochs, a study's trials
BETWEEN = "; "


def judge_best(folder: Path, network: Network, prepared: Prepared, with_test: bool) -> Judged | None:
    """Judge a run's best epoch, and keep the result in the run's folder.

    Returns None if there is no best epoch. If it cannot be judged, a warning says so, and the result is None, too.

    Args:
        folder: the run's folder.
        network: a network like the run's, on the device to compute on; it gets the weights of the best epoch.
        with_test: whether to judge on the test part, too.
    """
    path = folder / "checkpoints" / "best.ckpt"
    if not path.exists():
        return None
    try:
        state = checkpoint.load(path, contents.OF_A_RUN)
        network.load_state_dict(state["model"])
        judged, steps = judge([network], prepared, with_test)
    except Exception as error:  # from a damaged file or the user's own loss: the trained run is kept all the same
        if disk_trouble(error) or gpu_trouble(error) or isinstance(error, Interrupted | LeaseLost):
            raise
        log.warning("the best epoch cannot be judged: %s", failure_line(error))
        return None
    keep(folder, result(judged, prepared, look=f"epoch {state['epoch'] + 1}"), steps)
    return judged


def result(judged: Judged, prepared: Prepared, **more: Any) -> dict[str, Any]:
    """The part of a result that is kept, in plain types. ``more`` is added; its ``look`` says what was judged."""
    content = {**judged.as_dict(), **more}
    if judged.test is not None:
        content[TEST_DATA] = prepared.split.test_fingerprint()
    return content


def keep(folder: Path, content: dict[str, Any], steps: dict[str, NDArray[np.float64]]) -> None:
    """Write both files. The result's file comes last: if it exists, the other file is complete."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False, **{name: values.astype(np.float32) for name, values in steps.items()}
    )
    with replaced(folder / STEPS) as beside:
        beside.write_bytes(buffer.getvalue())
    write_json(folder / RESULT, content)


def kept(folder: Path) -> dict[str, Any] | None:
    """The result of a run that :func:`keep` wrote; None if there is none, or if it has an unknown form."""
    try:
        content: dict[str, Any] = json.loads((folder / RESULT).read_text())
        Judged.of(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return content


def points(content: dict[str, Any]) -> list[tuple[str, float, int]]:
    """The metrics of a run's result as points for MLflow: ``test/NAME``, ``baseline/NAME/val_loss`` and so on."""
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


def tags(content: dict[str, Any], before: Mapping[str, str]) -> dict[str, str]:
    """Tags of a run's result: its verdicts, their test part, and everything of the run that was judged on that part.

    Args:
        before: the run's tags so far.
    """
    judged = Judged.of(content)
    if judged.test is None:
        return {}
    found = {f"verdict.{name}": f"{verdict.word} {name}" for name, verdict in judged.skill.items()}
    if judged.decision is not None:
        found["verdict.decision"] = f"{judged.decision.word} {judged.best_side}"
    looks = before.get(LOOKS, "").split(BETWEEN) if before.get(TEST_DATA) == content[TEST_DATA] else []
    looks = list(dict.fromkeys([*filter(None, looks), str(content["look"])]))
    return {**found, TEST_DATA: str(content[TEST_DATA]), LOOKS: BETWEEN.join(looks)}


def uses(store: "Store", test_data: str) -> int | None:
    """The number of results in a store that were judged on a test part; None if the store does not say."""
    found = store.tags_of_runs(TEST_DATA, test_data)
    return None if found is None else sum(len(tags.get(LOOKS, "").split(BETWEEN)) for tags in found)


def forget(folder: Path) -> None:
    """Delete what :func:`keep` wrote: the run trains on, and its best epoch may change."""
    for name in (RESULT, STEPS):
        (folder / name).unlink(missing_ok=True)
