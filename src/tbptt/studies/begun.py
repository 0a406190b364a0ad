"""Check whether a command continues a study that an earlier version began. If so, the head process and all workers use
the defaults of that version (config/earlier.py)."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from tbptt.config.compose import CommandError, ConfigSource, composed, parsed
from tbptt.config.earlier import CHANGES, earlier_words
from tbptt.config.moved import name_now
from tbptt.studies.plan import Plan, differences, make_plan
from tbptt.studies.records import StudyRecord
from tbptt.system.devices import from_another_process
from tbptt.system.stores import sqlite_path

log = logging.getLogger("tbptt")

Records = Mapping[str, StudyRecord]
Defaults = tuple[int, list[str]]  # number of changes of the defaults, overrides that undo the later ones


def as_begun(plan: Plan, arguments: Sequence[str]) -> Plan:
    """The plan of a command. If an earlier version began the study that the command continues, the plan has the
    defaults of that version.

    A log line says so. With ``study.best_of`` or ``study.placebo_of``, the defaults are those of the study named there.

    Args:
        arguments: the words of the command, from which ``plan`` was made.
    """
    if not plan.earlier:
        plan = _with_what_its_study_has(plan, parsed(arguments)[0])
    if plan.earlier:
        other = _other(plan.settings)
        goes_on = "what was chosen there is trained again" if other else "it goes on"
        anew = "" if other else "; study.fresh=true begins anew with today's defaults"
        text = f"was begun by an earlier version: {goes_on} with {' '.join(plan.earlier)} as then{anew}"
        log.warning("study %s: %s", other or plan.name, text)
    return plan


def begun_earlier(source: ConfigSource, overrides: Sequence[Override]) -> Plan | None:
    """The plan of a command that is wrong with today's defaults, made with the defaults of the study that it continues.
    Today's defaults may not fit the data of such a command. None if there is no such study. ``source`` must be open."""
    cfg, _ = composed(source, [str(o.input_line) for o in overrides if not o.is_sweep_override()])
    if cfg is None or (cfg.study.fresh and not _other(cfg.study)):
        return None
    try:
        return _begun(source, overrides, _defaults(cfg, overrides), _records)
    except ConnectionError:  # report the error in the command, not the server's outage
        return None


def _with_what_its_study_has(plan: Plan, overrides: Sequence[Override]) -> Plan:
    settings = plan.settings
    defaults = _defaults(plan.cfg, overrides)
    if not (defaults or _searched(plan)) or (settings.fresh and not _other(settings)):
        return plan
    if settings.dry_run and sqlite_path(settings.storage) is None:
        return plan  # looking there would make tables on the server
    records = _records(settings.storage)
    name = _other(settings) or plan.name
    if name in records:
        record = records[name]
        if changed := [change for change in _searched(plan) if change in _since(record)]:
            log.warning("study %s: was begun with other defaults of %s", name, ", ".join(changed))
        if not _other(settings) and not settings.name:
            return plan
        if not record.spec or not differences(record.spec, plan.spec, "config"):
            return plan
        defaults = [d for d in defaults if d[0] == record.begun]
    elif _other(settings) or settings.name:
        return plan
    else:  # only if a study has the same name apart from the digest
        form = re.compile(re.escape(name[:-8]) + "[0-9a-f]{8}")
        begun = {record.begun for each, record in records.items() if form.fullmatch(each)}
        defaults = [d for d in defaults if d[0] in begun]
    if not defaults:
        return plan
    with plan.source.opened(), from_another_process():
        return _begun(plan.source, overrides, defaults, lambda _: records) or plan


def _begun(
    source: ConfigSource, overrides: Sequence[Override], tried: Sequence[Defaults], read: Callable[[str], Records]
) -> Plan | None:
    """The plan with the first of these defaults with which the command's study was begun; None if there are none."""
    for begun, words in tried:
        try:
            plan = make_plan(source, [*overrides, *parsed(words)[0]])
        except CommandError:  # so nothing was begun with these
            continue
        record = read(plan.settings.storage).get(_other(plan.settings) or plan.name)
        if record is not None and record.spec and record.begun == begun:
            return replace(plan, earlier=tuple(words), begun=begun)
    return None


def _other(settings: Any) -> str | None:
    """The study whose best points, or whose placebos, a command trains."""
    name: str | None = settings.best_of or settings.placebo_of
    return name


def _records(storage: str) -> Records:
    from tbptt.studies.study import Study  # late: a wrong command does not wait for Optuna's import

    return Study.records(storage)


def _defaults(cfg: DictConfig, overrides: Sequence[Override]) -> list[Defaults]:
    """Earlier defaults that would give this command another config, the newest first."""
    typed = [o.key_or_group for o in overrides]
    searched = [o.key_or_group for o in overrides if o.is_sweep_override()]
    searched += _declared(OmegaConf.to_container(cfg.space))
    found = [(begun, earlier_words(cfg, typed, searched, begun)) for begun in reversed(range(len(CHANGES)))]
    return [(begun, words) for begun, words in found if words]


def _declared(space: Any) -> Iterator[str]:
    """The keys and groups in a ``space`` mapping, at any depth."""
    for key, content in space.items():
        yield name_now(key)
        for inner in content.values() if isinstance(content, Mapping) else ():
            yield from _declared(inner or {})


def _searched(plan: Plan) -> list[str]:
    """The keys of changed defaults whose group is searched. No override fits all options of such a group."""
    groups = {dimension.key for dimension in plan.space.dimensions}
    return [change.key for step in CHANGES for change in step if change.group in groups]


def _since(record: StudyRecord) -> set[str]:
    return {change.key for step in CHANGES[record.begun :] for change in step}
