"""Training by chunks against Keras 3, on PyTorch: the same first weights, data and chunks, all in float64.

On Keras's side are its layers, losses, clipping and optimizers; PyTorch only differentiates. The state is handed from
chunk to chunk by hand.
"""

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from conftest import ROOT
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from tbptt.data.features import LagFeatures, Scaler
from tbptt.data.sequences import Sequences
from tbptt.models.article import QNetwork
from tbptt.tasks.options import QValues
from tbptt.training.chunks import train_pass
from tbptt.training.flat import FlatParameters
from tbptt.training.optimizers import optimizer_of
from tbptt.training.options import OptimizerConfig
from tbptt.training.schedule import chunk_bounds

pytestmark = pytest.mark.skipif(
    find_spec("keras") is None, reason="Keras is not installed; pip install -e '.[dev]' installs it"
)

WINDOW, LENGTH, SERIES = 4, 16, 3
DENSE, HIDDEN = [5, 6], [4, 3]
TASK = QValues(name="q_values", fee=0.0, fee_unit="price")
Compose = Callable[..., DictConfig]
Change = Callable[[torch.optim.Optimizer], torch.optim.Optimizer]


def as_it_is(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return optimizer


# Ours: Keras's class, what Keras calls our settings, and the learning rate that both sides get here.
OPTIMIZERS: dict[str, tuple[str, dict[str, str], float]] = {
    "sgd": ("SGD", {"momentum": "momentum"}, 0.01),
    "momentum": ("SGD", {"momentum": "momentum"}, 0.01),
    "rmsprop": ("RMSprop", {"alpha": "rho", "eps": "epsilon"}, 0.01),
    "adam": ("Adam", {"eps": "epsilon"}, 0.01),
    "adamw": ("AdamW", {"eps": "epsilon", "weight_decay": "weight_decay"}, 0.01),
    "adagrad": ("Adagrad", {"initial_accumulator_value": "initial_accumulator_value", "eps": "epsilon"}, 0.01),
    "adadelta": ("Adadelta", {"rho": "rho", "eps": "epsilon"}, 1.0),
}
# Settings of ours with which PyTorch's AdaGrad has Keras's eps: s begins with eps added to it, and none is added later.
AS_KERAS = {"adagrad": {"initial_accumulator_value": 0.1 + 1e-7, "eps": 1e-30}}
EQUAL = 1e-13  # seen: 2e-15; weights are up to 1
# With each library's own eps, the largest difference of all cases lies between these. Seen: 0.14, 0.025, 0.025, 2e-9.
OWN_EPS = {"rmsprop": (0.03, 0.5), "adam": (3e-3, 0.1), "adamw": (3e-3, 0.1), "adagrad": (1e-10, 3e-8)}


class Case(NamedTuple):
    """A seed, our clip mode and its bound, and what Keras calls that mode."""

    seed: int
    clip_mode: str = "norm"
    clip: float | None = None
    of_keras: str = ""


SCHEDULES = {0: [4, 2, 1], 1: [8, 1, 1], 2: [1, 3, 5]}  # by seed, the chunks of each pass
CLIPS: list[tuple[str, float | None, str]] = [
    ("norm", None, ""),
    ("norm", 0.3, "global_clipnorm"),  # acts on some updates; those below act on most
    ("norm", 0.05, "global_clipnorm"),
    ("tensor_norm", 0.1, "clipnorm"),
    ("value", 0.02, "clipvalue"),
]
CASES = [Case(seed, *clip) for seed in SCHEDULES for clip in CLIPS]  # 15 for each of 7 optimizers


# --- both sides -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Keras on PyTorch, in float64. It reads the environment once, and writes a file into its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_TORCH_DEVICE", "cpu")
        patch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("keras")))
        module = importlib.import_module("keras")
    assert module.backend.backend() == "torch"
    types = importlib.import_module("keras.src.backend.common.dtypes")
    floatx, threads = module.config.floatx(), torch.get_num_threads()
    module.config.set_floatx("float64")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        # On PyTorch and JAX, Keras multiplies matrices in float32 even so; on TensorFlow it does not.
        patch.setitem(types.BIT64_TO_BIT32_DTYPE, "float64", "float64")
        yield module
    torch.set_num_threads(threads)
    module.config.set_floatx(floatx)


@pytest.fixture(scope="module")
def keras_eps() -> Any:
    """benchmarks/keras_eps.py: the optimizers that keras_parity.py trains with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return importlib.import_module("keras_eps")


@pytest.fixture(scope="module")
def model(keras: Any) -> Any:
    """Inputs and states → predictions and states; the weights are set by each training."""
    x = inputs = keras.Input((None, WINDOW))
    before, after = [], []
    for size in DENSE:
        x = keras.layers.Dense(size, activation="tanh")(x)
    for size in HIDDEN:
        state = [keras.Input((size,)) for _ in range(2)]
        x, *new = keras.layers.LSTM(size, return_sequences=True, return_state=True)(x, initial_state=state)
        before += state
        after += new
    return keras.Model([inputs, *before], [keras.layers.Dense(2)(x), *after])


class Problem:
    """A network, series and targets of a seed."""

    def __init__(self, seed: int):
        random = np.random.default_rng(seed)
        prices = torch.from_numpy(100 + np.cumsum(random.normal(0, 1, (SERIES, WINDOW + LENGTH)), axis=1))
        targets = torch.from_numpy(random.normal(0, 1, (SERIES, LENGTH, 2)))
        torch.manual_seed(seed)
        self.network = QNetwork(WINDOW, DENSE, HIDDEN, noise_std=0.0).double()
        one = torch.ones(1, dtype=torch.float64)
        scaler = Scaler(0 * one, one, torch.zeros(1, 2, dtype=torch.float64), one)
        features = LagFeatures(prices, scaler, WINDOW, "lagged_change", torch.float64)
        self.sequences = Sequences(features, targets, None, [LENGTH] * SERIES, TASK)


def in_keras_order(network: QNetwork) -> list[np.ndarray]:
    """The weights as Keras lists them: kernels are transposed, and a layer has one bias. The gates are in the same
    order: input, forget, cell, output."""
    found: list[Tensor] = []
    layer: Any
    for layer in network.dense:
        found += [layer.weight.T, layer.bias]
    for layer in network.recurrent:
        assert not layer.bias_hh_l0.any(), "PyTorch's second bias stays 0"
        found += [layer.weight_ih_l0.T, layer.weight_hh_l0.T, layer.bias_ih_l0]
    return [p.detach().numpy().copy() for p in [*found, network.head.weight.T, network.head.bias]]


class Trained(NamedTuple):
    """Weights as Keras lists them; losses, and whether clipping acted, one number an update."""

    weights: list[np.ndarray]
    losses: list[float]
    clipped: list[float]


def by_us(
    case: Case, settings: OptimizerConfig, change: Change = as_it_is, rates: Sequence[float] = (), scale: bool = False
) -> Trained:
    """Train as the package does.

    Args:
        change: makes the optimizer of the config's.
        rates: the learning rate of each pass; by default the config's.
        scale: multiply momentum by the old rate over the new one where the rate changes.
    """
    problem = Problem(case.seed)
    parameters = FlatParameters(problem.network)
    optimizer = change(optimizer_of(settings, parameters))
    losses, clipped = [], []
    for number, chunks in enumerate(SCHEDULES[case.seed]):
        (group,) = optimizer.param_groups
        if rates:
            before, group["lr"] = group["lr"], rates[number]
            if scale and number:
                optimizer.state[group["params"][0]]["momentum_buffer"].mul_(before / group["lr"])
        record = train_pass(
            *(problem.network, parameters, optimizer, problem.sequences, chunks),
            clip=case.clip,
            clip_mode=case.clip_mode,
        )
        losses += record.losses.tolist()
        clipped += record.clipped.tolist()
    return Trained(in_keras_order(problem.network), losses, clipped)


def by_keras(model: Any, case: Case, name: str, rates: Sequence[float] = ()) -> Trained:
    """Train as Keras does, with its defaults for all but the learning rate, or one for each pass, and the momentum."""
    keras, (kind, _, rate), problem = importlib.import_module("keras"), OPTIMIZERS[name], Problem(case.seed)
    settings = {"momentum": 0.9} if name == "momentum" else {}
    clip = {case.of_keras: case.clip} if case.of_keras else {}
    optimizer = getattr(keras.optimizers, kind)(learning_rate=rate, **settings, **clip)
    model.set_weights(in_keras_order(problem.network))
    variables = model.trainable_variables
    losses = []
    for number, chunks in enumerate(SCHEDULES[case.seed]):
        if rates:
            optimizer.learning_rate = rates[number]
        state = [torch.zeros(SERIES, size, dtype=torch.float64) for size in HIDDEN for _ in range(2)]
        for start, stop in chunk_bounds(LENGTH, chunks):
            model.zero_grad()
            y, *state = model([problem.sequences.features(start, stop), *state])
            state = [part.detach() for part in state]
            loss = keras.losses.mean_squared_error(problem.sequences.targets[:, start:stop], y).mean()
            loss.backward()
            optimizer.apply([v.value.grad for v in variables], variables)
            losses.append(loss.item())
    return Trained([v.value.detach().numpy().copy() for v in model.weights], losses, [])


def apart(one: Trained, other: Trained) -> float:
    """The largest difference of a weight after training."""
    return max(float(np.abs(a - b).max()) for a, b in zip(one.weights, other.weights, strict=True))


def shipped(config: Compose, name: str, **changed: Any) -> OptimizerConfig:
    words = [f"optimizer.{key}={value}" for key, value in {"lr": OPTIMIZERS[name][2], **changed}.items()]
    return cast(OptimizerConfig, OmegaConf.to_object(config(f"optimizer={name}", *words).optimizer))


def shaped(name: str, config: Compose, keras_eps: Any) -> tuple[OptimizerConfig, Change]:
    """The shipped settings with eps at Keras's place: AdaGrad by its settings; RMSprop, Adam and AdamW by what
    benchmarks/keras_eps.py makes of PyTorch's; the others as they are."""
    change = keras_eps.as_keras if name in ("rmsprop", "adam", "adamw") else as_it_is
    return shipped(config, name, **AS_KERAS.get(name, {})), change


# --- training -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_equals_keras_with_eps_at_its_place(name: str, model: Any, config: Compose, keras_eps: Any) -> None:
    settings, own = shipped(config, name), []
    for case in CASES:
        keras, ours = by_keras(model, case, name), by_us(case, *shaped(name, config, keras_eps))
        assert apart(ours, keras) < EQUAL, case
        np.testing.assert_allclose(ours.losses, keras.losses, rtol=1e-6)  # ours are kept in float32
        assert any(ours.clipped) == (case.clip is not None), f"{case}: clipping has no part in it"
        assert case.clip != 0.3 or not all(ours.clipped), f"{case}: it acts on some updates only"
        if name in OWN_EPS:
            own.append(apart(by_us(case, settings), keras))
    low, high = OWN_EPS.get(name, (-1, 1))
    assert low < max(own, default=0) < high, "with each library's own eps"


def test_clipnorm_of_keras_is_another_mode_than_ours_of_that_name(model: Any, config: Compose) -> None:
    """Keras 2.2's ``clipnorm``, which the article has, is ``global_clipnorm`` now."""
    keras = by_keras(model, Case(0, "norm", 0.1, "clipnorm"), "sgd")
    settings = shipped(config, "sgd")
    assert apart(by_us(Case(0, "tensor_norm", 0.1), settings), keras) < EQUAL
    assert apart(by_us(Case(0, "norm", 0.1), settings), keras) > 1e-4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_that_changes_parts_momentum_only(name: str, model: Any, config: Compose, keras_eps: Any) -> None:
    """The rate falls to a tenth after four updates. Keras's momentum has the rate inside, v = μ·v - lr·g and w += v, so
    that what was gathered goes on at the old rate; PyTorch's has it outside, v = μ·v + g and w -= lr·v."""
    lr = OPTIMIZERS[name][2]
    case, rates = Case(0), [lr, lr / 10, lr / 10]
    keras, (settings, change) = by_keras(model, case, name, rates), shaped(name, config, keras_eps)
    difference = apart(by_us(case, settings, change, rates), keras)
    if name == "momentum":
        assert difference > 1e-3
        assert apart(by_us(case, settings, rates=rates, scale=True), keras) < EQUAL
    else:
        assert difference < EQUAL


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_shipped_settings_are_the_defaults_of_keras(name: str, keras: Any, config: Compose) -> None:
    """All but the learning rate: the article's, as it is Keras's for SGD only. Momentum is Keras's SGD with 0.9."""
    kind, names, _ = OPTIMIZERS[name]
    defaults = {
        key: p.default for key, p in inspect.signature(getattr(keras.optimizers, kind).__init__).parameters.items()
    }
    settings = shipped(config, name).arguments()
    del settings["lr"]
    expected = {ours: defaults[theirs] for ours, theirs in names.items()}
    if "beta_1" in defaults:
        expected["betas"] = [defaults["beta_1"], defaults["beta_2"]]
    if name == "momentum":
        assert expected.pop("momentum") == 0
        assert settings.pop("momentum") == 0.9
    assert settings == expected


def test_first_weights_are_distributed_as_keras_draws_them(keras: Any) -> None:
    """Quantiles of the kernels, of 8,192 numbers and more; Gram matrices of the recurrent kernel; biases."""
    inputs, size = 128, 64
    keras.utils.set_random_seed(0)
    theirs: list[np.ndarray] = []
    for layer in (keras.layers.Dense(size, activation="tanh"), keras.layers.LSTM(size), keras.layers.Dense(2)):
        layer.build((None, None, inputs) if not theirs else (None, None, size))
        theirs += [v.value.detach().numpy() for v in layer.weights]
    torch.manual_seed(0)
    ours = in_keras_order(QNetwork(inputs, [size], [size]).double())
    assert [w.shape for w in ours] == [w.shape for w in theirs]
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.ndim == 1:
            np.testing.assert_array_equal(a, b, err_msg=f"bias {i}")
        elif a.size > 1000:
            points = np.linspace(0.01, 0.99, 50)
            np.testing.assert_allclose(
                np.quantile(a, points), np.quantile(b, points), rtol=0, atol=0.05 * np.abs(b).max()
            )
    recurrent = ours[3], theirs[3]
    assert recurrent[0].shape == (size, 4 * size)
    for kernel in recurrent:
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(size), rtol=0, atol=1e-5)
