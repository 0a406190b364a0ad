"""A sweep: the points that the overrides name, each trained once, under one parent run."""

import itertools
import logging
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from tbptt.runtime import Interrupted

log = logging.getLogger("tbptt")


class SweepFailed(RuntimeError):
    """Some runs of a sweep failed; a line says how many."""


def points(arguments: list[str]) -> list[list[str]]:
    """Every combination of the swept values, the last key varying fastest, as overrides."""
    swept = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in OverridesParser.create().parse_overrides(arguments)
    ]
    return [list(point) for point in itertools.product(*swept)]


def run_sweep(config: DictConfig, loader: ConfigLoader, arguments: list[str]) -> list[Any]:
    """Train every point, one after the other, under one parent run; a point that fails does not stop the others."""
    from tbptt.config import TrackingConfig
    from tbptt.tracking import Store, code_tags
    from tbptt.train import fit

    parsed = OverridesParser.create().parse_overrides(arguments)
    swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
    todo = points(arguments)
    store = Store(cast(TrackingConfig, OmegaConf.to_object(config.tracking)))
    name = ", ".join(str(o.input_line) for o in parsed if o.is_sweep_override())
    parent = store.start_run(name or "sweep", code_tags())
    results, failures = [], []
    try:
        fixed = [str(o.input_line) for o in parsed if not o.is_sweep_override()]
        parent.log_params({"sweep": name, "fixed": " ".join(fixed)})
        for i, point in enumerate(todo):
            cfg = loader.load_sweep_config(config, point)
            with open_dict(cfg):
                del cfg["hydra"]
            label = ", ".join(p for p in point if p.split("=")[0] in swept)
            try:
                results.append(fit(cfg, name=label, parent=parent.id))
            except Interrupted:
                raise
            except Exception as error:
                log.error("run %d of %d (%s) failed: %s: %s", i + 1, len(todo), label, type(error).__name__, error)
                failures.append(label)
    except BaseException:
        parent.close("KILLED", "interrupted")
        raise
    parent.close("FAILED" if failures else "FINISHED")
    if failures:
        raise SweepFailed(f"{len(failures)} of {len(todo)} runs failed")
    return results
