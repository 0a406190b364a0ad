"""The article's network: dense layers, noise, recurrent layers. Each step has one prediction per output of the task."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tbptt.models import at_once, kernels, traced
from tbptt.models.layers import Dense, GaussianNoise, Linear

# One entry per recurrent layer: (h, c) for an LSTM, (h,) for a GRU; each tensor is (1, B, H).
State = list[tuple[Tensor, ...]]


class LSTM(nn.LSTM):
    """PyTorch's LSTM with one layer, time-major. It uses the compiled kernel if possible (``kernels.usable``)."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def forward(self, x: Tensor, state: Any = None) -> Any:  # type: ignore[override]
        if not kernels.usable(x) and not torch.compiler.is_exporting():
            return super().forward(x, state)
        h, c = state
        # Adding the two biases here gives each of them its gradient, if both are trained.
        bias = self.bias_ih_l0 + self.bias_hh_l0
        if torch.compiler.is_exporting():
            return traced.lstm(x, state, self.weight_ih_l0, self.weight_hh_l0, bias)
        y, h, c = kernels.lstm(x, h, c, self.weight_ih_l0, self.weight_hh_l0, bias)
        return y, (h, c)


class GRU(nn.GRU):
    """PyTorch's GRU with one layer, time-major. It uses the compiled kernel if possible (``kernels.usable``)."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def forward(self, x: Tensor, state: Any = None) -> Any:  # type: ignore[override]
        if torch.compiler.is_exporting():
            return traced.gru(x, state, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
        if not kernels.usable(x):
            return super().forward(x, state)
        return kernels.gru(x, state, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)


CELLS: dict[str, Any] = {"lstm": LSTM, "gru": GRU}


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")  # PyTorch has no other way


def _unheard(module: nn.Module) -> bool:
    """Whether no hook is called when the module is."""
    return not any(getattr(module, hooks) for hooks in _HOOKS)


def leave_autocast(x: Tensor) -> bool:
    """Whether a recurrent layer with input ``x`` must run without autocast, in float32.

    On a GPU, cuDNN's recurrent layers compute in float16 under autocast, even if autocast's type is bf16 (torch's
    _cudnn_rnn_cast_reflatten). In float16 the gradients of long series vanish, because the loss is not scaled up.
    """
    return x.is_cuda and torch.is_autocast_enabled("cuda")


class QNetwork(nn.Module):
    """Dense(tanh) → noise for each of ``dense``; recurrent layers ``hidden`` with noise between; Dense(outputs).

    Args:
        inputs: features a step, D.
        dense: sizes of the dense layers; may be empty.
        hidden: sizes of the recurrent layers, at least one.
        cell: ``lstm`` or ``gru``.
        noise_std: standard deviation of the noise, in units of the activations that it is added to.
        init: ``keras`` or ``torch``. ``torch`` is PyTorch's own. ``keras``: Glorot uniform kernels and orthogonal
            recurrent kernels, each drawn for all gates together; biases 0, except 1 at the LSTM's forget gates; one
            trained bias per gate.
        outputs: predictions a step, O.
        noise_pool: whether noise is drawn as earlier versions did (:class:`tbptt.models.noise.GaussianNoise`).
    """

    def __init__(
        self,
        inputs: int,
        dense: Sequence[int] = (64, 64),
        hidden: Sequence[int] = (64, 64),
        cell: str = "lstm",
        noise_std: float = 0.01,
        init: str = "keras",
        outputs: int = 2,
        noise_pool: bool = False,
    ):
        super().__init__()
        sizes = [inputs, *dense]
        self.dense = nn.ModuleList(Dense(a, b) for a, b in zip(sizes, dense, strict=False))
        sizes = [sizes[-1], *hidden]
        self.recurrent = nn.ModuleList(CELLS[cell](a, b) for a, b in zip(sizes, hidden, strict=False))
        self.noise = GaussianNoise(noise_std, noise_pool)
        self.head = Linear(sizes[-1], outputs)
        self.cell, self.hidden = cell, list(hidden)
        if init == "keras":
            self._init_keras()

    def forward(self, x: Float[Tensor, "B K D"], state: State) -> tuple[Float[Tensor, "B K O"], State]:
        """(B, K, D) and the state before the chunk → (B, K, O) and the state after it.

        The recurrent layers run time-major. An ``x`` that is time-major in memory, as LagFeatures makes it, is not
        copied.
        """
        x = x.transpose(0, 1)  # (K, B, D)
        if torch.is_grad_enabled() and kernels.usable(x) and self.is_as_made():
            return self._at_once(x, state)
        for layer in self.dense:
            x = self.noise(layer(x))
        after: State = []
        for i, layer in enumerate(self.recurrent):
            if i:
                x = self.noise(x)
            before = state[i]
            if leave_autocast(x):
                with torch.autocast(x.device.type, enabled=False):
                    x, new = layer(x.to(before[0].dtype), before if self.cell == "lstm" else before[0])
            else:
                x, new = layer(x, before if self.cell == "lstm" else before[0])
            after.append(new if self.cell == "lstm" else (new,))
        return self.head(x).transpose(0, 1), after

    def is_as_made(self) -> bool:
        """Whether all layers are those of this class, and nobody listens at them: then one call computes the same."""
        kinds = {Dense, CELLS[self.cell], GaussianNoise, Linear}
        layers = (*self.dense, *self.recurrent, self.noise, self.head)
        return (
            type(self) is QNetwork and self.noise.is_counted and all(type(m) in kinds and _unheard(m) for m in layers)
        )

    def _at_once(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """What :meth:`forward` computes of a time-major x, in one call of the compiled library."""
        layers = len(self.dense), len(self.recurrent)
        noise = self.noise.of_calls(sum(layers) - 1, x.dtype)
        before = [tensor for of_layer in state for tensor in of_layer]
        y, after = at_once.network(x, before, self.weights(), layers, noise)
        parts = len(before) // layers[1]
        return y.transpose(0, 1), [tuple(after[i : i + parts]) for i in range(0, len(after), parts)]

    def weights(self) -> list[nn.Parameter]:
        """All weights, in the order in which :func:`tbptt.models.at_once.network` takes them."""
        return [w for layer in (*self.dense, *self.recurrent, self.head) for w in layer.parameters()]

    def zero_state(self, batch: int) -> State:
        """The state at the start of every sequence."""
        weight = self.head.weight
        parts = 2 if self.cell == "lstm" else 1
        return [tuple(weight.new_zeros(1, batch, size) for _ in range(parts)) for size in self.hidden]

    @torch.no_grad()
    def _init_keras(self) -> None:
        layer: Any
        for layer in (*self.dense, self.head):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in self.recurrent:
            nn.init.xavier_uniform_(layer.weight_ih_l0)
            nn.init.orthogonal_(layer.weight_hh_l0)
            nn.init.zeros_(layer.bias_ih_l0)
            if self.cell == "lstm":  # PyTorch's gates: input, forget, cell, output
                layer.bias_ih_l0[layer.hidden_size : 2 * layer.hidden_size] = 1.0
            # PyTorch adds two biases a gate; training both would double the bias's step.
            nn.init.zeros_(layer.bias_hh_l0)
            layer.bias_hh_l0.requires_grad_(False)
