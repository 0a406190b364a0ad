"""What only a GPU can show. Skipped where there is none."""

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from omegaconf import DictConfig
from test_bptt import (
    CELLS,
    LENGTH,
    Problem,
    Spy,
    make,
    plain_forward,
    plain_gradient,
    plain_loss,
    remembered_noise,
    same,
    weights_of,
    zeros,
)

from tbptt.evaluation.losses import evaluate
from tbptt.models.article import QNetwork
from tbptt.options.option import GROUPS
from tbptt.runs.context import RunContext
from tbptt.runs.fit import fit
from tbptt.system import devices
from tbptt.system.runtime import set_precision
from tbptt.system.stores import absolute_uri
from tbptt.training import cudnn_blocks
from tbptt.training.chunks import train_pass
from tbptt.training.cuda_graphs import FixedSteps, _say_that_there_is_none
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer
from tbptt.training.segments import Cut, SegmentMemory

DEVICE = "cuda"
pytestmark = [
    pytest.mark.usefixtures("gpu"),
    pytest.mark.filterwarnings("ignore:.*capturable=True.*"),  # of steps outside a graph, which train.py hides too
]


@contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever makes the host wait for the device raises."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("mode", ["norm", "tensor_norm", "value", "std"])
@pytest.mark.parametrize("name", list(GROUPS["optimizer"]))
@pytest.mark.parametrize("graphs", [False, True])
def test_a_pass_never_waits(name: str, mode: str, graphs: bool) -> None:
    network = make(noise_std=0.1).float().to(DEVICE)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], name, lr=0.01, capturable=graphs)
    sequences = Problem().sequences(torch.float32).to(DEVICE)
    fixed, memory = FixedSteps() if graphs else None, SegmentMemory()

    def one_pass() -> None:
        train_pass(network, parameters, optimizer, sequences, 5, clip=0.1, clip_mode=mode, fixed=fixed)
        for kept in (None, memory):
            train_pass(
                network, parameters, optimizer, sequences, 1, clip=0.1, clip_mode=mode, segment_length=5, memory=kept
            )

    one_pass()  # makes what the libraries need, captures, and measures what segments take
    one_pass()  # begins by reading what was measured
    with no_waiting():
        one_pass()
        evaluate(network, sequences)


@pytest.mark.parametrize("noise_std", [0.0, 0.3])
@pytest.mark.parametrize("cell", CELLS)
def test_segments_give_the_gradient_of_the_whole_chunk(cell: str, noise_std: float) -> None:
    """Against the plain reference on the CPU, which gets the noise that the first pass over the segments drew."""
    network, problem = make(cell, noise_std=noise_std), Problem()
    w, added = weights_of(network), remembered_noise(network)
    parameters = FlatParameters(network.to(DEVICE), blocks=True)
    spy = Spy(parameters)
    train_pass(network, parameters, spy, problem.sequences().to(DEVICE), 1, segment_length=5)
    drawn = [added[3 * s : 3 * s + 3] for s in range(5)]
    again = [added[15 + 3 * s : 18 + 3 * s] for s in range(5)]
    for one, other in zip(drawn, reversed(again), strict=True):
        assert all(torch.allclose(a, b, rtol=0, atol=1e-14) for a, b in zip(one, other, strict=True))
    noise = [torch.cat([segment[i].cpu() for segment in drawn], dim=1) for i in range(3)]
    y, _ = plain_forward(w, problem.inputs(), zeros(network, 3), noise if noise_std else None)
    expected = plain_gradient(plain_loss(problem, y, 0, LENGTH), w)
    same(parameters.in_order(spy.gradients[0]).cpu(), expected)


@pytest.mark.parametrize("name", list(GROUPS["optimizer"]))
@pytest.mark.parametrize("cell", CELLS)
def test_a_graph_trains_like_the_plain_loop(cell: str, name: str) -> None:
    losses = []
    for fixed in (None, FixedSteps()):
        network = make(cell).to(DEVICE)
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], name, lr=0.01, capturable=fixed is not None)
        sequences = Problem().sequences().to(DEVICE)
        losses.append([])
        for _ in range(4):
            losses[-1] += train_pass(network, parameters, optimizer, sequences, 5, clip=0.5, fixed=fixed).to_host()[0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_a_graph_draws_new_noise_at_every_update() -> None:
    network = make(noise_std=0.5).float().to(DEVICE)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "sgd", lr=1e-30)
    sequences, fixed = Problem([20] * 3).sequences(torch.float32).to(DEVICE), FixedSteps()
    passes = [train_pass(network, parameters, optimizer, sequences, 5, fixed=fixed).to_host()[0] for _ in range(5)]
    assert len({value for one in passes for value in one}) == 25


def test_training_goes_on_where_a_step_cannot_be_captured(caplog: pytest.LogCaptureFixture) -> None:
    """With the noise that it would have had: a capture that failed leaves PyTorch's generator in the midst of it."""
    losses = []
    _say_that_there_is_none.cache_clear()
    for fixed in (None, FixedSteps(required=False)):
        network = make(noise_std=0.1).to(DEVICE)
        network.recurrent[1].register_forward_pre_hook(lambda layer, given: given[0].sum().item() and None)
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "adam", lr=0.01, capturable=fixed is not None)
        sequences = Problem().sequences().to(DEVICE)
        torch.manual_seed(1)
        losses.append([])
        for _ in range(4):
            losses[-1] += train_pass(network, parameters, optimizer, sequences, 5, clip=0.5, fixed=fixed).to_host()[0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    (said,) = caplog.messages
    assert said.startswith("cuda_graphs=auto: training goes on without")
    network = make(noise_std=0.1).to(DEVICE)  # and the next run has its graph
    parameters, fixed = FlatParameters(network), FixedSteps()
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.01, capturable=True)
    for _ in range(3):
        train_pass(network, parameters, optimizer, sequences, 5, fixed=fixed)
    assert all(step._replayed is not None and step._replayed._graph for step in fixed._steps.values())


@pytest.mark.parametrize("sizes", [[4, 3], [64], [33, 50], [200]])
@pytest.mark.parametrize("cell", CELLS)
def test_cudnn_reads_the_weights_where_they_are(cell: str, sizes: list[int]) -> None:
    network = QNetwork(5, dense=[], hidden=sizes, cell=cell).to(DEVICE)
    FlatParameters(network)
    assert not [block for block in cudnn_blocks.blocks(network) if cudnn_blocks.is_copied(block.layer)]


def test_a_long_chunk_is_cut_by_the_memory_of_the_gpu() -> None:
    network = make().float().to(DEVICE)
    sequences, memory = Problem([1200] * 3).sequences(torch.float32).to(DEVICE), SegmentMemory()
    cut = memory.cut("auto", network, sequences, 1200)
    assert isinstance(cut, Cut)
    assert cut.above > 10**6, "some kB a step, and some GB"


def test_the_gpu_trains_what_the_cpu_trains() -> None:
    losses = []
    for device in ("cpu", DEVICE):
        network = make().to(device)
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
        sequences = Problem().sequences().to(device)
        losses.append([])
        for _ in range(3):
            losses[-1] += train_pass(network, parameters, optimizer, sequences, 5, clip=0.5).to_host()[0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


@pytest.mark.parametrize("words", [[], ["cuda_graphs=false"], ["precision=tf32"], ["precision=bf16"]])
def test_a_run_goes_on_on_the_other_device(here: Path, small: Callable[..., DictConfig], words: list[str]) -> None:
    begun = fit(small(f"device={DEVICE}", "epochs=2", *words))
    assert begun.stop_reason == "epochs"
    elsewhere = ["device=cpu", *(w for w in words if w == "precision=bf16")]
    result = fit(small("epochs=4", *elsewhere), RunContext(resume=begun.run_id))
    assert result.run_id == begun.run_id
    assert result.stop_reason == "epochs"
    assert result.best.value is not None
    tags = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db")).get_run(begun.run_id).data.tags
    assert tags["device"] == f"cuda ({torch.cuda.get_device_name()}), then cpu"
    assert tags["versions.kernels"].startswith("cuDNN ")


# --- what was decided without one -----------------------------------------------------------------------------


def test_this_one_is_taken() -> None:
    assert devices.look() is None
    assert devices.pick_device("auto") == "cuda"
    with devices.from_another_process():
        assert devices.why_no_gpu() is None


@pytest.mark.parametrize("cell", CELLS)
def test_recurrent_layers_compute_in_float32_under_bf16(cell: str) -> None:
    network, dtypes = make(cell).float().to(DEVICE), set()
    FlatParameters(network)
    for layer in network.recurrent:
        layer.register_forward_hook(lambda _, given, got: dtypes.add((given[0].dtype, got[0].dtype)))
    sequences = Problem().sequences(torch.float32).to(DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        y, _ = network(sequences.features(0, 5), network.zero_state(3))
    assert dtypes == {(torch.float32, torch.float32)}
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("cell", CELLS)
def test_frozen_weights_are_evaluated_in_float32_under_tf32(cell: str) -> None:
    network, sequences = make(cell).float().to(DEVICE), Problem().sequences(torch.float32).to(DEVICE)
    set_precision(32)
    exact = evaluate(network, sequences)
    set_precision("tf32")
    try:
        assert torch.equal(evaluate(network, sequences), exact)
    finally:
        set_precision(32)


def test_too_much_is_told_from_a_failure_and_leaves_the_gpu_usable() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 48, device=DEVICE)
    assert isinstance(devices.gpu_trouble(raised.value), devices.GpuMemory)
    devices.release_memory()
    assert devices.look() is None


LOSES_ITS_CONTEXT = """
import torch
from tbptt.system.devices import gpu_trouble
for _ in range(2):
    try:
        torch.ones(2, device="cuda")[torch.tensor([5], device="cuda")].sum().item()
    except Exception as error:
        print(type(gpu_trouble(error)).__name__)
"""


def test_a_lost_context_is_known_and_stays_lost() -> None:
    found = subprocess.run([sys.executable, "-c", LOSES_ITS_CONTEXT], capture_output=True, text=True, check=False)
    assert found.stdout.split() == ["GpuFailed", "GpuFailed"], found.stderr


@pytest.mark.parametrize("words", [["cuda_graphs=false"], ["cuda_graphs=true"]])
def test_a_run_leaves_nothing_on_the_gpu(here: Path, small: Callable[..., DictConfig], words: list[str]) -> None:
    held = []
    for _ in range(3):
        fit(small(f"device={DEVICE}", *words))
        held.append(torch.cuda.memory_allocated())
    assert held[2] == held[1]
    gc.collect()
    assert torch.cuda.memory_allocated() == held[2]
