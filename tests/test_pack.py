"""Several trials that one process trains at once: the curves of each are those that it has alone, bit for bit."""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from mlflow import MlflowClient
from omegaconf import DictConfig
from parts import walks, written

from tbptt.runs import checkpoint
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import Result, fit, in_steps
from tbptt.runs.lane import TURNS, Epochs, Lane, Pace
from tbptt.system.runtime import Interrupted, StopSignals
from tbptt.tasks.prepare import PreparedLast
from tbptt.training.pack import Together

# Runs of different everything that may differ in a pack.
DIFFERENT = {
    "adam": ["seed=1"],
    "rmsprop, clipped by value": ["optimizer=rmsprop", "clip_mode=value", "clip=0.01", "seed=2"],
    "muon, other chunks": ["optimizer=muon", "schedule.chunks=[7,3]", "lr_schedule=constant"],
    "momentum, cosine": ["optimizer=momentum", "lr_schedule=cosine", "clip=null"],
    "plateau, shorter": ["lr_schedule=plateau", "clip_mode=tensor_norm", "epochs=2"],
    "adagrad, diverges": ["optimizer=adagrad", "optimizer.lr=1e30", "seed=5"],
    "adamw, std": ["optimizer=adamw", "clip_mode=std", "clip=2", "seed=6"],
}


@dataclass
class Seen:
    """What a run has shown: its epochs and its end."""

    epochs: list[Epoch] = field(default_factory=list)
    result: Result | None = None
    run_id: str = ""

    def began(self, run_id: str) -> None:
        self.run_id = run_id

    def curves(self) -> list[dict[str, Any]]:
        """Everything but times, of each epoch."""
        return [
            {
                **asdict(epoch),
                "time": 0,
                "metrics": {name: v for name, v in epoch.metrics.items() if not name.startswith("time/")},
            }
            for epoch in self.epochs
        ]

    def saved(self, name: str = "last") -> dict[str, Any]:
        """A checkpoint, without times."""
        assert self.result is not None
        (path,) = Path.cwd().rglob(f"*{self.result.run_id}*/**/{name}.ckpt")
        content = checkpoint.load(path)
        return {name: value for name, value in content.items() if name not in ("record", "metrics", "train_seconds")}


@pytest.fixture(autouse=True)
def _signals_are_as_they_were() -> Iterator[None]:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    yield
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.fixture
def every_epoch_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "EVERY", 0.0)
    monkeypatch.setattr(Pace, "SHARE", 1.0)


def alone(cfg: DictConfig, **more: Any) -> Seen:
    seen = Seen()
    seen.result = fit(cfg, RunContext(show=False, test=False, after_epoch=noting(seen), **more))
    return seen


def noting(seen: Seen) -> Callable[[Epoch], bool]:
    return lambda epoch: seen.epochs.append(epoch) or False  # type: ignore[func-returns-value]


class Packed:
    """Runs in a pack, driven by hand."""

    def __init__(self, cfgs: Sequence[DictConfig], threads: int = 2, resume: Sequence[str | None] = ()):
        self.seen = [Seen() for _ in cfgs]
        self.pace, prepare, signals = Pace(), PreparedLast(), StopSignals()
        self.epochs = Epochs(threads, len(cfgs), lambda: None)
        self.runs = {}
        for i, cfg in enumerate(cfgs):
            context = RunContext(
                show=False,
                test=False,
                prepare=prepare,
                signals=signals,
                pack=self.pace,
                after_epoch=noting(self.seen[i]),
                on_start=self.seen[i].began,
                resume=resume[i] if resume else None,
            )
            self.runs[i] = in_steps(cfg, context)
        self.lanes: dict[int, Lane] = {}
        for i in list(self.runs):
            self.go_on(i)

    def go_on(self, i: int) -> None:
        self.lanes.pop(i, None)
        try:
            self.lanes[i] = next(self.runs[i])
        except StopIteration as end:
            self.seen[i].result = end.value

    def epoch(self) -> None:
        self.epochs.train(list(self.lanes.values()))
        for _ in TURNS:
            for i in list(self.lanes):
                self.go_on(i)

    def stop(self, i: int) -> None:
        """Stop a run as a signal does."""
        with pytest.raises(Interrupted, match=r"go on with it: python train\.py resume="):
            self.runs[i].throw(Interrupted(signal.SIGTERM))
        del self.lanes[i]

    def to_the_end(self) -> list[Seen]:
        while self.lanes:
            self.epoch()
        self.epochs.close()
        return self.seen


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def assert_same(one: Seen, other: Seen) -> None:
    assert one.curves() == other.curves()
    assert one.result is not None
    assert other.result is not None
    assert one.result.stop_reason == other.result.stop_reason
    assert one.result.best == other.result.best
    for name in ("last", "best") if one.result.best.epoch is not None else ("last",):
        assert equal(one.saved(name), other.saved(name)), name


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "shared",
    [
        "",
        "model.cell=gru model.init=torch segment_length=7",
        "kernels=torch",
        "model.noise_from=pool",
        "data=prices data.path=prices.csv data.window=8",
    ],
)
def test_the_curves_are_those_of_each_run_alone(config: Callable[..., DictConfig], shared: str) -> None:
    written(Path(), walks((400, 330, 360)))  # of different lengths, so that there are masks
    words = [word for word in SMALL if "prices" not in shared or not word.startswith(("data.", "task."))]
    cfgs = [config(*words, *shared.split(), *own) for own in DIFFERENT.values()]
    expected = [alone(cfg) for cfg in cfgs]
    for one, other in zip(expected, Packed(cfgs).to_the_end(), strict=True):
        assert_same(one, other)
    assert [seen.result.stop_reason for seen in expected if seen.result].count("diverged") == 1


@pytest.mark.usefixtures("here")
def test_small_networks_are_computed_together_and_long_chunks_in_turns(
    small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above has compared both."""
    together: list[int] = []
    by_threads = Together._by_threads

    def counted(self: Together, shares: Any, sequences: Any, chunks: int, check: Any) -> Any:
        together.append(sum(len(share.rows) for share in shares))
        return by_threads(self, shares, sequences, chunks, check)

    monkeypatch.setattr(Together, "_by_threads", counted)
    Packed([small("seed=1"), small("seed=2"), small("seed=3", "schedule.chunks=[5]")]).to_the_end()
    assert together == [2, 1, 2, 1, 2, 1]
    together.clear()
    Packed([small("seed=1", "segment_length=7"), small("seed=2", "segment_length=7")]).to_the_end()
    assert together == []  # 120 steps in 10 chunks are longer than 7


@pytest.mark.usefixtures("here")
def test_a_loss_of_another_form_gives_the_gradient_that_autograd_gives(
    small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfgs = [small("seed=1"), small("seed=2")]
    expected = Packed(cfgs).to_the_end()
    monkeypatch.setattr("tbptt.training.pack_threads._is_squared_error", lambda task: False)
    monkeypatch.setattr("tbptt.training.pack_threads.MOST", 1)  # and where memory has room for one row at a time
    for one, other in zip(expected, Packed(cfgs).to_the_end(), strict=True):
        assert_same(one, other)


@pytest.mark.usefixtures("here", "every_epoch_is_saved")
def test_a_run_of_a_pack_goes_on_alone_and_back(small: Callable[..., DictConfig]) -> None:
    cfgs = [small("seed=1"), small("seed=2", "optimizer=rmsprop", "lr_schedule=plateau")]
    expected = [alone(cfg) for cfg in cfgs]
    pack = Packed(cfgs)
    pack.epoch()
    ids = [seen.run_id for seen in pack.seen]
    for i in pack.runs:
        pack.stop(i)
    went_on = alone(cfgs[0], resume=ids[0])
    assert [epoch.number for epoch in went_on.epochs] == [0, 1, 2]
    assert_same(expected[0], went_on)
    again = Packed(cfgs, resume=[None, ids[1]])
    assert_same(expected[1], again.to_the_end()[1])
    client = MlflowClient(f"sqlite:///{Path.cwd()}/mlruns/mlflow.db")
    assert client.get_run(ids[0]).info.status == "FINISHED"


@pytest.mark.usefixtures("here", "every_epoch_is_saved")
@pytest.mark.parametrize("shared", ["", "model.cell=gru segment_length=50"])
def test_what_is_computed_on_a_gpu_gives_the_same_curves_but_for_rounding(
    small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """Here on the CPU: the matrix of all weights, with PyTorch's own operations."""
    cfgs = [small(*shared.split(), *words) for name, words in DIFFERENT.items() if "muon" not in name]
    expected = [alone(cfg) for cfg in cfgs]
    monkeypatch.setattr("tbptt.runs.lane.why_not", lambda row: None)
    pack = Packed(cfgs)
    pack.epoch()
    pack.stop(0)
    again = Packed([cfgs[0]], resume=[pack.seen[0].run_id]).to_the_end()[0]  # in another row of another pack
    for one, other in zip(expected, [again, *pack.to_the_end()[1:]], strict=True):
        assert one.result is not None
        assert other.result is not None
        assert one.result.stop_reason == other.result.stop_reason
        for mine, theirs in zip(one.curves(), other.curves(), strict=True):
            assert mine["chunks"] == theirs["chunks"]
            assert mine["clipped"] == theirs["clipped"]
            assert mine["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
            assert mine["metrics"] == pytest.approx(theirs["metrics"], rel=1e-3)
        went_on, saved = (optimizer_tensors(seen.saved()) for seen in (one, other))
        assert len(went_on) == len(saved)
        for a, b in zip(went_on, saved, strict=True):
            assert torch.allclose(a, b, rtol=1e-2, atol=1e-5)


def optimizer_tensors(content: dict[str, Any]) -> list[torch.Tensor]:
    states = content["optimizer"]["state"].values()
    return [state[name] for state in states for name in sorted(state) if isinstance(state[name], torch.Tensor)]


@pytest.mark.usefixtures("here")
def test_a_trial_that_can_be_no_row_of_the_matrix_changes_nothing_for_those_that_are(
    small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one with an optimizer of your own, which takes the place of a trial that has ended."""
    why = "an optimizer of your own"
    monkeypatch.setattr("tbptt.runs.lane.why_not", lambda row: why if row.optimizer.defaults["lr"] == 0.5 else None)
    rows, own = [small("seed=1"), small("seed=2")], small("seed=3", "optimizer.lr=0.5", "lr_schedule=constant")
    expected = [*Packed(rows).to_the_end(), Packed([own]).to_the_end()[0]]
    late = Packed([*rows, own])
    waiting = late.lanes.pop(2)
    late.epoch()
    late.lanes[2] = waiting  # it comes when the others have trained an epoch
    for one, other in zip(expected, late.to_the_end(), strict=True):
        assert_same(one, other)
