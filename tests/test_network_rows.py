"""Networks that are computed together give, to the bit, what each gives alone by autograd."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tbptt.models import kernels, noise
from tbptt.models.article import QNetwork
from tbptt.models.layers import Dense
from tbptt.models.rows import NetworkRows, why_not
from tbptt.models.state import leaves, rebuild
from tbptt.training.flat import FlatParameters

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no compiler when the package was installed")

HERE = [name for name in kernels.SETS if kernels.of_set(name)]
BATCH, INPUTS, OUTPUTS = 3, 6, 2
KINDS = [("keras", 0.3), ("torch", 0.01), ("keras", 0.0), ("torch", 0.0), ("keras", 0.02)]  # init, noise_std of a row
SIZES = [([20], [7, 17]), ([], [5])]  # dense and recurrent layers


@pytest.fixture(params=HERE)
def each_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs once with each instruction set that this processor has."""
    found = kernels.of_set(request.param)
    monkeypatch.setattr(kernels, "library", lambda: found)


def same(one: Tensor, other: Tensor) -> bool:
    """Whether all bits are: 0 and -0 differ."""
    whole = {4: torch.int32, 8: torch.int64}[one.itemsize]
    return one.shape == other.shape and torch.equal(one.contiguous().view(whole), other.contiguous().view(whole))


class Alone:
    """A network that is trained by autograd, as the chunk loop does it."""

    def __init__(self, network: QNetwork, batch: int = BATCH):
        self.network, self.flat = network, FlatParameters(network)
        self.state = network.zero_state(batch)

    def gradient(self, x: Tensor, dy: Tensor, update: int) -> Tensor:
        """The predictions (T, B, O) of a chunk. Leaves the gradient in the flat vector, and the state."""
        self.flat.attach()
        self.flat.grad.zero_()
        noise.begin(noise.noise_layers(self.network.modules()), update)
        y, state = self.network(x.transpose(0, 1), self.state)
        y.backward(dy.transpose(0, 1))
        self.state = [tuple(t.detach() for t in of_layer) for of_layer in state]
        return y.detach().transpose(0, 1)

    def learn(self) -> None:
        self.flat.vector.detach().add_(self.flat.grad, alpha=-0.1)


def networks(cell: str, dtype: torch.dtype, sizes: tuple[list[int], list[int]] = SIZES[0]) -> list[QNetwork]:
    """One a row, in different initialisations and with different noise."""
    made = []
    for i, (init, noise_std) in enumerate(KINDS):
        torch.manual_seed(2**63 + i)
        made.append(QNetwork(INPUTS, *sizes, cell, noise_std, init, OUTPUTS).to(dtype))
    return made


def both(made: Sequence[QNetwork], threads: int = 1) -> tuple[list[Alone], list[FlatParameters], NetworkRows]:
    """The networks alone, and copies of them as rows."""
    copies = copy.deepcopy(list(made))
    flats = [FlatParameters(network) for network in copies]
    return [Alone(network) for network in made], flats, NetworkRows(copies, [f.grads for f in flats], threads)


def of_row(state: Sequence[Tensor], row: int) -> Iterator[Tensor]:
    return (tensor[row : row + 1] for tensor in state)


CHUNKS = [(5, [0, 1, 2, 3, 4]), (5, [3, 0, 4]), (9, [2]), (1, [4, 1])]  # steps, and the rows that have such a chunk


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_rows_are_to_the_bit_what_each_network_is_alone(
    cell: str, sizes: tuple[list[int], list[int]], dtype: torch.dtype
) -> None:
    alone, flats, rows = both(networks(cell, dtype, sizes), threads=2)
    state = rows.zero_state(BATCH)
    for chunk, (steps, chosen) in enumerate(CHUNKS):
        shared = torch.randn(steps, BATCH, INPUTS, dtype=dtype)
        x: Any = [shared + row for row in chosen] if chunk == 1 else shared
        dy = torch.randn(len(chosen), steps, BATCH, OUTPUTS, dtype=dtype)
        updates = [10 * row + chunk for row in chosen]
        for row in chosen:
            flats[row].grad.fill_(float("nan"))  # what was there does not matter
        y = rows.forward(x, chosen, state, updates)
        rows.backward(dy)
        for i, row in enumerate(chosen):
            one = alone[row]
            assert same(y[i], one.gradient(x[i] if chunk == 1 else x, dy[i], updates[i]))
            assert same(flats[row].grad, one.flat.grad)
            assert one.flat.grad.abs().sum() > 0
            for ours, theirs in zip(of_row(state, row), (t for part in one.state for t in part), strict=True):
                assert same(ours, theirs)
            flats[row].vector.detach().add_(flats[row].grad, alpha=-0.1)
            one.learn()
    rows.close()


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_predictions_are_those_in_eval_mode_and_leave_what_a_backward_pass_needs(cell: str) -> None:
    alone, flats, rows = both(networks(cell, torch.float32))
    x, dy = torch.randn(4, BATCH, INPUTS), torch.randn(5, 4, BATCH, OUTPUTS)
    rows.forward(x, range(5), rows.zero_state(BATCH), [7] * 5)
    state, chosen, carried = rows.zero_state(2), [4, 1], {row: alone[row].network.zero_state(2) for row in (4, 1)}
    for steps in (8, 3):
        held_out = torch.randn(steps, 2, INPUTS)
        y = rows.predict(held_out, chosen, state)
        for i, row in enumerate(chosen):
            with torch.no_grad():
                found, carried[row] = alone[row].network.eval()(held_out.transpose(0, 1), carried[row])
            assert same(y[i], found.transpose(0, 1))
            for ours, theirs in zip(of_row(state, row), (t for part in carried[row] for t in part), strict=True):
                assert same(ours, theirs)
    assert not any(tensor[0].any() for tensor in state)  # of a row that was not asked for
    rows.backward(dy)
    for row, one in enumerate(alone):
        one.network.train()
        one.gradient(x, dy[row], 7)
        assert same(flats[row].grad, one.flat.grad)


def by_segments(one: Alone, x: Tensor, dy: Tensor, update: int, pieces: Sequence[tuple[int, int]]) -> None:
    """The gradient of a chunk as autograd finds it segment by segment, from the last one to the first."""
    network, befores = one.network, [one.state]
    for start, stop in pieces:
        noise.begin([network.noise], update, start)
        with torch.no_grad():
            befores.append(network(x[start:stop].transpose(0, 1), befores[-1])[1])
    handed: list[Tensor] = []
    for (start, stop), before in reversed(list(zip(pieces, befores, strict=False))):
        given = rebuild(before, [leaf.clone().requires_grad_() for leaf in leaves(before)])
        noise.begin([network.noise], update, start)
        y, after = network(x[start:stop].transpose(0, 1), given)
        ends = leaves(after) if handed else []
        torch.autograd.backward([y, *ends], [dy[start:stop].transpose(0, 1), *handed])
        handed = [leaf.grad for leaf in leaves(given) if leaf.grad is not None]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_chunk_in_segments_has_the_gradient_that_autograd_hands_from_segment_to_segment(cell: str) -> None:
    alone, flats, rows = both(networks(cell, torch.float32))
    x, dy = torch.randn(7, BATCH, INPUTS), torch.randn(5, 7, BATCH, OUTPUTS)
    state, pieces = rows.zero_state(BATCH), [(0, 3), (3, 6), (6, 7)]
    befores = []
    for start, stop in pieces:
        befores.append([tensor.clone() for tensor in state])
        rows.forward(x[start:stop], range(5), state, [4] * 5, first_step=start, keep=False)
    for (start, stop), before in reversed(list(zip(pieces, befores, strict=True))):
        rows.forward(x[start:stop], range(5), before, [4] * 5, first_step=start)
        rows.backward(dy[:, start:stop], carried=stop < 7, add=stop < 7)
    for row, one in enumerate(alone):
        by_segments(one, x, dy[row], 4, pieces)
        assert same(flats[row].grad, one.flat.grad)


@pytest.mark.usefixtures("each_set")
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_gradient_that_underflows_is_0_and_not_minus_0(cell: str, sizes: tuple[list[int], list[int]]) -> None:
    alone, flats, rows = both(networks(cell, torch.float32, sizes))
    for scale in (1e-25, 3e-45):  # of the smallest numbers there are, most products vanish
        x, dy = 1e-25 * torch.randn(1, 1, INPUTS), scale * torch.randn(5, 1, 1, OUTPUTS)
        rows.forward(x, range(5), rows.zero_state(1), [0] * 5)
        rows.backward(dy)
        for row, one in enumerate(alone):
            one.state = one.network.zero_state(1)
            one.gradient(x, dy[row], 0)
            assert same(flats[row].grad, one.flat.grad)
            assert (flats[row].grad == 0).any()


def test_another_network_takes_a_row_over_from_a_state_of_zeros() -> None:
    alone, _, rows = both(networks("lstm", torch.float32))
    x, dy, state = torch.randn(4, BATCH, INPUTS), torch.randn(2, 4, BATCH, OUTPUTS), rows.zero_state(BATCH)
    rows.forward(x, [0, 1], state, [0, 0])
    torch.manual_seed(77)
    new = QNetwork(INPUTS, *SIZES[0], "lstm", 0.5, "torch", OUTPUTS)
    other = Alone(copy.deepcopy(new))
    flat = FlatParameters(new)
    rows.put(1, new, flat.grads)
    rows.reset(state, [1])
    y = rows.forward(x, [1, 0], state, [3, 1])
    rows.backward(dy)
    assert same(y[0], other.gradient(x, dy[0], 3))
    assert same(flat.grad, other.flat.grad)
    alone[0].gradient(x, dy[1], 0)
    assert same(y[1], alone[0].gradient(x, dy[1], 1))


def test_all_threads_take_denormal_numbers_as_the_first_one_does() -> None:
    alone, flats, rows = both(networks("lstm", torch.float32), threads=3)
    x, dy = 1e-39 * torch.randn(900, BATCH, INPUTS), torch.randn(5, 900, BATCH, OUTPUTS)
    found = []
    for flush in (False, True):  # the threads begin in the first round
        if not torch.set_flush_denormal(flush):
            pytest.skip("this processor always computes with denormal numbers")
        try:
            rows.forward(x, range(5), rows.zero_state(BATCH), [0] * 5)
            rows.backward(dy)
            for row, one in enumerate(alone):
                one.state = one.network.zero_state(BATCH)
                one.gradient(x, dy[row], 0)
                assert same(flats[row].grad, one.flat.grad)
        finally:
            torch.set_flush_denormal(False)
        found.append(torch.stack([flat.grads[0].abs().sum() for flat in flats]))
    assert (found[0] > 0).all()
    assert not found[1].any()


def test_the_noise_of_a_row_does_not_depend_on_its_neighbours_or_the_threads() -> None:
    made, x = networks("gru", torch.float32), torch.randn(40, BATCH, INPUTS)
    _, _, one = both(made)
    _, _, two = both(made, threads=2)
    ys = [each.forward(x, range(5), each.zero_state(BATCH), [1, 2, 3, 4, 5]) for each in (one, two)]
    assert same(*ys)
    assert same(one.forward(x, [4], one.zero_state(BATCH), [5])[0], ys[0][4])
    assert not same(one.forward(x, [4], one.zero_state(BATCH), [6])[0], ys[0][4])


def test_what_cannot_be_a_row_says_why() -> None:
    class Other(QNetwork):
        pass

    def network(**options: Any) -> QNetwork:
        return QNetwork(**{"inputs": 4, "dense": [3], "hidden": [5], **options})

    def problem(*made: QNetwork, dtype: torch.dtype = torch.float32) -> str | None:
        return why_not(made, dtype)

    assert problem(network(), network(init="torch", noise_std=0.7)) is None
    assert problem() == "there are no networks"
    as_made = "network 1: it is no QNetwork as it was made, with noise by counter"
    heard = network()
    heard.head.register_forward_hook(lambda *_: None)
    for odd in (Other(4, [3], [5]), network(noise_pool=True), heard):
        assert problem(network(), odd) == as_made
    for odd in (network(cell="gru"), network(hidden=[5, 5]), network(dense=[]), network(outputs=1)):
        assert problem(network(), odd) == "network 1 has layers of other kinds or sizes than the first one"
    assert problem(network().double()) == "network 0: a weight is not contiguous numbers of torch.float32 on the CPU"
    frozen = network()
    frozen.head.bias.requires_grad_(False)
    assert problem(frozen) == "network 0: a weight is frozen that is no bias_hh of a recurrent layer"
    shared = network(dense=[4, 4])
    shared.dense[1].weight = shared.dense[0].weight
    assert problem(shared) == "network 0: its layers share weights, or have other weights than they were made with"
    changed = network()
    changed.dense[0] = Dense(4, 2)
    assert problem(changed) == "network 0: the sizes of its layers do not fit together"
    assert problem(network(), dtype=torch.bfloat16) == "the compiled layers are not used here"
    with kernels.torch_only():
        assert problem(network()) == "the compiled layers are not used here"


def test_what_does_not_fit_is_refused_and_no_other_memory_read() -> None:
    _, flats, rows = both(networks("lstm", torch.float32))
    x, state = torch.randn(4, BATCH, INPUTS), rows.zero_state(BATCH)
    with pytest.raises(RuntimeError, match="no forward pass"):
        rows.backward(torch.randn(2, 4, BATCH, OUTPUTS))
    for chosen in ([], [0, 0], [5], [-1]):
        with pytest.raises(ValueError, match="takes different numbers from 0 to 4"):
            rows.forward(x, chosen, state, [0] * len(chosen))
    bad: list[tuple[Any, ...]] = [
        (x, [0], state, [0, 1]),
        ([x, x], [0], state, [0]),
        ([x, x[:3]], [0, 1], state, [0, 0]),
        (x[..., 1:], [0], state, [0]),
        (x, [0], rows.zero_state(2), [0]),
        (x, [0], [tensor[:1] for tensor in state], [0]),
        (x, [0], state[1:], [0]),
        (x, [0], [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in state], [0]),
    ]
    for given in bad:
        with pytest.raises(ValueError):  # noqa: PT011
            rows.forward(*given)
    with pytest.raises(TypeError, match="takes one type"):
        rows.forward(x.double(), [0], state, [0])
    rows.forward(x, [0, 1], state, [0, 0])
    with pytest.raises(ValueError, match="takes"):
        rows.backward(torch.randn(1, 4, BATCH, OUTPUTS))
    with pytest.raises(ValueError, match="to go on from"):
        rows.backward(torch.randn(2, 4, BATCH, OUTPUTS), carried=True)
    torch.manual_seed(0)
    other = QNetwork(INPUTS, [20], [7, 18], outputs=OUTPUTS)
    gradients = FlatParameters(other).grads
    with pytest.raises(ValueError, match="than the rows"):
        rows.put(0, other, gradients)
    with pytest.raises(ValueError):  # noqa: PT011
        rows.put(0, networks("lstm", torch.float32)[0], flats[0].grads[1:])
