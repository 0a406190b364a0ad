"""The compiled layers give what PyTorch's give, for each instruction set that this processor has, and are left alone
where they cannot be used."""

import math
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from jaxtyping import TypeCheckError
from mlflow import MlflowClient
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from tbptt.models import kernels, noise
from tbptt.models.article import GRU, LSTM, QNetwork
from tbptt.models.layers import Dense
from tbptt.models.state import leaves, rebuild
from tbptt.runs.datamodule import SequenceDataModule
from tbptt.runs.fit import fit
from tbptt.system.stores import absolute_uri
from tbptt.training.chunks import train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no compiler when the package was installed")

# (steps, batch, inputs, units): the article's layer; sizes that fill no vector, tile or block; more rows than a block
SIZES = [(200, 15, 64, 64), (1, 1, 1, 1), (2, 3, 5, 10), (300, 1, 33, 7), (7, 17, 1, 32), (13, 4, 100, 9)]
SIZES += [(3, 101, 70, 19), (20, 6, 130, 67)]
DENSE = [((200, 15), 128, 64), ((1, 1), 1, 1), ((3, 7), 5, 33), ((700, 2), 300, 130)]  # (rows, inputs, outputs)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
HERE = [name for name in kernels.SETS if kernels.of_set(name)]
BEST = (HERE or ["none"])[0]


@pytest.fixture(params=HERE)
def each_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs once with each instruction set that this processor has."""
    found = kernels.of_set(request.param)
    monkeypatch.setattr(kernels, "library", lambda: found)


def weighted(*outputs: Tensor) -> Tensor:
    """A loss to which every element of every output matters differently."""
    parts = [(y * torch.arange(1.0, 1 + y.numel()).to(y).view_as(y).sin()).sum() for y in outputs]
    return torch.stack(parts).sum()


def close(ours: Tensor, theirs: Tensor) -> None:
    ours, theirs = ours.detach(), theirs.detach()
    assert float((ours - theirs).abs().max()) <= TOLERANCE[theirs.dtype] * max(1.0, float(theirs.abs().max()))


def recurrent(cell: type[LSTM | GRU], inputs: int, units: int) -> LSTM | GRU:
    """A layer with all its biases, each of them trained."""
    torch.manual_seed(0)
    return cell(inputs, units)


def a_state(cell: type[LSTM | GRU], batch: int, units: int, **options: Any) -> Any:
    """A state of random numbers, as the layer takes it."""
    h, c = (torch.randn(1, batch, units, **options) for _ in range(2))
    return (h, c) if cell is LSTM else h


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_a_recurrent_layer_is_pytorchs_with_all_its_gradients(
    cell: type[LSTM | GRU], sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    steps, batch, inputs, units = sizes
    layer = recurrent(cell, inputs, units).to(dtype)
    x = torch.randn(steps, batch, inputs, dtype=dtype, requires_grad=True)
    state = a_state(cell, batch, units, dtype=dtype, requires_grad=True)
    sources = [x, *leaves(state), *layer.parameters()]

    def everything() -> list[Tensor]:
        y, after = layer(x, state)
        return [y, *leaves(after), *torch.autograd.grad(weighted(y, *leaves(after)), sources)]

    ours = everything()
    with torch.no_grad():
        without_graph = layer(x, state)
    with kernels.torch_only():
        theirs = everything()
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)
    assert all(torch.equal(a, b) for a, b in zip(leaves(without_graph), ours, strict=False))


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("tanh", [True, False])
@pytest.mark.parametrize(
    "shape", [((200, 15), 128, 64), ((1, 1), 1, 1), ((3, 7), 5, 33), ((700, 2), 300, 130)], ids=str
)
def test_the_dense_layer_is_pytorchs(shape: tuple[tuple[int, ...], int, int], tanh: bool, dtype: torch.dtype) -> None:
    rows, inputs, outputs = shape
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs).to(dtype)
    x = torch.randn(*rows, inputs, dtype=dtype, requires_grad=True)
    sources = [x, layer.weight, layer.bias]
    both = [kernels.dense(x, layer.weight, layer.bias, tanh), torch.tanh(layer(x)) if tanh else layer(x)]
    close(*both)
    for a, b in zip(*(torch.autograd.grad(weighted(y), sources) for y in both), strict=True):
        close(a, b)


NETWORKS = [  # dense and recurrent layers, standard deviation of the noise
    ([64, 64], [64, 64], 0.01),
    ([], [5], 0.0),
    ([3], [7, 19, 4], 0.5),
]


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("dense", "hidden", "noise_std"), NETWORKS, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_network_in_one_call_is_to_the_bit_what_its_layers_compute_one_by_one(
    cell: str, dense: list[int], hidden: list[int], noise_std: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    network = QNetwork(6, dense, hidden, cell, noise_std, outputs=3).to(dtype)
    x = torch.randn(4, 11, 6, dtype=dtype, requires_grad=True)
    state = rebuild(network.zero_state(4), [t + torch.rand_like(t) for t in leaves(network.zero_state(4))])
    sources = [
        x,
        *(leaf.requires_grad_() for leaf in leaves(state)),
        *(p for p in network.parameters() if p.requires_grad),
    ]

    def everything() -> tuple[str, list[Tensor]]:
        noise.begin(noise.noise_layers(network.modules()), update=5, first_step=3)
        y, after = network(x, state)
        outputs = [y, *leaves(after)]
        function = y.grad_fn.next_functions[0][0]  # of what was transposed
        return type(function).__name__, [*outputs, *torch.autograd.grad(weighted(*outputs), sources)]

    name, at_once = everything()
    assert name == "_NetworkBackward"
    heard: list[nn.Module] = []
    network.head.register_forward_hook(lambda module, *_: heard.append(module))
    name, one_by_one = everything()
    assert (name, heard) == ("_DenseBackward", [network.head])
    assert all(torch.equal(a, b) for a, b in zip(at_once, one_by_one, strict=True))


def test_a_network_that_is_not_as_it_was_made_is_computed_layer_by_layer() -> None:
    class Twice(QNetwork):
        def forward(self, x: Tensor, state: Any) -> Any:
            return super().forward(2 * x, state)

    def function(network: QNetwork) -> str:
        y, _ = network(torch.randn(2, 3, 4), network.zero_state(2))
        return type(y.grad_fn.next_functions[0][0]).__name__

    assert function(QNetwork(4, [3], [5])) == "_NetworkBackward"
    assert function(Twice(4, [3], [5])) == "_DenseBackward"
    assert function(QNetwork(4, [3], [5], noise_pool=True)) == "_DenseBackward"
    network = QNetwork(4, [3], [5])
    network.dense[0] = nn.Linear(4, 3)
    assert function(network) == "_DenseBackward"


def test_layers_of_another_type_than_their_input_are_refused() -> None:
    x, network = torch.randn(2, 3, 4), QNetwork(4, [3], [5]).double()
    with pytest.raises(TypeError, match=r"torch.float64 beside an input of torch.float32; takes one type"):
        network(x, network.zero_state(2))
    with torch.no_grad(), pytest.raises(TypeError, match="takes one type"):
        network(x, network.zero_state(2))


REFUSED = (ValueError, TypeCheckError)  # the second by jaxtyping, which looks at annotated functions in tests only


def test_the_shape_that_is_taken_is_said() -> None:
    with pytest.raises(ValueError, match=r"^a layer's input, state or weight is \(2, 3\); takes \(3, 3\)$"):
        kernels.check(torch.float32, (torch.ones(2), (2,)), (torch.ones(2, 3), (3, 3)))


@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_what_does_not_fit_is_refused_and_no_other_memory_read(cell: str, graph: bool) -> None:
    network = QNetwork(4, [3], [5, 6], cell)
    good = network.zero_state(2)
    with torch.set_grad_enabled(graph):
        for x, state in (
            (torch.randn(2, 3, 5), good),
            (torch.randn(3, 3, 4), good),
            (torch.randn(2, 3, 4), good[::-1]),
            (torch.randn(2, 3, 4), QNetwork(4, [3], [5, 5], cell).zero_state(2)),
        ):
            with pytest.raises(REFUSED):
                network(x, state)
        network(torch.randn(2, 3, 4), good)
        network.dense[0] = Dense(4, 2)
        with pytest.raises(REFUSED):
            network(torch.randn(2, 3, 4), good)


def test_every_set_is_another_library_and_the_best_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HERE[-1] == "plain"
    assert len({found._name for name in HERE if (found := kernels.of_set(name))}) == len(HERE)
    code = "from tbptt.models import kernels; print(kernels.describe())"
    for asked, used in [("", BEST), *((name, name) for name in HERE)]:
        monkeypatch.setenv("TBPTT_KERNELS", asked)
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert said == f"compiled {kernels.VERSION} ({used})\n"
    monkeypatch.setenv("TBPTT_KERNELS", "sse9")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "torch\n"
    assert ended.stderr == f"TBPTT_KERNELS=sse9: PyTorch's layers are used; takes {' or '.join(HERE)} here\n"


@pytest.mark.usefixtures("each_set")
def test_an_input_that_is_not_contiguous_is_taken_as_it_is() -> None:
    torch.manual_seed(0)
    layer, x = LSTM(6, 5), torch.randn(4, 9, 6).transpose(0, 1)
    state = (torch.zeros(1, 4, 5), torch.zeros(1, 4, 5))
    ours = layer(x, state)[0]
    with kernels.torch_only():
        close(ours, layer(x, state)[0])


def test_a_bad_input_reaches_its_own_sequence_from_then_on_and_no_other() -> None:
    torch.manual_seed(0)
    network = QNetwork(4, [3], [5], noise_std=0.0)
    x = torch.randn(2, 6, 4)
    x[1, 3, 2] = math.nan
    y, _ = network(x, network.zero_state(2))
    assert y[0].isfinite().all()
    assert y[1, :3].isfinite().all()
    assert y[1, 3:].isnan().all()


@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_weights_that_are_not_contiguous_are_taken_as_they_are(cell: type[LSTM | GRU]) -> None:
    layer, x, state = recurrent(cell, 6, 5), torch.randn(4, 9, 6), a_state(cell, 9, 5)

    def everything() -> list[Tensor]:
        y, _ = layer(x, state)
        return [y, *torch.autograd.grad(weighted(y), list(layer.parameters()))]

    as_made = everything()
    for name in ("weight_ih_l0", "weight_hh_l0"):
        weight = getattr(layer, name)
        weight.data = weight.data.T.contiguous().T
        assert not weight.is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(everything(), as_made, strict=True))
    weight = torch.randn(6, 3).T
    close(kernels.dense(x, weight, torch.ones(3)), nn.functional.linear(x, weight, torch.ones(3)))


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weight", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
def test_a_bad_weight_shows_where_it_shows_in_pytorchs(weight: str, bad: float) -> None:
    torch.manual_seed(0)
    layer, x = LSTM(4, 5), torch.randn(6, 2, 4)
    state = (torch.randn(1, 2, 5), torch.randn(1, 2, 5))
    with torch.no_grad():
        getattr(layer, weight).view(20, -1)[12, 0] = bad  # of a cell's gate
        ours = layer(x, state)[0]
        with kernels.torch_only():
            theirs = layer(x, state)[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5, equal_nan=True)
    assert theirs.isnan().any() == math.isnan(bad) or weight != "bias_ih_l0"


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_saturated_gates_are_right(cell: type[LSTM | GRU]) -> None:
    layer = recurrent(cell, 1, 4)
    x = torch.tensor([-1e4, -90.0, -20.0, 0.0, 20.0, 90.0, 1e4]).view(-1, 1, 1)
    state = a_state(cell, 1, 4)
    ours = layer(x, state)[0]
    with kernels.torch_only():
        close(ours, layer(x, state)[0])


@pytest.mark.parametrize("cell", [LSTM, GRU])
def test_a_graph_can_be_gone_back_through_twice(cell: type[LSTM | GRU]) -> None:
    layer = recurrent(cell, 3, 4)
    y, _ = layer(torch.randn(5, 2, 3), a_state(cell, 2, 4))
    first = torch.autograd.grad(y.sum(), layer.weight_hh_l0, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(y.sum(), layer.weight_hh_l0)[0])
    assert first.any()


def test_they_are_not_used_where_they_cannot_be() -> None:
    x = torch.randn(2)
    assert kernels.usable(x)
    assert kernels.usable(x.double())
    assert not kernels.usable(x.bfloat16())
    assert not kernels.usable(x.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not kernels.usable(x)
    with kernels.torch_only():
        assert not kernels.usable(x)
        assert kernels.describe() == "torch"
    assert kernels.describe() == f"compiled {kernels.VERSION} ({BEST})"


CURVES = [
    ("lstm", "adam", {"lr": 0.003}, 1.0, "norm"),
    ("gru", "adam", {"lr": 0.003}, 1.0, "norm"),
    ("lstm", "rmsprop", {"lr": 0.001}, 0.5, "tensor_norm"),
    ("gru", "rmsprop", {"lr": 0.001}, None, "norm"),
    ("lstm", "momentum", {"lr": 0.01}, 0.05, "value"),
    ("gru", "sgd", {"lr": 0.05}, 2.0, "norm"),
    ("lstm", "adagrad", {"lr": 0.01}, 2.0, "std"),
    ("lstm", "adadelta", {"lr": 1.0}, None, "norm"),
]


@pytest.mark.parametrize(("cell", "optimizer", "settings", "clip", "clip_mode"), CURVES)
def test_a_loss_curve_is_as_near_that_in_float64_as_pytorchs_layers_come(
    small: Callable[..., DictConfig],
    cell: str,
    optimizer: str,
    settings: dict[str, float],
    clip: float | None,
    clip_mode: str,
) -> None:
    """Six passes of 10 chunks; rounding is all that may differ, which training makes larger."""
    cfg = small("data.length=600", "data.window=16")
    data = SequenceDataModule(OmegaConf.to_object(cfg.data), OmegaConf.to_object(cfg.task))

    def losses(dtype: torch.dtype) -> Tensor:
        torch.manual_seed(3)
        network = QNetwork(16, [12], [10, 9], cell, noise_std=0.1).to(dtype)
        parameters = FlatParameters(network)
        update = build_optimizer([parameters.vector], optimizer, **settings)
        features = copy(data.train.features)
        features.past, features.now = features.past.to(dtype), features.now.to(dtype)
        sequences = replace(data.train, features=features, targets=data.train.targets.to(dtype))
        passes = [
            train_pass(network, parameters, update, sequences, 10, clip=clip, clip_mode=clip_mode, first_update=10 * i)
            for i in range(6)
        ]
        return torch.cat([record.losses for record in passes]).double()

    ours = losses(torch.float32)
    with kernels.torch_only():
        theirs, exact = losses(torch.float32), losses(torch.float64)
    assert exact[-10:].sum() < exact[:10].sum()
    errors = [(found - exact).abs() for found in (ours, theirs)]
    deviations = [(float(error[:10].max()), float(error.max())) for error in errors]
    assert deviations[0][0] <= 4 * deviations[1][0] + 1e-6
    assert deviations[0][1] <= 4 * deviations[1][1] + 1e-5


@pytest.mark.parametrize(
    ("asked", "tag"),
    [("kernels=auto", f"compiled {kernels.VERSION} ({BEST})"), ("kernels=torch", "torch"), ("precision=bf16", "torch")],
)
def test_a_run_says_which_it_had(here: object, small: Callable[..., DictConfig], asked: str, tag: str) -> None:
    result = fit(small(asked, "epochs=1"))
    run = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db")).get_run(result.run_id)
    assert (run.data.tags["versions.kernels"], run.data.tags["device"]) == (tag, "cpu")
