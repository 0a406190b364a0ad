"""The chunk step in memory of its own, and weights in blocks: what a GPU gets, held against the plain loop on the CPU.

What only a GPU can show is in test_cuda.py.
"""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from test_bptt import CELLS, LENGTH, Problem, make
from torch import Tensor, nn

from tbptt.evaluation.losses import evaluate
from tbptt.models.article import QNetwork
from tbptt.options.option import GROUPS
from tbptt.system.runtime import full_float32, set_precision
from tbptt.training import cudnn_blocks
from tbptt.training.chunks import train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer, load_optimizer, optimizer_of, optimizer_state, state_problem
from tbptt.training.options import OptimizerConfig

# Every one, with the values that are shipped, on the vector or by tensor.
OPTIMIZERS = [f"optimizer={name}" for name in GROUPS["optimizer"]]
BY_TENSOR = ["optimizer=adamw optimizer.decay_biases=false", "optimizer=muon optimizer.decay_biases=false"]


def shipped(config: Callable[..., DictConfig], words: str) -> OptimizerConfig:
    return cast(OptimizerConfig, OmegaConf.to_object(config(*words.split()).optimizer))


def trained(network: QNetwork, chunks: list[int], fixed: FixedSteps | None, name: str = "adam") -> list[list[float]]:
    """What passes with so many chunks see: losses, norms, clipped, finite, all passes together."""
    torch.manual_seed(1)
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], name, lr=0.01)
    sequences = Problem().sequences()
    passes = [train_pass(network, parameters, optimizer, sequences, n, clip=0.5, fixed=fixed).to_host() for n in chunks]
    return [[value for one in passes for value in one[i]] for i in range(4)]


# --- memory of its own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("chunks", [1, 4, 5, LENGTH])
def test_steps_in_memory_of_their_own_train_the_same(cell: str, chunks: int) -> None:
    """Series of different lengths, chunks of two lengths, noise, several passes with the same steps."""
    one = make(cell, noise_std=0.1)
    other = copy.deepcopy(one)
    plain = trained(one, [chunks] * 3, None)
    assert trained(other, [chunks] * 3, FixedSteps()) == plain
    assert len(set(plain[0])) == 3 * chunks
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_new_stage_has_steps_of_its_own_lengths() -> None:
    one, fixed = make(), FixedSteps()
    other = copy.deepcopy(one)
    assert trained(other, [5, 2, 5], fixed) == trained(one, [5, 2, 5], None)
    assert sorted(fixed._steps) == [4, 5, 11, 12]
    fixed.clear()
    assert not fixed._steps


def test_chunks_cut_into_segments_are_left_to_the_plain_loop() -> None:
    network, fixed = make(), FixedSteps()
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "sgd", lr=0.01)
    train_pass(network, parameters, optimizer, Problem().sequences(), 1, segment_length=5, fixed=fixed)
    assert not fixed._steps


def test_a_loss_that_is_not_finite_stops_the_following_updates() -> None:
    problem = Problem()
    problem.targets[0, 10] = float("nan")
    network = make()
    parameters = FlatParameters(network)
    optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
    record = train_pass(network, parameters, optimizer, problem.sequences(), 5, fixed=FixedSteps())
    assert record.finite.tolist() == [1, 1, 0, 0, 0]
    assert torch.isfinite(parameters.vector).all()


# --- weights in blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["keras", "torch"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_block_is_a_recurrent_layer_as_cudnn_wants_it(cell: str, init: str) -> None:
    """Memory that begins with the layer: input weights, recurrent weights, both biases; aligned."""
    network = make(cell, init=init)
    before = copy.deepcopy(network.state_dict())
    parameters = FlatParameters(network, blocks=True)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    for layer in network.recurrent:
        weights = [layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0]
        assert weights[0].storage_offset() == 0
        assert [w.storage_offset() for w in weights[1:]] == [
            sum(w.numel() for w in weights[:i]) for i in range(1, len(weights))
        ]
        assert len({w.untyped_storage().data_ptr() for w in weights}) == 1
        assert (weights[0].data_ptr() - parameters.vector.data_ptr()) % (64 * 8) == 0
    parameters.vector.detach().mul_(2)
    for name, value in network.state_dict().items():
        assert torch.equal(value, 2 * before[name]), name


@pytest.mark.parametrize("mode", ["norm", "tensor_norm", "value", "std"])
@pytest.mark.parametrize("words", [*OPTIMIZERS, *BY_TENSOR])
def test_blocks_train_the_same(words: str, mode: str, config: Callable[..., DictConfig]) -> None:
    found: list[dict[str, Tensor]] = []
    for blocks in (False, True):
        network = make()
        parameters = FlatParameters(network, blocks)
        optimizer = optimizer_of(shipped(config, words), parameters)
        for _ in range(3):
            train_pass(network, parameters, optimizer, Problem().sequences(), 5, clip=0.1, clip_mode=mode)
        found.append(network.state_dict())
    for key in found[0]:
        torch.testing.assert_close(found[0][key], found[1][key], rtol=0, atol=1e-12)
        assert "bias_hh" not in key or not found[1][key].any()


@pytest.mark.parametrize("words", [*OPTIMIZERS, *BY_TENSOR])
@pytest.mark.parametrize("change", [(False, True), (True, False), (True, True)])
def test_training_goes_on_in_another_layout(
    words: str, change: tuple[bool, bool], config: Callable[..., DictConfig]
) -> None:
    """A run that began on the CPU goes on on a GPU, and the other way round."""

    def network_of(weights: dict[str, Tensor] | None) -> QNetwork:
        network = make()
        if weights:
            network.load_state_dict(weights)
        return network

    def go(network: nn.Module, parameters: FlatParameters, optimizer: torch.optim.Optimizer) -> None:
        train_pass(network, parameters, optimizer, Problem().sequences(), 4)  # type: ignore[arg-type]

    settings = shipped(config, words)
    whole = network_of(None)
    parameters = FlatParameters(whole)
    optimizer = optimizer_of(settings, parameters)
    for _ in range(2):
        go(whole, parameters, optimizer)

    first = network_of(None)
    parameters = FlatParameters(first, change[0])
    optimizer = optimizer_of(settings, parameters)
    go(first, parameters, optimizer)
    state = copy.deepcopy(optimizer_state(optimizer, parameters))
    assert state_problem(settings, first, state["state"]) is None

    second = network_of(first.state_dict())
    parameters = FlatParameters(second, change[1])
    optimizer = optimizer_of(settings, parameters)
    load_optimizer(optimizer, parameters, state)
    go(second, parameters, optimizer)
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("words", [*OPTIMIZERS, *BY_TENSOR])
def test_every_optimizer_can_be_told_that_a_graph_holds_it(words: str, config: Callable[..., DictConfig]) -> None:
    settings = shipped(config, words)
    assert settings.capturable
    for told in (True, False):
        groups = optimizer_of(settings, FlatParameters(make()), capturable=told).param_groups
        assert all(group.get("capturable", told) == told for group in groups)


def flattened(layer: nn.RNNBase) -> None:
    """In another order than ours, and with elements that no parameter has, as cuDNN might want it."""
    parameters = list(layer.parameters())
    memory = torch.zeros(sum(p.numel() for p in parameters) + 24, dtype=parameters[0].dtype)
    begin = 5
    for p in reversed(parameters):
        place = memory[begin : begin + p.numel()].view_as(p)
        place.copy_(p.detach())
        p.data = place
        begin += p.numel() + 3


@pytest.mark.parametrize("words", ["optimizer=adam", "optimizer=muon"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_block_lies_as_pytorch_lays_out_a_copy_of_its_layer(
    cell: str, words: str, config: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes and offsets are read; a vector with gaps trains the same, and has checkpoints in the same order."""
    found = []
    for laid_out in (False, True):
        if laid_out:
            monkeypatch.setattr(nn.RNNBase, "flatten_parameters", flattened)
        network = make(cell, init="torch")
        before = copy.deepcopy(network.state_dict())
        parameters = FlatParameters(network, blocks=laid_out)
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name
        optimizer = optimizer_of(shipped(config, words), parameters)
        for _ in range(3):
            train_pass(network, parameters, optimizer, Problem().sequences(), 5, clip=0.1)
        found.append((network.state_dict(), optimizer_state(optimizer, parameters)["state"]))
    for layer in network.recurrent:
        wanted = copy.deepcopy(layer)
        flattened(wanted)
        for ours, theirs in zip(layer.parameters(), wanted.parameters(), strict=True):
            assert ours.storage_offset() == theirs.storage_offset()
            assert ours.untyped_storage().nbytes() == theirs.untyped_storage().nbytes()
        assert len({p.untyped_storage().data_ptr() for p in layer.parameters()}) == 1
        assert (layer.bias_hh_l0.data_ptr() - 5 * 8 - parameters.vector.data_ptr()) % (64 * 8) == 0
    (one, its_state), (other, other_state) = found
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-12)
    for number, of_one in its_state.items():
        for key, value in of_one.items():
            torch.testing.assert_close(value, other_state[number][key], rtol=0, atol=1e-12)


def test_weights_that_are_copied_at_every_call_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As PyTorch's own check says it."""
    calls = nn.LSTM.forward

    def complains(self: nn.LSTM, *given: Any) -> Any:
        warnings.warn("RNN module weights are not part of single contiguous chunk of memory.", stacklevel=1)
        return calls(self, *given)

    laid_out = cudnn_blocks.blocks(make())
    random = torch.get_rng_state()
    cudnn_blocks.check_in_place(laid_out)
    assert not caplog.messages
    monkeypatch.setattr(nn.LSTM, "forward", complains)
    cudnn_blocks._say_that_weights_are_copied.cache_clear()
    for _ in range(2):
        cudnn_blocks.check_in_place(laid_out)
    (said,) = caplog.messages
    assert said.startswith("cuDNN does not read the recurrent layers' weights where they are")
    assert torch.equal(torch.get_rng_state(), random)


# --- precision ------------------------------------------------------------------------------------------------


def test_bf16_sees_every_update_of_its_own_pass() -> None:
    """Autocast keeps its casts of the weights until it is left, which is after the pass."""

    def losses(precise: bool) -> list[float]:
        network = make(noise_std=0).float()
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "sgd", lr=0.5)
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            return train_pass(network, parameters, optimizer, Problem().sequences(torch.float32), 8).losses.tolist()

    assert losses(False) == pytest.approx(losses(True), rel=0.02)
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("cell", CELLS)
def test_losses_of_frozen_weights_are_in_full_precision(cell: str) -> None:
    """So those of runs in bf16 and in float32 can be compared."""
    network, sequences = make(cell).float(), Problem().sequences(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = evaluate(network, sequences)
    assert torch.equal(rounded, evaluate(network, sequences))


@contextmanager
def as_tf32() -> Iterator[None]:
    set_precision("tf32")
    try:
        yield
    finally:
        set_precision(32)


def matrix_products() -> tuple[str, ...]:
    """How a GPU would compute them."""
    cudnn: Any = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.rnn.fp32_precision, cudnn.conv.fp32_precision


@pytest.mark.parametrize("precision", [32, "tf32"])
def test_torch_export_works_after_training_in_any_precision(precision: int | str) -> None:
    set_precision(precision)
    try:
        with full_float32():
            assert torch.backends.cudnn.allow_tf32 is False
        assert torch.backends.cudnn.allow_tf32 is (precision == "tf32")  # torch.export reads it, and would raise
        exported = torch.export.export(torch.nn.Linear(3, 2), (torch.ones(1, 3),))
        assert exported.module()(torch.ones(1, 3)).shape == (1, 2)
    finally:
        set_precision(32)


@pytest.mark.parametrize("fails", [False, True])
def test_frozen_weights_are_never_evaluated_in_tf32(fails: bool) -> None:
    network, sequences, seen = make().float(), Problem().sequences(torch.float32), []

    def look(*_: object) -> None:
        seen.append(matrix_products())
        if fails:
            raise KeyError

    network.head.register_forward_pre_hook(look)
    with as_tf32():
        with pytest.raises(KeyError) if fails else nullcontext():
            evaluate(network, sequences)
        assert set(seen) == {("highest", "none", "none")}
        assert matrix_products() == ("high", "tf32", "tf32")
    assert matrix_products() == ("highest", "none", "none")
