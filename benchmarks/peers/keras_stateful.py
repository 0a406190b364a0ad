"""Stateful LSTMs in Keras, ``train_on_batch`` a chunk (see turns.py for how it is asked).

    python benchmarks/peers/keras_stateful.py --backend jax|tensorflow FOLDER

Compiled as Keras chooses: JAX by XLA, TensorFlow to a graph of its own, which was faster than XLA for it.
"""

import importlib
import os

from turns import STEPS, Turns, load, parser


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
    keras.utils.set_random_seed(1)
    layers = keras.layers
    recurrent = [layers.LSTM(64, return_sequences=True, stateful=True) for _ in range(2)]
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(len(inputs), STEPS, inputs.shape[2])),
            layers.Dense(64, activation="tanh"),
            layers.GaussianNoise(0.01),
            layers.Dense(64, activation="tanh"),
            layers.GaussianNoise(0.01),
            recurrent[0],
            layers.GaussianNoise(0.01),
            recurrent[1],
            layers.Dense(2),
        ]
    )
    # Keras's clipnorm bounds each tensor's own norm; the norm of all together is what the others bound.
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), "mse", jit_compile="auto")
    chunks = [(inputs[:, i : i + STEPS], targets[:, i : i + STEPS]) for i in range(0, inputs.shape[1], STEPS)]

    def one_pass() -> float:
        for layer in recurrent:
            layer.reset_state()
        return sum(float(model.train_on_batch(x, y)) for x, y in chunks) / len(chunks)

    Turns(len(chunks), model.count_params(), versions).take(one_pass)


if __name__ == "__main__":
    main()
