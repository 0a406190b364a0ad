"""A captured and replayed step trains as the plain loop does, for all that a config can choose; see simulated_graph.py.

What only a GPU can show is in test_cuda.py.
"""

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import pytest
import torch
from conftest import SMALL
from omegaconf import DictConfig, OmegaConf
from simulated_graph import Graph, simulated
from test_bptt import CELLS, STEPS, Problem, make
from torch import Tensor, nn

from tbptt.models.article import QNetwork
from tbptt.models.build import build_network
from tbptt.options.option import GROUPS
from tbptt.options.own import is_own
from tbptt.runs.module import SequenceModule
from tbptt.tasks.prepare import prepare
from tbptt.training import cuda_graphs
from tbptt.training.chunks import train_pass
from tbptt.training.clip_modes import SHIPPED
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import optimizer_of
from tbptt.training.options import OptimizerConfig
from tbptt.training.schedule import ChunkSchedule

CHUNKS, PASSES = 5, 3  # of 5 and of 4 steps: each length is captured after three updates, and replayed
MODES = [(name, mode) for name in GROUPS["optimizer"] for mode in (SHIPPED if name == "adam" else ("norm",))]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Tensors are tiny: a second thread would only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Found(NamedTuple):
    records: list[list[list[float]]]  # of each pass: losses, norms, clipped, finite
    weights: Tensor
    state: dict[str, Any]  # of the optimizer
    graphs: list[Graph]


def shipped(config: Callable[..., DictConfig], name: str) -> OptimizerConfig:
    return cast(OptimizerConfig, OmegaConf.to_object(config(f"optimizer={name}").optimizer))


def trained(
    optimizer: OptimizerConfig | Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    fixed: FixedSteps | None,
    *,
    cell: str = "lstm",
    mode: str = "norm",
    steps: Sequence[int] = STEPS,
    share: bool = False,
    prepare: Callable[[QNetwork], Any] = lambda network: None,
    spoilt_in: int | None = None,
    gpu_works: bool = True,
) -> Found:
    """What a network learns in some passes, with noise, series of different lengths and a mask.

    Args:
        fixed: its steps are captured; None: the plain loop.
        share: whether a schedule moves the learning rate.
        spoilt_in: the pass in which a target is NaN.
    """
    with simulated(gpu_works) as graphs:
        network = make(cell, noise_std=0.2)
        prepare(network)
        parameters = FlatParameters(network, blocks=True)
        if isinstance(optimizer, OptimizerConfig):
            made = optimizer_of(optimizer, parameters, capturable=fixed is not None)
        else:
            made = optimizer([parameters.vector])
        sequences, records = Problem(list(steps)).sequences(), []
        part = torch.ones((), dtype=torch.float64) if share else None
        torch.manual_seed(5)
        for number in range(PASSES):
            if number == spoilt_in:
                sequences.targets[0, 12] = float("nan")
            record = train_pass(
                network,
                parameters,
                made,
                sequences,
                CHUNKS,
                clip=0.3,
                clip_mode=mode,
                fixed=fixed,
                first_update=number * CHUNKS,
                before_update=(lambda i: part.fill_(1 / (2 + i))) if part is not None else None,
                share=part,
            )
            records.append(record.to_host())
        return Found(records, parameters.vector.detach().clone(), made.state_dict()["state"], graphs)


def same_bits(one: Found, other: Found) -> None:
    assert one.records == other.records
    assert torch.equal(one.weights, other.weights)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("name", "mode"), MODES)
def test_replays_train_as_the_plain_loop_to_the_bit(
    name: str, mode: str, cell: str, config: Callable[..., DictConfig]
) -> None:
    optimizer = shipped(config, name)
    plain = trained(optimizer, None, cell=cell, mode=mode)
    replayed = trained(optimizer, FixedSteps(captures=True), cell=cell, mode=mode)
    same_bits(replayed, plain)
    assert [graph.replays for graph in replayed.graphs] == [6, 3], "9 updates of 5 steps and 6 of 4, three to warm up"
    assert all(graph.captured > 100 for graph in replayed.graphs)
    assert not plain.graphs
    for number, kept in plain.state.items():
        for key, value in kept.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(replayed.state[number][key])), key
    assert len({loss for losses, *_ in plain.records for loss in losses}) == CHUNKS * PASSES


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_schedule_moves_the_rate_of_a_captured_step(name: str, config: Callable[..., DictConfig]) -> None:
    optimizer = shipped(config, name)
    plain = trained(optimizer, None, share=True)
    same_bits(trained(optimizer, FixedSteps(captures=True), share=True), plain)
    assert not torch.equal(plain.weights, trained(optimizer, None).weights)


def test_series_of_one_length_need_no_mask(config: Callable[..., DictConfig]) -> None:
    optimizer = shipped(config, "adam")
    plain, replayed = (trained(optimizer, f, steps=[23] * 3) for f in (None, FixedSteps(captures=True)))
    same_bits(replayed, plain)


def test_a_replayed_step_is_undone_where_something_is_not_finite(config: Callable[..., DictConfig]) -> None:
    optimizer = shipped(config, "adam")
    plain, replayed = (trained(optimizer, f, spoilt_in=2) for f in (None, FixedSteps(captures=True)))
    assert [record[3] for record in replayed.records] == [[1] * 5, [1] * 5, [1, 1, 0, 0, 0]]
    assert torch.equal(replayed.weights, plain.weights)
    assert replayed.weights.isfinite().all()


@pytest.mark.parametrize("model", [name for name, option in GROUPS["model"].items() if not is_own(option)])
@pytest.mark.parametrize("task", [name for name, option in GROUPS["task"].items() if not is_own(option)])
def test_what_is_shipped_can_be_captured(task: str, model: str, config: Callable[..., DictConfig]) -> None:
    """So auto needs to look at the user's own options only."""
    words = [word for word in SMALL if task == "q_values" or not word.startswith("task.")]
    settings: Any = OmegaConf.to_object(config(*words, "data.length=60", f"model={model}", f"task={task}"))
    found = []
    for fixed in (None, FixedSteps(captures=True)):
        with simulated() as graphs:
            torch.manual_seed(2)
            network = build_network(settings.model, settings.data.input_size, settings.task.outputs)
            parameters = FlatParameters(network)
            optimizer = optimizer_of(settings.optimizer, parameters, capturable=fixed is not None)
            sequences = prepare(settings.data, settings.task).train
            records = [
                train_pass(network, parameters, optimizer, sequences, 4, clip=1.0, fixed=fixed).to_host()
                for _ in range(2)
            ]
        found.append((records, parameters.vector.detach().clone()))
    assert graphs
    assert sum(graph.replays for graph in graphs) >= 2
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])


# --- what no graph can hold -------------------------------------------------------------------------------------------


class Counts(torch.optim.Optimizer):
    """Its step depends on a number on the host, which a graph repeats."""

    def __init__(self, parameters: list[nn.Parameter]):
        super().__init__(parameters, {})
        self.count = 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.count += 1
        for p in self.param_groups[0]["params"]:
            p.sub_(p.grad, alpha=0.01 / self.count)


def test_what_the_host_decides_is_frozen() -> None:
    """So the comparisons above can fail; and an optimizer has to say that it is capturable."""
    plain, replayed = (trained(Counts, fixed) for fixed in (None, FixedSteps(captures=True)))
    assert plain.records[0] == replayed.records[0]  # the last update of the warm-up is the third of a length
    assert plain.records[2] != replayed.records[2]


def asks(network: QNetwork) -> None:
    """Have it ask for the content of a tensor."""

    def ask(module: nn.Module, given: tuple[Tensor, Any]) -> None:
        assert given[0].abs().sum().item() > 0

    network.recurrent[1].register_forward_pre_hook(ask)


def reads_its_steps(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam with a step count for the host, which ``capturable=True`` keeps on the device."""
    return torch.optim.Adam(parameters, lr=0.01, foreach=False)


LINE = "a step of this run cannot be captured as a graph (operation not permitted when stream is capturing: "


@pytest.mark.parametrize("found", ["network", "optimizer"])
def test_a_step_that_waits_for_the_host_is_found(
    found: str, config: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """An error with true; with auto it trains on as without a graph, and says so once."""
    optimizer = shipped(config, "adam") if found == "network" else reads_its_steps
    settings: dict[str, Any] = {"prepare": asks} if found == "network" else {}
    with pytest.raises(ValueError, match="cannot be captured") as raised:
        trained(optimizer, FixedSteps(captures=True), **settings)
    assert str(raised.value).startswith(f"cuda_graphs: got true; {LINE}aten._local_scalar_dense.default)")
    assert str(raised.value).endswith("; takes false, or auto, which then does without")
    assert not caplog.messages

    cuda_graphs._say_that_there_is_none.cache_clear()
    for _ in range(2):
        fixed = FixedSteps(captures=True, required=False)
        without = trained(optimizer, fixed, **settings)
        same_bits(without, trained(optimizer, None, **settings))
        assert [graph.replays for graph in without.graphs] == [0], "the second length is not tried"
    (line,) = caplog.messages
    assert line.startswith("cuda_graphs=auto: training goes on without, as a step cannot be captured as a graph (oper")


def test_other_trouble_of_a_capture_is_not_taken_for_it(
    config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little memory, where there has to be a graph: the trial may go on later. A GPU that does not work at all."""
    optimizer = shipped(config, "adam")

    def fails(error: Exception) -> Callable[[QNetwork], Any]:
        def fail(module: nn.Module, given: Any) -> None:
            if isinstance(torch.utils._python_dispatch._get_current_dispatch_mode(), Graph):
                raise error

        return lambda network: network.register_forward_pre_hook(fail)

    full, broken = torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: an illegal memory access")
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        trained(optimizer, FixedSteps(captures=True), prepare=fails(full))
    trained(optimizer, FixedSteps(captures=True, required=False), prepare=fails(full))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        trained(optimizer, FixedSteps(captures=True, required=False), prepare=fails(broken), gpu_works=False)


def test_the_memory_of_a_captured_step_is_free_at_once(config: Callable[..., DictConfig]) -> None:
    fixed = FixedSteps(captures=True)
    trained(shipped(config, "sgd"), fixed)
    alive = [weakref.ref(step) for step in fixed._steps.values()]
    gc.disable()
    try:
        assert len(alive) == 2
        fixed.clear()
        assert [ref() for ref in alive] == [None, None]
    finally:
        gc.enable()


# --- cuda_graphs ------------------------------------------------------------------------------------------------------


def own(option: Any) -> None:
    """Make it an option of the user's own."""
    option.__class__ = type("Mine", (type(option),), {"__module__": "mine"})


def test_auto_is_a_graph_on_a_gpu_where_nothing_in_the_step_is_the_users_own(
    small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """true takes all that says that it can be captured; the check of a config refuses the others before."""

    def fixed_of(device: str, *words: str, own_part: str | None = None) -> bool | None:
        settings: Any = OmegaConf.to_object(small(*words))
        if own_part:
            own(getattr(settings, own_part))
        module = SequenceModule(make(), settings, ChunkSchedule.plan([1], epochs=1))
        monkeypatch.setattr(SequenceModule, "device", torch.device(device))
        found = module._fixed_steps()
        return None if found is None else found._capturing.required

    assert fixed_of("cuda") is False
    assert fixed_of("cuda", "cuda_graphs=auto", "optimizer=muon", "clip_mode=std", "model=minlstm") is False
    assert fixed_of("cuda", "cuda_graphs=true") is True
    assert fixed_of("cuda", "cuda_graphs=false") is None
    assert {fixed_of("cpu", f"cuda_graphs={word}") for word in ("auto", "true", "false")} == {None}
    for part in ("model", "task", "callback"):
        assert fixed_of("cuda", own_part=part) is None
        assert fixed_of("cuda", "cuda_graphs=true", own_part=part) is True
    assert fixed_of("cuda", own_part="optimizer") is False, "it says itself that it is capturable"
    monkeypatch.setattr("tbptt.training.options.Adam.capturable", False)
    assert fixed_of("cuda") is None
    monkeypatch.undo()
    monkeypatch.setattr("tbptt.training.cuda_graphs.SHIPPED", ("value",))
    assert fixed_of("cuda") is None, "a clip mode of the user's own"
