"""Networks of one's own: any tree as the state, whole, by segments and in memory of its own; what cannot be trained is
told in a line."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from test_bptt import LENGTH, STEPS, WINDOW, Problem, pieces, plain_gradient, same, spied, weights_of
from torch import Tensor, nn
from torch.func import functional_call

from tbptt.extend import ArticleModel, ModelConfig, key, number, one_of, whole
from tbptt.models.build import build_network, outline
from tbptt.models.state import copy_into, detach, difference, leaves, rebuild
from tbptt.models.try_out import try_out
from tbptt.training.chunks import Step, train_pass
from tbptt.training.cuda_graphs import FixedSteps
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import build_optimizer

SEGMENTS = [None, 5, 1]  # of how many steps each; None: the chunk in one piece


class Cell(NamedTuple):
    h: Tensor
    c: Tensor


class Base(nn.Module):
    """What the networks of these tests share: an LSTM cell by hand, in float64, with dropout."""

    def __init__(self, outputs: int = 2, hidden: int = 3):
        super().__init__()
        torch.manual_seed(0)
        self.gates = nn.Linear(WINDOW + hidden, 4 * hidden)
        self.head = nn.Linear(hidden, outputs)
        self.drop = nn.Dropout(0.0)
        self.hidden = hidden
        self.double()

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = self.gates(torch.cat([self.drop(x), h], dim=1)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    def zeros(self, batch: int) -> Tensor:
        return self.head.weight.new_zeros(batch, self.hidden)


class Nested(Base):
    """A dict of a named tuple, a list, a counter that the output depends on, a part that nothing reads, and one that is
    made anew; its keys come back in another order."""

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        (h, c), [slow], steps = state["cell"], state["slow"], state["steps"]
        outputs = []
        for x_t in x.unbind(1):
            h, c = self.step(x_t, h, c)
            slow = 0.9 * slow + 0.1 * h
            outputs.append(self.head(slow + h) / (1 + steps[:, None]).sqrt())
            steps = steps + 1
        new = {"unused": state["unused"], "last": x[:, -1].clone(), "steps": steps, "slow": [slow], "none": None}
        return torch.stack(outputs, 1), {**new, "cell": Cell(h, c)}

    def zero_state(self, batch: int) -> Any:
        zero, x = self.zeros(batch), self.head.weight.new_zeros(batch, WINDOW)
        steps = torch.zeros(batch, dtype=torch.long)
        return {"cell": Cell(zero, zero), "slow": [zero], "steps": steps, "unused": zero + 7, "last": x, "none": None}


class Bare(Base):
    """One tensor is the state."""

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for x_t in x.unbind(1):
            state = self.step(x_t, state, state)[0]
            outputs.append(self.head(state))
        return torch.stack(outputs, 1), state

    def zero_state(self, batch: int) -> Tensor:
        return self.zeros(1).expand(batch, -1)  # one number in memory for all sequences


class Stateless(Base):
    """Nothing is carried."""

    def forward(self, x: Tensor, state: tuple[()]) -> tuple[Tensor, tuple[()]]:
        zero = self.zeros(len(x))
        return torch.stack([self.head(self.step(x_t, zero, zero)[0]) for x_t in x.unbind(1)], 1), state

    def zero_state(self, batch: int) -> tuple[()]:
        return ()


class Learned(Bare):
    """The state at the start of a sequence is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.linspace(-1, 1, self.hidden, dtype=torch.float64))

    def zero_state(self, batch: int) -> Tensor:
        return self.start.tanh().expand(batch, -1)


class Delayed(Bare):
    """The output is of two steps ago: what a chunk leaves are views of what it was given."""

    def forward(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        last, before = state["last"], state["before"]
        outputs = []
        for x_t in x.unbind(1):
            last, before = self.step(x_t, last, before)[0], last
            outputs.append(self.head(before))
        return torch.stack(outputs, 1), {"last": last, "before": before}

    def zero_state(self, batch: int) -> Any:
        return {"last": self.zeros(batch), "before": self.zeros(batch)}


class Levelled(Bare):
    """It has a buffer that every forward pass reads and changes."""

    level: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(WINDOW, dtype=torch.float64))

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y = super().forward(x - self.level, state)
        self.level.lerp_(x.detach().mean((0, 1)), 0.5)
        return y


NETWORKS = [Nested, Bare, Stateless, Learned, Delayed]


def forward(network: nn.Module, w: dict[str, Tensor], x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """With weights from elsewhere."""
    y, after = functional_call(network, w, (x, state))
    return y, after


def loss_of(problem: Problem, y: Tensor, start: int, stop: int) -> Tensor:
    """The mean over valid steps and outputs, by definition."""
    mask = torch.from_numpy(problem.mask[:, start:stop])
    error = (y - torch.from_numpy(problem.targets[:, start:stop])).square() * mask[..., None]
    return error.sum() / (mask.sum() * y.shape[-1])


# --- the state as a tree --------------------------------------------------------------------------------------


A, B, C = torch.tensor([1.0]), torch.tensor([2.0, 3.0]), torch.tensor(4)
TREES: list[tuple[Any, list[Tensor]]] = [
    (A, [A]),
    ((), []),
    ({}, []),
    (None, []),
    ([A, (B, None)], [A, B]),
    ({"z": A, "a": [B, {"k": C}]}, [B, C, A]),
    (Cell(A, B), [A, B]),
    (OrderedDict(b=A, a=Cell(B, C)), [B, C, A]),
]


@pytest.mark.parametrize(("tree", "tensors"), TREES, ids=[str(type(tree).__name__) for tree, _ in TREES])
def test_a_tree_is_taken_apart_and_put_together_again(tree: Any, tensors: list[Tensor]) -> None:
    found = leaves(tree)
    assert [id(t) for t in found] == [id(t) for t in tensors]
    new = rebuild(tree, [t + 1 for t in tensors])
    assert type(new) is type(tree)
    assert all(torch.equal(a, b + 1) for a, b in zip(leaves(new), tensors, strict=True))
    assert difference(tree, new) is None
    assert all(id(a) == id(b) for a, b in zip(leaves(tree), tensors, strict=True)), "it was changed itself"
    if isinstance(tree, dict):
        assert list(new) == list(tree)


def test_detached_states_keep_values_and_lose_the_graph() -> None:
    weight = torch.ones(2, requires_grad=True)
    state = {"a": weight * 2, "n": torch.tensor(3)}
    cut = detach(state)
    assert cut["a"].tolist() == [2, 2]
    assert not cut["a"].requires_grad
    assert state["a"].requires_grad


def test_a_state_is_written_in_place_as_if_all_at_once() -> None:
    one, two = torch.tensor([1.0]), torch.tensor([2.0])
    copy_into([one, two], [two.detach(), one.detach()])
    assert (one.item(), two.item()) == (2, 1)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (3.0, "type float"),
        ({"h": [torch.ones(1), "x"]}, "type str"),
        ([torch.ones(1), {"n": 3}], "type int"),
    ],
)
def test_what_is_no_tree_of_tensors_is_an_error(state: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        leaves(state)


# --- training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", SEGMENTS)
@pytest.mark.parametrize("steps", [[LENGTH] * 3, STEPS], ids=["whole", "padded"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_are_those_of_plain_autograd(kind: type[Any], steps: list[int], length: int | None) -> None:
    """Of each of two chunks, the state carried and cut off between; whole and by segments."""
    network, problem = kind(), Problem(steps)
    w, x = weights_of(network), problem.inputs()
    record, gradients = spied(network, problem.sequences(), 2, segment_length=length)
    state, losses = functional_call(StartOf(network), {f"network.{k}": v for k, v in w.items()}, (3,)), []
    for (start, stop), gradient in zip(pieces(LENGTH, 2), gradients, strict=True):
        y, after = forward(network, w, x[:, start:stop], state)
        losses.append(loss_of(problem, y, start, stop))
        expected = torch.autograd.grad(losses[-1], list(w.values()), allow_unused=True)
        same(gradient, torch.cat([g.flatten() for g in _zeros(expected, w)]))
        state = detach(after)
    assert record.losses.tolist() == pytest.approx([loss.item() for loss in losses], rel=1e-6)


class StartOf(nn.Module):
    """``zero_state`` as a forward pass, so that it too takes weights from elsewhere."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, batch: int) -> Any:
        return self.network.zero_state(batch)


def _zeros(gradients: Any, w: dict[str, Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, w.values(), strict=True)]


def test_the_start_of_a_sequence_is_trained_by_its_first_chunk_alone() -> None:
    network = Learned()
    names = [name for name, _ in network.named_parameters()]
    at = sum(p.numel() for name, p in network.named_parameters() if names.index(name) < names.index("start"))
    for length in SEGMENTS:
        _, gradients = spied(network, Problem().sequences(), 2, segment_length=length)
        first, second = (gradient[at : at + network.hidden] for gradient in gradients)
        assert first.abs().min() > 0
        assert not second.any()


@pytest.mark.parametrize("length", [5, 1])
@pytest.mark.parametrize("kind", NETWORKS)
def test_segments_draw_the_same_random_numbers_again(kind: type[Any], length: int) -> None:
    """Dropout: the second forward pass of each segment gives the outputs of the first, and what follows draws on."""
    network, seen = kind(), list[Tensor]()
    network.drop.p = 0.5
    network.register_forward_hook(lambda module, given, result: seen.append(result[0].detach()))
    torch.manual_seed(3)
    spied(network, Problem().sequences(), 1, segment_length=length)
    after = torch.get_rng_state()
    first, again = seen[: len(seen) // 2], seen[len(seen) // 2 :][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.manual_seed(3)
    state = network.zero_state(3)
    for start in range(0, LENGTH, length):
        _, state = network(Problem().sequences().features(start, min(start + length, LENGTH)), state)
    assert torch.equal(torch.get_rng_state(), after)


def test_segments_change_buffers_as_one_pass_does() -> None:
    network, problem, length = Levelled(), Problem(), 5
    other = copy.deepcopy(network)
    _, [gradient] = spied(network, problem.sequences(), 1, segment_length=length)
    x, state, outputs = problem.inputs(), other.zero_state(3), []
    for start in range(0, LENGTH, length):
        # The same values as a constant: autograd does not let one change what it still needs.
        values = other.level.clone()
        y, state = Bare.forward(other, x[:, start : start + length] - values, state)
        other.level.lerp_(x[:, start : start + length].mean((0, 1)), 0.5)
        outputs.append(y)
    loss = loss_of(problem, torch.cat(outputs, 1), 0, LENGTH)
    same(gradient, plain_gradient(loss, dict(other.named_parameters())))
    same(network.level, other.level)


@pytest.mark.parametrize("chunks", [1, 4, 5])
@pytest.mark.parametrize("kind", [*NETWORKS, Levelled])
def test_steps_in_memory_of_their_own_train_the_same(kind: type[Any], chunks: int) -> None:
    found = []
    for fixed in (None, FixedSteps()):
        network = kind()
        parameters = FlatParameters(network)
        optimizer = build_optimizer([parameters.vector], "adam", lr=0.01)
        sequences = Problem().sequences()
        passes = [train_pass(network, parameters, optimizer, sequences, chunks, fixed=fixed) for _ in range(3)]
        found.append(([one.losses.tolist() for one in passes], network.state_dict()))
    (plain, weights), (own, other) = found
    assert own == plain
    assert len({loss for losses in plain for loss in losses}) == 3 * chunks
    assert all(torch.equal(weights[name], other[name]) for name in weights)


@pytest.mark.parametrize("kind", [Nested, Bare])
def test_a_network_may_have_three_outputs(kind: type[Any]) -> None:
    network, problem = kind(outputs=3), Problem()
    problem.targets = torch.randn(3, LENGTH, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    w, sequences = weights_of(network), problem.sequences()
    step = Step(network, FlatParameters(network), torch.optim.SGD(network.parameters(), lr=0))
    loss, state = step.backward(sequences, 0, LENGTH, network.zero_state(3), 3 * sequences.valid_steps)
    expected = loss_of(problem, forward(network, w, problem.inputs(), network.zero_state(3))[0], 0, LENGTH)
    same(loss, expected.detach())
    same(step.parameters.grad, plain_gradient(expected, w))
    assert difference(state, network.zero_state(3)) is None


# --- what is trained as one vector ----------------------------------------------------------------------------


class Layers(nn.Module):
    """A recurrent layer twice, the second with weights of the first, and a frozen one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.frozen = (nn.GRU(WINDOW, WINDOW, batch_first=True) for _ in range(3))
        self.two.weight_hh_l0 = self.one.weight_hh_l0
        self.head = nn.Linear(WINDOW, 2)
        self.frozen.requires_grad_(False)
        self.one.bias_hh_l0.requires_grad_(False)
        self.double()

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        after = []
        for layer, h in zip((self.one, self.frozen, self.two), state, strict=True):
            x, h = layer(x, h)
            after.append(h)
        return self.head(x), after

    def zero_state(self, batch: int) -> list[Tensor]:
        return [self.head.weight.new_zeros(1, batch, WINDOW)] * 3


@pytest.mark.parametrize("blocks", [False, True])
def test_shared_weights_stay_shared_and_frozen_ones_as_they_are(blocks: bool) -> None:
    """Weight decay included; what is frozen in a recurrent layer need not be zero."""
    network = Layers()
    plain, before = copy.deepcopy(network), copy.deepcopy(network.state_dict())
    parameters = FlatParameters(network, blocks)
    optimizer = build_optimizer([parameters.vector], "adamw", lr=0.01, weight_decay=0.5)
    reference = torch.optim.AdamW([p for p in plain.parameters() if p.requires_grad], lr=0.01, weight_decay=0.5)
    problem = Problem()
    for _ in range(3):
        train_pass(network, parameters, optimizer, problem.sequences(), 1)
        reference.zero_grad()
        loss_of(problem, plain(problem.inputs(), plain.zero_state(3))[0], 0, LENGTH).backward()
        reference.step()
    assert network.two.weight_hh_l0 is network.one.weight_hh_l0
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=0, atol=1e-10)
        is_frozen = name.startswith("frozen") or name == "one.bias_hh_l0"
        assert torch.equal(value, before[name]) == is_frozen, name


def frozen() -> nn.Module:
    return nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (frozen, "no parameters that are trained"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()), "types float32, float64; takes one"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "types complex64; takes one floating-point type"),
    ],
)
def test_parameters_that_make_no_vector_are_an_error(make: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FlatParameters(make())


# --- options --------------------------------------------------------------------------------------------------


class Small(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int = 2):
        super().__init__()
        self.cell = nn.GRU(inputs, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor, state: Any) -> tuple[Any, Any]:
        y, h = self.cell(x, state["h"])
        return self.head(y), {"h": h}

    def zero_state(self, batch: int) -> Any:
        return {"h": self.head.weight.new_zeros(1, batch, self.cell.hidden_size)}


@dataclass
class SmallModel(ModelConfig):
    width: int = key(whole(1), 2)

    def build(self, inputs: int, outputs: int) -> nn.Module:
        return Small(inputs, outputs, self.width)


def test_an_option_gives_its_network() -> None:
    model = SmallModel("mine", 5)
    before = torch.get_rng_state()
    network = try_out(model, 3, 4)
    assert torch.equal(torch.get_rng_state(), before), "a trial of it draws nothing of the run's"
    y, state = network(torch.zeros(2, 6, 3), network.zero_state(2))
    assert y.shape == (2, 6, 4)
    assert state["h"].shape == (1, 2, 5)
    shapes = outline(model, 3, 4)
    assert shapes is not None
    assert {p.device.type for p in shapes.parameters()} == {"meta"}


def test_a_class_without_build_is_no_option() -> None:
    with pytest.raises(ValueError, match="class Old does not define build"):

        @dataclass
        class Old(ModelConfig, options=["old"]):
            hidden: int = key(whole(1), 3)


def test_the_articles_network_with_other_values_is_an_option() -> None:
    @dataclass
    class Wide(ArticleModel):
        noise_std: float = key(number(0), 0.5)

    network: Any = try_out(Wide("wide", hidden=[3]), 4, 2)
    assert (network.hidden, network.noise.std) == ([3], 0.5)


def test_an_option_may_be_read_as_a_whole_or_under_a_condition() -> None:
    @dataclass
    class Whole(SmallModel):
        kind: str = key(one_of("a", "b"), "a")
        more: int = key(whole(0), 0)

        def build(self, inputs: int, outputs: int) -> nn.Module:
            settings = dict(vars(self))
            return Small(inputs, outputs, settings["width"])

    @dataclass
    class Sometimes(SmallModel):
        gain: float = key(number(0), 1.0)

        def build(self, inputs: int, outputs: int) -> nn.Module:
            return Small(inputs, outputs, self.width if self.width < 9 else int(self.gain))

    assert try_out(Whole("whole"), 3, 2)
    assert try_out(Sometimes("sometimes"), 3, 2)


@dataclass
class Unread(SmallModel):
    unread_by_all: int = key(whole(1), 2)


@dataclass
class OfTheArticle(ArticleModel):
    dropped: float = key(number(0), 0.5)


@dataclass
class Misspelt(SmallModel):
    def build(self, inputs: int, outputs: int) -> nn.Module:
        return Small(inputs, outputs, self.widht)  # type: ignore[attr-defined]


def built(change: Callable[[Small], Any]) -> ModelConfig:
    """An option whose network is another than it should be."""

    class Changed(SmallModel):
        def build(self, inputs: int, outputs: int) -> nn.Module:
            network = Small(inputs, outputs, self.width)
            return change(network) or network

    return Changed("mine")


def zero(state: Any) -> ModelConfig:
    return built(lambda network: setattr(network, "zero_state", lambda batch: state))


def gives(answer: Callable[[Any, Any], Any]) -> ModelConfig:
    """An option whose network's answers are changed."""
    return built(lambda network: network.register_forward_hook(lambda module, given, result: answer(*result)) and None)


def register_own_generator(network: Any) -> None:
    network.random = torch.Generator()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Unread("mine"), "nothing reads its key unread_by_all, which would change nothing"),
        (OfTheArticle("mine"), "nothing reads its key dropped, which would change nothing"),
        (Misspelt("mine"), "build raised AttributeError: 'Misspelt' object has no attribute 'widht'"),
        (built(lambda network: 3), "build gives a int; takes an nn.Module"),
        (built(lambda network: nn.Linear(2, 2)), "its Linear has no zero_state(batch)"),
        (
            built(lambda network: setattr(network, "head", nn.LazyLinear(2))),
            "it has lazy layers; takes layers that are told their sizes",
        ),
        (zero({"h": 3}), "its state['h'] is of the type int; takes tensors, and dicts, lists and tuples of them"),
        (zero({}), "forward raised KeyError: 'h'"),
        (gives(lambda y, state: y), "its forward gives a Tensor; takes (y, state)"),
        (
            gives(lambda y, state: (y[:, :1], state)),
            "its forward gives (2, 1, 2) for 2 sequences of 3 steps; takes (2, 3, 2)",
        ),
        (gives(lambda y, state: (y.detach(), state)), "its output depends on nothing that is trained"),
        (gives(lambda y, state: (y, {})), "state['h'] is in the state before a chunk only"),
        (
            gives(lambda y, state: (y, {"h": state["h"].double()})),
            "state['h'] is (1, 2, 2) of float32 before a chunk and (1, 2, 2) of float64 after it; takes one shape and",
        ),
        (gives(lambda y, state: (y, {"h": "x"})), "its state['h'] is of the type str"),
        (
            built(lambda network: network.register_buffer("phase", torch.ones(1, dtype=torch.complex64))),
            "its phase is no dense tensor of real numbers; a checkpoint keeps those only",
        ),
        (built(register_own_generator), "its random is a random generator of its own"),
    ],
)
def test_what_cannot_be_trained_is_told_in_a_line(model: ModelConfig, said: str) -> None:
    with pytest.raises(ValueError, match=r"^model=mine: ") as raised:
        try_out(model, 3, 2)
    assert said in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_network_that_needs_numbers_to_be_built_has_no_outline() -> None:
    def needs_numbers(network: Small) -> None:
        network.scale = float(network.head.weight.detach().abs().max())  # type: ignore[assignment]

    model = built(needs_numbers)
    assert outline(model, 3, 2) is None
    assert build_network(model, 3, 2).parameters()
    assert try_out(model, 3, 2)
