"""``tbptt studies``: list studies, say how one is, remove one, or remove the checkpoints of its beaten trials."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from tbptt.cli.ending import OF_STORES as KEYS
from tbptt.cli.ending import Arguments, keys_of, ran, stores_named
from tbptt.config.compose import CommandError
from tbptt.config.names import SWEEPS
from tbptt.config.schema import TrackingConfig
from tbptt.system.command import command
from tbptt.system.runtime import say

if TYPE_CHECKING:
    from tbptt.runs.tracking import Store
    from tbptt.studies.study import Study

ACTIONS = {
    "list": ("[list]", "the studies: state, trials done, best value, workers, last sign of life, size"),
    "status": ("status STUDY", "more of one: what each worker does, budget, best trial, report, how to go on"),
    "remove": ("remove STUDY [--yes] [--keep-runs]", "a study with its trials, folder, runs and their files, for good"),
    "clean": (
        "clean STUDY --keep best|last",
        "remove checkpoints and models of beaten trials. best: all of them. last: those of the best epoch, so that "
        "each run keeps its last checkpoint, from which it can go on. The best trial keeps all",
    ),
}
TELL_SECONDS = 10.0


def usage() -> str:
    """What is typed."""
    first, *others = (f"{command('studies')} {words}" for words, _ in ACTIONS.values())
    return "\n       ".join([f"usage: {first}", *others]) + "\neach with [study.storage=URI] [tracking.uri=URI]"


def main(argv: Sequence[str], conf: Path) -> int:
    """Run ``tbptt studies …`` and return the exit status (:func:`tbptt.cli.ending.ran`)."""
    return ran(lambda: _main(argv, conf))


def _main(argv: Sequence[str], conf: Path) -> int:
    if argv and argv[0] in ("--help", "-h"):
        say(usage())
        return 0
    actions = {"list": _list, "status": _status, "remove": _remove, "clean": _clean}
    if not argv or "=" in argv[0]:
        argv = ["list", *argv]
    action = argv[0]
    if action not in actions:
        from tbptt.options.similar import did_you_mean

        hint = did_you_mean(action, list(actions))
        raise CommandError([f"studies: got {action!r}; takes {', '.join(actions)}{hint}"])
    asked = Arguments(f"{command('studies')} {action}", ACTIONS[action][1])
    if action != "list":
        asked.add_argument("study", help=f"its name, or its folder {SWEEPS}/NAME")
    if action == "remove":
        asked.add_argument("--yes", action="store_true", help="do not ask")
        asked.add_argument("--keep-runs", action="store_true", help="leave its runs in MLflow")
    if action == "clean":
        asked.add_argument(
            "--keep",
            choices=("best", "last"),
            required=True,
            help="what each run of a beaten trial keeps, as tracking.keep says",
        )
    asked.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE", help=", ".join(KEYS))
    given = asked.parse_intermixed_args(list(argv[1:]))
    return actions[action](given, keys_of(given.words, conf, KEYS))


def _list(given: Any, cfg: DictConfig) -> int:
    from tbptt.studies.listed import HEAD, facts_of, newest_first, row_of, table
    from tbptt.studies.study import Study

    uri = stores_named(cfg, given.words)[0]
    studies = Study.every(cfg.study.storage)
    found = newest_first([facts_of(study, uri) for study in studies.values() if isinstance(study, Study)])
    rows = [row_of(facts, time.time()) for facts in found]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    if not studies:
        say(f"no study yet in {cfg.study.storage}")
    for line in table([HEAD, *rows], width) if rows else ():
        say(line)
    for error in studies.values():
        if isinstance(error, ValueError):
            say(str(error))
    return 0


def _status(given: Any, cfg: DictConfig) -> int:
    from tbptt.studies.listed import facts_of, status_lines

    for line in status_lines(facts_of(_study(given, cfg), stores_named(cfg, given.words)[0]), time.time()):
        say(line)
    return 0


def _remove(given: Any, cfg: DictConfig) -> int:
    from tbptt.runs.removing import InUse
    from tbptt.studies.removal import remove, what_goes

    study = _study(given, cfg)
    store = None if given.keep_runs else _store(study, given, cfg)
    try:
        goes = what_goes(study, store)
        kept = "; its runs stay in MLflow" if store is None else ""
        say(f"study {study.name}: {goes.said}{kept}")
        if not given.yes and not _confirmed(study.name):
            say("nothing was removed")
            return 0
        remove(study, store, _every_few_seconds())
    except InUse as why:
        raise CommandError([f"STUDY: got {study.name!r}; {why}"]) from None
    say(f"study {study.name} is removed")
    if store is not None and not store.is_local and goes.runs:
        say("its runs are deleted on the server, and still take up its disk; there, mlflow gc removes them for good")
    return 0


def _every_few_seconds() -> Callable[[int, int], None]:
    """Says how far a removal is, as one of 1,000 runs takes minutes."""
    last = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal last
        if time.monotonic() - last > TELL_SECONDS:
            last = time.monotonic()
            say(f"{done} of {of} runs are removed")

    return tell


def _confirmed(name: str) -> bool:
    """Ask on a terminal. Raises CommandError if there is none."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CommandError(
            ["--yes: missing; takes it where nobody can be asked, as nothing that is removed comes back"]
        )
    say(f"remove study {name} for good? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _clean(given: Any, cfg: DictConfig) -> int:
    from tbptt.studies.listed import in_bytes
    from tbptt.studies.retention import clean

    study = _study(given, cfg)
    done = clean(study, _store(study, given, cfg), given.keep)
    runs = f"{done.runs} run{'' if done.runs == 1 else 's'}"
    say(f"study {study.name}: {runs} lost checkpoints, {in_bytes(done.freed)} are free")
    for why in done.left:
        say(f"left alone: {why}")
    return 0


def _study(given: Any, cfg: DictConfig) -> "Study":
    """The study that was named, which must be here: its folder too is removed. Raises CommandError if there is none."""
    from tbptt.studies.found import study_called

    try:
        return study_called(given.study, cfg.study.storage, "STUDY", here=True)
    except ValueError as error:
        raise CommandError([str(error)]) from None


def _store(study: "Study", given: Any, cfg: DictConfig) -> "Store":
    """The store of a study's runs. Raises CommandError if it is a file that does not exist."""
    from tbptt.studies.found import store_of

    tracking = cast(TrackingConfig, OmegaConf.to_object(cfg.tracking))
    try:
        return store_of(study, tracking, stores_named(cfg, given.words)[0])
    except ValueError as error:
        hint = ", or --keep-runs" if "keep_runs" in given else ""
        raise CommandError([f"tracking.uri: {error}; takes that of the study's runs{hint}"]) from None
