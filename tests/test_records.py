"""What is kept with a trial and a study is read as it was written, and as nothing where it is something else."""

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from studies import made_study, made_trial

import tbptt
from tbptt.studies.records import HowFar, Key, Record, StudyRecord, TrialRecord, is_number
from tbptt.studies.study import Study, state_of

NOT_THAT = (None, "text", 7, 1.5, True, [], {}, ["a"], [1], [[1.0]], [None], {"a": 1}, [{"trial": 0}], {"seed": "1"})
POINT = {"trial": 3, "value": 0.5, "point": {"clip": 1.0}}
AT = {"seed": 1, "seeds": 2, "epoch": 3, "epochs": 4, "held_out": None, "seconds_left": 5.5}
# Every key, by the name that studies of earlier versions have it under: what was written, and what it reads as.
TRIAL: dict[str, tuple[Any, Any]] = {
    "worker": ({"host": "h", "pid": 1}, {"host": "h", "pid": 1}),
    "metrics": ({"val/mae": 0.5}, {"val/mae": 0.5}),
    "progress": (AT, HowFar(1, 2, 3, 4, None, 5.5)),
    "run_ids": (["a", "b"], ["a", "b"]),
    "folds": (3, 3),
    "reason": ("no", "no"),
    "requeued": (True, True),
    "died": (True, True),
    "stop_reason": ("pruned", "pruned"),
    "best_epochs": ([0, None], [0, None]),
    "values_by_seed": ([[0.5, 1], [0.25, 2]], [[0.5, 1], [0.25, 2]]),
    "baseline": (1.25, 1.25),
    "curves": ({"val/loss": [1.0, None]}, {"val/loss": [1.0, None]}),
    "retry_of": (0, 0),
    "attempt": (2, 2),
    "resume": (["a"], ["a"]),
    "same_as": (0, 0),
}
STUDY: dict[str, tuple[Any, Any]] = {
    "spec": ({"space": {"clip": "choice(1, 2)"}}, {"space": {"clip": "choice(1, 2)"}}),
    "code": ("ab12", "ab12"),
    "own": ("cd34", "cd34"),
    "begun": (1, 1),
    "objectives": (["val/loss"], ["val/loss"]),
    "n_trials": (9, 9),
    "tracking_uri": ("sqlite:///a.db", "sqlite:///a.db"),
    "parent_run": ("ab", "ab"),
    "commands": (["tbptt train -m clip=1,2"], ["tbptt train -m clip=1,2"]),
    "notes": ("mine", "mine"),
    "tags": ({"desk": "fx"}, {"desk": "fx"}),
    "changes": (["epochs was 1, is 2"], ["epochs was 1, is 2"]),
    "enqueued": (True, True),
    "seeds_used": ([2, 7], [2, 7]),
    "chosen": ([POINT], [POINT]),
    "ended_by": ("its time is over", "its time is over"),
    "forgiven": (4, 4),
    "removal_begun": (True, True),
}
KINDS: list[tuple[type[Record], dict[str, tuple[Any, Any]]]] = [(TrialRecord, TRIAL), (StudyRecord, STUDY)]


def keys(kind: type[Record]) -> dict[str, Key[Any]]:
    return {name: value for name, value in vars(kind).items() if isinstance(value, Key)}


@pytest.mark.parametrize(("kind", "known"), KINDS)
def test_every_key_reads_what_was_written_under_its_name(
    kind: type[Record], known: dict[str, tuple[Any, Any]], tmp_path: Path
) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/optuna.db")
    trial = study.ask()
    target: Any = trial if kind is TrialRecord else study
    assert set(keys(kind)) == set(known)
    for name, key in keys(kind).items():
        key.write(target, known[name][0])
    read = study.trials[0].user_attrs if kind is TrialRecord else study.user_attrs
    assert read == {name: written for name, (written, _) in known.items()}
    record = kind.of(study.trials[0] if kind is TrialRecord else study)
    assert {name: getattr(record, name) for name in known} == {name: meant for name, (_, meant) in known.items()}


@pytest.mark.parametrize(
    ("stored", "read"),
    [(1.8e9, 1.8e9), (7, 7), ("noon", None), (True, None), (-1, None), (1e300, None), (float("nan"), None)],
)
def test_the_time_of_a_note_is_a_time_or_none(stored: Any, read: float | None) -> None:
    at = TrialRecord({"progress": AT | {"at": stored}}).progress
    assert at == HowFar(1, 2, 3, 4, None, 5.5, at=read)


@pytest.mark.parametrize(("kind", "known"), KINDS)
def test_what_is_of_another_kind_reads_as_if_it_were_not_there(
    kind: type[Record], known: dict[str, tuple[Any, Any]]
) -> None:
    for name, (_, meant) in known.items():
        nothing = getattr(kind({}), name)
        for value in NOT_THAT:
            found = getattr(kind({name: value}), name)
            is_meant = type(found) is type(meant) or (name == "baseline" and is_number(found))  # also a whole one
            assert found == nothing or is_meant, (name, value)


def test_a_trial_of_others_is_told_and_drawn_as_one_without_records(here: Path) -> None:
    """In every key one value after the other that cannot be meant."""
    spoilt = [
        made_trial(state, values=[0.5], params={"clip": 1.0}, **dict.fromkeys(set(TRIAL) - {"same_as"}, value))
        for value in NOT_THAT
        for state in ("COMPLETE", "PRUNED", "FAIL", "RUNNING")
    ]
    study = made_study([made_trial(values=[0.25], params={"clip": 2.0}), *spoilt])
    for name in set(STUDY) - {"objectives"}:
        for value in NOT_THAT:
            study.optuna.set_user_attr(name, value)
            study.seeds_used()
            study.counts()
        study.optuna.set_user_attr(name, ["no"])
    from tbptt.reports.page import write_report

    assert "0.25" in write_report(study).read_text(encoding="utf-8")
    assert {state_of(t) for t in study.trials()} == {"complete", "pruned", "failed", "running", "run again"}


def test_a_study_of_others_beside_ours_is_none_of_ours(here: Path) -> None:
    ours = made_study([made_trial(values=[0.5])])
    optuna.create_study(storage=ours.storage, study_name="theirs").set_user_attr("objectives", "accuracy")
    with pytest.raises(KeyError) as error:
        Study.existing("theirs", ours.storage_uri)
    assert error.value.args == (["a-study"],)


def test_a_curve_of_another_kind_is_empty() -> None:
    for curves in (*NOT_THAT, {"val/loss": 1.0}, {"val/loss": "text"}):
        assert len(TrialRecord({"curves": curves}).curve("val/loss")) == 0
    assert TrialRecord({"curves": {"val/loss": [1.0, None]}}).curve("val/loss") == [1.0, None]


def test_values_by_seed_are_those_of_one_objective() -> None:
    record = TrialRecord({"values_by_seed": [[0.5, 10.0], [], [0.25]]})
    assert (record.by_seed(0), record.by_seed(1)) == ([0.5, 0.25], [10.0])


def test_parts_of_a_spec_are_read_also_where_it_lacks_them() -> None:
    whole = {"space": {"clip": "x"}, "config": {"seed": 3}, "seeds": [1, 2], "data": "ab", "best_of": "s"}
    record = StudyRecord({"spec": whole})
    assert (record.space, record.config, record.seeds) == ({"clip": "x"}, {"seed": 3}, [1, 2])
    assert (record.own_seed, record.data, record.best_of) == ([3], "ab", "s")
    empty = StudyRecord({"spec": {"seeds": None}})
    assert (dict(empty.space), dict(empty.config), empty.data, empty.best_of) == ({}, {}, None, None)
    assert not [*empty.seeds, *empty.own_seed]


def test_attributes_are_named_in_one_file_only() -> None:
    """Elsewhere a key would be a second place that says what is stored."""
    source = Path(tbptt.__file__).parent
    access = re.compile(r"user_attrs\s*[.\[]|set_user_attr\(\s*[\"']|\.user_attrs\.get")
    files = [*source.rglob("*.py"), *source.rglob("*.html")]
    assert [path.name for path in files if access.search(path.read_text(encoding="utf-8"))] == []


def test_a_trial_that_is_frozen_cannot_be_written_to_by_mistake() -> None:
    """Optuna's FrozenTrial keeps an attribute to itself; ours go through the storage, which a Trial does."""
    study = optuna.create_study()
    trial = study.ask()
    TrialRecord.reason.write(trial, "no")
    study.tell(trial, state=TrialState.FAIL)
    assert TrialRecord.of(study.trials[0]).reason == "no"
    assert TrialRecord.of(create_trial(state=TrialState.FAIL)).reason is None
