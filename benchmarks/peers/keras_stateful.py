"""Recurrent layers in Keras whose state is carried from chunk to chunk (see turns.py for how it is asked).

    python benchmarks/peers/keras_stateful.py --backend jax|tensorflow FOLDER

On TensorFlow: ``stateful=True`` and ``train_on_batch``, compiled to a graph of its own, which was faster than XLA.

On JAX Keras 3.15 forgets the state: the layers' states are not among the variables that ``train_on_batch``, ``fit``
and ``predict`` hand into a compiled step and take out of it, so it stays 0. There the states are inputs and outputs of
the model, and the step is written by hand with ``stateless_call`` and ``jax.jit``, as Keras's guide to training loops
in JAX does. Before anything is timed, the second chunk must have another loss after the first one than without it.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

from turns import STEPS, Turns, load, parser

SIZE = 64


class Training(NamedTuple):
    """A model in training: ``step`` takes a chunk's inputs and targets and returns its loss, with the state that the
    chunk before left; ``reset`` sets that to 0."""

    step: Callable[[Any, Any], Any]
    reset: Callable[[], None]
    parameters: int


def before_recurrence(keras: Any, x: Any, noise_std: float) -> Any:
    """Two dense layers, each with noise behind it."""
    for _ in range(2):
        x = keras.layers.GaussianNoise(noise_std)(keras.layers.Dense(SIZE, activation="tanh")(x))
    return x


def adam(keras: Any, rate: float) -> Any:
    """Keras's clipnorm bounds each tensor's own norm; the norm of all together is what the others bound."""
    return keras.optimizers.Adam(rate, global_clipnorm=1.0)


def on_tensorflow(keras: Any, batch: int, window: int, noise_std: float, rate: float) -> Training:
    recurrent = [keras.layers.LSTM(SIZE, return_sequences=True, stateful=True) for _ in range(2)]
    inputs = keras.Input(batch_shape=(batch, STEPS, window))
    x = recurrent[0](before_recurrence(keras, inputs, noise_std))
    x = recurrent[1](keras.layers.GaussianNoise(noise_std)(x))
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    model.compile(adam(keras, rate), "mse", jit_compile="auto")

    def reset() -> None:
        for layer in recurrent:
            layer.reset_state()

    return Training(model.train_on_batch, reset, model.count_params())


def on_jax(keras: Any, batch: int, window: int, noise_std: float, rate: float) -> Training:
    import jax
    import jax.numpy as jnp

    inputs = keras.Input(batch_shape=(batch, STEPS, window))
    before = [keras.Input(batch_shape=(batch, SIZE)) for _ in range(4)]  # of each layer, output and cell
    x = before_recurrence(keras, inputs, noise_std)
    x, *lower = keras.layers.LSTM(SIZE, return_sequences=True, return_state=True)(x, initial_state=before[:2])
    x = keras.layers.GaussianNoise(noise_std)(x)
    x, *upper = keras.layers.LSTM(SIZE, return_sequences=True, return_state=True)(x, initial_state=before[2:])
    model = keras.Model([inputs, *before], [keras.layers.Dense(2)(x), *lower, *upper])
    optimizer = adam(keras, rate)
    optimizer.build(model.trainable_variables)

    def loss_of(trained: Any, others: Any, state: Any, x: Any, y: Any) -> Any:
        (prediction, *state), others = model.stateless_call(trained, others, [x, *state], training=True)
        return jnp.mean(keras.losses.mean_squared_error(y, prediction)), (others, state)

    @jax.jit
    def update(trained: Any, others: Any, optimized: Any, state: Any, x: Any, y: Any) -> Any:
        (loss, (others, state)), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, others, state, x, y)
        trained, optimized = optimizer.stateless_apply(optimized, gradients, trained)
        return loss, (trained, others, optimized, state)

    zero = [jnp.zeros((batch, SIZE)) for _ in range(4)]
    variables = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    now = (*([v.value for v in of_one] for of_one in variables), zero)

    def step(x: Any, y: Any) -> Any:
        nonlocal now
        loss, now = update(*now, x, y)
        return loss

    def reset() -> None:
        nonlocal now
        now = (*now[:3], zero)

    return Training(step, reset, model.count_params())


def check_that_state_is_carried(training: Training, first: Any, second: Any) -> None:
    """With weights that do not move and no noise, a chunk's loss depends on what came before it, and no more."""

    def loss(*chunks: Any) -> float:
        training.reset()
        return [float(training.step(x, y)) for x, y in chunks][-1]

    after, alone = loss(first, second), loss(second)
    assert abs(after - alone) > 1e-4 * abs(alone), f"the state is lost between chunks: {after} and {alone}"
    assert abs(after - loss(first, second)) < 1e-6 * abs(after), "the loss depends on more than the chunks"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--backend", choices=("jax", "tensorflow"), required=True)
    options = arguments.parse_args()
    # Read when the libraries are imported.
    os.environ["KERAS_BACKEND"] = options.backend
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if options.backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras

    versions = {"keras": keras.__version__, options.backend: importlib.import_module(options.backend).__version__}
    inputs, targets = load(options.folder)
    ready = keras.ops.convert_to_tensor
    starts = range(0, inputs.shape[1], STEPS)
    chunks = [(ready(inputs[:, i : i + STEPS]), ready(targets[:, i : i + STEPS])) for i in starts]
    make, sizes = (on_jax if options.backend == "jax" else on_tensorflow), (len(inputs), inputs.shape[2])
    check_that_state_is_carried(make(keras, *sizes, noise_std=0.0, rate=0.0), *chunks[:2])
    keras.utils.set_random_seed(1)
    training = make(keras, *sizes, noise_std=0.01, rate=0.01)

    def one_pass() -> float:
        training.reset()
        losses = [training.step(x, y) for x, y in chunks]
        return sum(map(float, losses)) / len(losses)

    Turns(len(chunks), training.parameters, versions).take(one_pass)


if __name__ == "__main__":
    main()
