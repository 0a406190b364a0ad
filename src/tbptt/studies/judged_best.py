"""Read ``sweeps/STUDY/evaluation.json``, which the end of a sweep writes: how the chosen trial does on test.

The file may have come with a study from elsewhere, so its content is checked before use.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from optuna.trial import FrozenTrial, TrialState

from tbptt.config.names import SWEEPS
from tbptt.evaluation import study_words, words
from tbptt.evaluation.chance import Verdict, Word
from tbptt.evaluation.results import RESULT, Judged
from tbptt.options.values import shortened
from tbptt.studies.records import StudyRecord, is_number
from tbptt.studies.study import Study, state_of

MOST_BYTES = 1_000_000
LONGEST_NAME = 60  # letters of a baseline's name


@dataclass(frozen=True)
class JudgedBest:
    """A study's chosen trial on test.

    Attributes:
        trial: its number.
        uses: how many results this test part has judged in this store; None if the store did not say.
        judged: the mean over its seeds.
    """

    trial: int
    uses: int | None
    judged: Judged


@dataclass(frozen=True)
class Answer:
    """What the report says about a study's best trial.

    Attributes:
        headline: the verdict in a few words; empty if there is none.
        lines: the verdicts with their numbers, or the reason why there are none.
        found: the result behind the verdicts; None if the best trial was not judged on test.
    """

    headline: str
    lines: list[str]
    found: JudgedBest | None = None


def answer(study: Study, trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> Answer:
    """What the study's ``evaluation.json`` says about its best trial, or why it says nothing. No content of the file
    raises an error."""
    if best is None:
        return Answer("", [])
    try:
        found = read(SWEEPS / study.name)
    except ValueError as error:
        return Answer("", [f"How trial {best.number} does on test is not known: {error}."])
    if found is not None and found.trial != best.number:
        was = f"trial {found.trial} was judged on test, and is not the best one any more"
        return Answer("", [f"Not judged on test: {was}; no verdict is given of trial {best.number}."])
    if found is not None and found.judged.test is not None:
        tried = sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials)
        return Answer(
            study_words.headline(found.judged),
            [
                *words.lines(found.judged),
                f"{study_words.tried_words(tried)}; {words.uses_line(found.uses)}",
            ],
            found,
        )
    if key := _no_test(study.record):
        return Answer("", [words.no_test(key)])
    if any(state_of(t) in ("running", "waiting") for t in trials):
        return Answer("", ["Not judged on test yet: that is done once, with the best trial, at the study's end."])
    return Answer("", [f"Trial {best.number} has not been judged on test: {words.VAL_ONLY}."])


def read(folder: Path) -> JudgedBest | None:
    """The content of a study's file; None if there is no file. Raises ValueError with one line if the content is
    invalid."""
    path = folder / RESULT
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        found = JudgedBest(content["trial"], content["uses"], Judged.of(content))
        _check(found)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = shortened(str(error) or type(error).__name__, 100)
        raise ValueError(f"{path} cannot be read ({why!r})") from error
    return found


def _check(found: JudgedBest) -> None:
    """Raise ValueError if a value that the report shows has the wrong type."""
    judged = found.judged
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (found.trial, found.uses or 0)):
        raise ValueError("trial and uses are whole numbers")
    verdicts = [*judged.skill.values(), *([judged.decision] if judged.decision else [])]
    if not all(_is_verdict(verdict) for verdict in verdicts):
        raise ValueError("no verdict")
    names = [judged.best_baseline, judged.best_side or "-", *judged.skill]
    if not all(isinstance(name, str) and name.isprintable() and len(name) <= LONGEST_NAME for name in names):
        raise ValueError("no name")
    if judged.test is not None and not verdicts:
        raise ValueError("no verdict on test")


def _is_verdict(verdict: Verdict) -> bool:
    ends: list[Any] = [end for end in (verdict.low, verdict.high) if end is not None]
    return verdict.word in get_args(Word) and all(map(is_number, (verdict.estimate, verdict.observations, *ends)))


def _no_test(record: StudyRecord) -> str:
    """The config key that would set a test part aside; empty if the study has a test part, or if its trials decide
    that."""
    key = words.test_key(record.config.get("data.name") == "article")
    if {key, "data", "data.name"} & set(record.space):
        return ""
    value = record.config.get(key, 0)
    return "" if is_number(value) and value > 0 else key
