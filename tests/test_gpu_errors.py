"""A GPU that fails or is full, in a study and in a single run; its errors are stand-ins, raised by the CPU."""

import json
import pickle
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from conftest import SMALL
from forked import command
from mlflow import MlflowClient
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState
from studies import made_study, made_trial

from tbptt.config.compose import CommandError
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit, to_the_end
from tbptt.studies import pool, worker
from tbptt.studies.study import Counts
from tbptt.system import devices
from tbptt.system.devices import GPU_FAILED, NO_GPU, GpuFailed, GpuMemory, GpuTrouble, NoGpu, gpu_trouble
from tbptt.system.endings import failure_line
from tbptt.system.stores import absolute_uri

ILLEGAL = "CUDA error: an illegal memory access was encountered\nSearch for `cudaErrorIllegalAddress' in ..."
FULL_LINE = "out of memory on the GPU: CUDA out of memory; fewer study.workers on this GPU"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 0 bytes free. Including non-PyTorch memory, ..."


# --- what an error says -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.AcceleratorError(ILLEGAL), GpuFailed),
        (RuntimeError(ILLEGAL), GpuFailed),  # what PyTorch raised before it had a class for it
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), GpuFailed),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED_CUDA_DRIVER"), GpuFailed),
        (RuntimeError("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`"), GpuFailed),
        (RuntimeError("CUDA driver error: unspecified launch failure"), GpuFailed),
        (RuntimeError("No CUDA GPUs are available"), GpuFailed),
        (torch.OutOfMemoryError(FULL), GpuMemory),
        (torch.cuda.OutOfMemoryError(FULL), GpuMemory),
        (torch.AcceleratorError("CUDA error: out of memory\nSearch for ..."), GpuMemory),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), GpuMemory),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), GpuMemory),
        (RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"), None),  # the call's fault, in any process
        (RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm(...)`"), None),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"), None),
        (RuntimeError("Expected all tensors to be on the same device, but got cuda:0 and cpu"), None),
        (MemoryError(), None),
        (ValueError("CUDA error: "), None),
    ],
)
def test_errors_are_told_apart(error: Exception, kind: type[GpuTrouble] | None) -> None:
    found = gpu_trouble(error)
    assert (type(found) if found else None) is kind
    if found:
        assert "\n" not in str(found)
        assert "Including" not in str(found)
        assert failure_line(found) == str(found)


def test_the_cause_is_found_below_what_others_made_of_it() -> None:
    """Lightning's own clearing up fails where the context is lost."""

    def wrapped() -> None:
        try:
            raise torch.OutOfMemoryError(FULL)
        except RuntimeError as error:
            try:
                raise ValueError("while clearing up")
            except ValueError as other:
                raise KeyError("wrapped") from other  # its context is the one above
            finally:
                del error

    with pytest.raises(KeyError) as raised:
        wrapped()
    assert isinstance(gpu_trouble(raised.value), GpuMemory)
    assert gpu_trouble(ValueError("nothing")) is None


def test_it_comes_whole_from_a_job_of_another_process() -> None:
    sent = pickle.loads(pickle.dumps(GpuFailed("the GPU failed: x", "; go on")))
    assert (type(sent), str(sent), sent.what) == (GpuFailed, "the GPU failed: x; go on", "the GPU failed: x")


# --- a single run -----------------------------------------------------------------------------------------------


def test_a_run_says_how_to_go_on_and_does(here: Path, small: Callable[..., DictConfig]) -> None:
    def second(epoch: Any) -> bool:
        if epoch.number == 1:
            raise torch.AcceleratorError(ILLEGAL)
        return False

    with pytest.raises(GpuFailed) as raised:
        fit(small("epochs=2"), RunContext(after_epoch=second))
    (run,) = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db")).search_runs(["1"])
    assert (run.info.status, run.data.tags["stop.reason"]) == ("FAILED", "error")
    said = failure_line(raised.value)
    assert said.endswith(f"; go on with it: python train.py resume={run.info.run_id}")
    assert said.startswith("the GPU failed: CUDA error: an illegal memory access was encountered; go on")
    assert fit(small("epochs=2"), RunContext(resume=run.info.run_id)).run_id == run.info.run_id


# --- a study ----------------------------------------------------------------------------------------------------


def break_the_gpu() -> None:
    """In a command and its workers: trials fail by their clip, in their second epoch. Those below 1 do so once; 0.3 and
    1.3 lose the context, 0.5 and 1.5 find no memory."""
    import tbptt.runs.module

    train_pass, seen = tbptt.runs.module.train_pass, {"lost": False, "passes": 0, "clip": None}

    def failing(*args: Any, clip: float, **more: Any) -> Any:
        if seen["lost"]:
            raise torch.AcceleratorError(ILLEGAL)
        seen["passes"] = seen["passes"] + 1 if seen["clip"] == clip else 1  # type: ignore[operator]
        seen["clip"] = clip
        once = Path(f"failed-{clip}")
        if clip in (0.3, 0.5, 1.3, 1.5) and seen["passes"] == 2 and not (clip < 1 and once.exists()):
            once.touch()
            seen["lost"] = clip in (0.3, 1.3)
            seen["clip"] = None
            raise torch.AcceleratorError(ILLEGAL) if seen["lost"] else torch.OutOfMemoryError(FULL)
        return train_pass(*args, clip=clip, **more)

    tbptt.runs.module.train_pass = failing


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return list(database.execute(query))


def study_of(folder: Path, clips: list[float], *words: str) -> tuple[int, str, list[dict[str, Any]]]:
    """The exit status of a study of these clips, what it said, and its trials in the order of their numbers."""
    import optuna

    head = command(
        folder, "-m", *SMALL, f"clip={','.join(map(str, clips))}", "study.name=s", *words, before=break_the_gpu
    )
    head.join()
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/sweeps/optuna.db")
    trials = [{"state": t.state.name, "clip": t.params["clip"], **t.user_attrs} for t in study.trials]
    return head.exitcode, (folder / "err").read_text(), trials


@pytest.mark.slow
def test_trials_whose_gpu_failed_or_was_full_go_on_and_the_study_is_completed(here: Path) -> None:
    clips = [round(0.1 * i, 1) for i in range(1, 13)]
    status, said, trials = study_of(here, clips)
    assert status == 0, said
    assert "the GPU failed in a worker, and another takes its place" in said
    complete = [t for t in trials if t["state"] == "COMPLETE"]
    assert sorted(t["clip"] for t in complete) == sorted(clips)
    failed = {t["clip"]: t for t in trials if t["state"] == "FAIL"}
    assert sorted(failed) == [0.3, 0.5]
    assert failed[0.3]["reason"] == (
        "the GPU failed: CUDA error: an illegal memory access was encountered (attempt 1 of 2)"
    )
    assert failed[0.5]["reason"].startswith("out of memory on the GPU: CUDA out of memory. Tried to allocate 2.00 GiB.")
    for t in complete:
        before = failed.get(t["clip"])
        assert t.get("attempt") == (None if before is None else 1)
        assert before is None or t["run_ids"] == before["run_ids"]  # from the epoch that it had finished
    pids = {t["worker"]["pid"] for t in trials if t["clip"] == 0.5}
    assert len(pids) == 1  # for want of memory no process has to end
    query = "select status, count(*) from runs group by 1"
    assert rows(here / "mlruns/mlflow.db", query) == [("FINISHED", 13)]


@pytest.mark.slow
def test_a_trial_that_always_breaks_its_gpu_fails_and_the_others_are_run(here: Path) -> None:
    status, said, trials = study_of(here, [1.3, 1.5, 2.0])
    assert status == 1
    states = [(t["clip"], t["state"]) for t in trials]
    assert states == [(1.3, "FAIL"), (1.5, "FAIL"), (2.0, "COMPLETE"), (1.3, "FAIL"), (1.5, "FAIL")]
    reasons = [t["reason"] for t in trials[3:]]
    assert reasons[0].startswith("the GPU failed: CUDA error: an illegal memory access")
    assert reasons[1].startswith("out of memory on the GPU: ")
    assert "fewer study.workers on this GPU" in reasons[1]
    for number, reason in enumerate(reasons, 3):
        assert reason.endswith("(attempt 2 of 2)")
        assert f"trial {number} failed: {reason}" in said


# --- a worker -----------------------------------------------------------------------------------------------------


class Told:
    """What a worker tells its study of a trial that ended early."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def fail(self, number: int, reason: str, *, again: bool = False) -> None:
        self.calls.append(("fail", number, reason, again))

    def give_back(self, number: int, reason: str, retries: int) -> None:
        self.calls.append(("give back", number, reason, retries))


class Held:
    """What a trial holds on a GPU."""


@pytest.mark.parametrize(
    ("error", "told", "goes_on"),
    [
        (torch.AcceleratorError(ILLEGAL), ("give back", 7, f"the GPU failed: {ILLEGAL.splitlines()[0]}", 2), False),
        (torch.OutOfMemoryError("CUDA out of memory."), ("give back", 7, FULL_LINE, 2), True),
        (NoGpu("it is gone"), ("fail", 7, "it is gone", True), False),
        (KeyError("own"), ("fail", 7, "KeyError: 'own' (worker.py, line", False), True),
    ],
)
def test_a_worker_gives_back_what_its_gpu_stopped(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: tuple[Any, ...], goes_on: bool
) -> None:
    """And where it goes on, the trial's memory is free before it takes the next."""
    kept: list[weakref.ref[Held]] = []
    alive: list[bool] = []

    def train_point(*_: object) -> None:
        held = Held()
        kept.append(weakref.ref(held))
        raise type(error)(*error.args)

    one: Any = object.__new__(worker.Worker)
    one.study, one.server, one._train_point = Told(), None, train_point
    one.plan = SimpleNamespace(settings=SimpleNamespace(retries=2))
    one.retention = SimpleNamespace(ended=lambda number: None)
    monkeypatch.setattr(worker, "release_memory", lambda: alive.append(kept[0]() is not None))
    trial: Any = SimpleNamespace(number=7, _trial_id=1)
    with nullcontext() if goes_on else pytest.raises(type(error)):
        to_the_end(one.trial(trial, {}))
    ((how, number, reason, more),) = one.study.calls
    assert (how, number, more) == (told[0], told[1], told[3])
    assert reason.startswith(told[2])
    assert alive == ([False] if isinstance(error, torch.OutOfMemoryError) else [])


@pytest.mark.parametrize(("error", "status"), [(GpuFailed("it failed"), GPU_FAILED), (NoGpu("it is gone"), NO_GPU)])
def test_a_workers_process_says_by_its_status_what_its_gpu_did(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def work(spec: object, pause: object) -> None:
        raise error

    monkeypatch.setattr(worker, "work", work)
    monkeypatch.setattr(worker, "die_with_parent", lambda: None)
    monkeypatch.setattr(worker.os, "dup2", lambda *_: None)
    spec = {"folder": "", "config_name": "", "also": None, "overrides": [], "parent": "", "deadline": None}
    monkeypatch.setattr(worker, "_first_line", lambda: json.dumps({**spec, "log": "workers.log"}).encode())
    assert worker.main() == status


def test_a_gpu_that_went_away_since_the_command_was_given_is_told_from_a_wrong_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plan() -> None:
        raise CommandError(["device: got 'cuda'; this machine has no GPU that PyTorch can use (it is gone)"])

    one: Any = object.__new__(worker.Worker)
    one.spec = SimpleNamespace(plan=plan)
    for reason, kind in (("it is gone", NoGpu), (None, CommandError)):
        monkeypatch.setattr(devices, "why_no_gpu", lambda reason=reason: reason)
        with pytest.raises(kind):
            one._planned()


@pytest.mark.parametrize("before", [{}, {"attempt": 1}])
def test_a_trial_that_is_given_back_goes_on_as_often_as_it_has_retries(here: Path, before: dict[str, int]) -> None:
    study = made_study([made_trial("RUNNING", params={"clip": 0.5}, run_ids=["ab"], **before)])
    study.give_back(0, "the GPU failed", retries=1)
    study.give_back(0, "again", retries=1)  # has ended already: nothing
    failed = study.trials()[0]
    assert failed.user_attrs["reason"] == f"the GPU failed (attempt {1 + len(before)} of 2)"
    assert [t.number for t in study.failures()] == ([0] if before else [])
    study._refill()
    copies = [t.user_attrs for t in study.trials()[1:]]
    assert copies == ([] if before else [{"retry_of": 0, "attempt": 1, "resume": ["ab"]}])


# --- the ends of workers ----------------------------------------------------------------------------------------


class Standing:
    """A study as far as its workers' ends matter."""

    def __init__(self) -> None:
        self.done = 0
        self.begun: list[FrozenTrial] = []

    def counts(self) -> Counts:
        return Counts(self.done, 0, 0, 0, 0)

    def reap(self, retries: int) -> list[object]:
        return []

    def trials(self) -> list[FrozenTrial]:
        return self.begun


def ends(study: Standing, retries: int = 2, workers: int = 1) -> pool.Ends:
    return pool.Ends(study, retries, workers, "workers.log", "give the same command again to go on")  # type: ignore[arg-type]


def test_a_gpu_that_works_in_between_may_fail_any_number_of_times() -> None:
    study = Standing()
    end = ends(study)
    for _ in range(100):
        study.done += 1
        assert end.take(GPU_FAILED)


def test_a_gpu_that_only_fails_ends_the_study_before_all_its_trials_are_used_up() -> None:
    end = ends(Standing())
    taken = [end.take(GPU_FAILED) for _ in range(9)]  # which three trials with two retries can bring about alone
    assert all(taken)
    with pytest.raises(NoGpu, match=r"^the GPU failed 10 times .*; workers\.log says why; .* give the same command"):
        end.take(GPU_FAILED)


def test_a_worker_without_a_gpu_has_no_successor_and_the_others_go_on() -> None:
    end = ends(Standing(), workers=2)
    assert [end.take(NO_GPU), end.take(0)] == [False, False]
    end.all_taken()


def test_where_no_worker_has_a_gpu_the_study_ends_with_a_line() -> None:
    end = ends(Standing(), workers=2)
    assert [end.take(NO_GPU), end.take(NO_GPU)] == [False, False]
    with pytest.raises(NoGpu, match=r"^the GPU cannot be used any more; workers\.log says why; when that is mended"):
        end.all_taken()


@pytest.mark.parametrize("reason", [None, "PyTorch sees none"])
def test_a_config_lacks_a_gpu_only_where_there_is_none(monkeypatch: pytest.MonkeyPatch, reason: str | None) -> None:
    monkeypatch.setattr(devices, "why_no_gpu", lambda: reason)
    line = "precision: got 'tf32', which only GPUs have; takes 32 or bf16 here"
    assert devices.lacks_gpu(["clip: got -1; takes a number above 0", line]) == (line if reason else None)
    assert devices.lacks_gpu(["device: got 'gpu'; takes one of auto, cpu, cuda"]) is None


def test_workers_whose_trials_others_have_found_are_no_strikes() -> None:
    study = Standing()
    end = ends(study)
    for _ in range(9):  # each took a trial, which another worker found to be left before the head looked
        study.begun.append(optuna.trial.create_trial(state=TrialState.FAIL))
        assert end.take(-9)
    assert [end.take(-9), end.take(-9)] == [True, True]
    with pytest.raises(RuntimeError, match="3 workers ended before they took a trial"):
        end.take(-9)
