"""minLSTM (Feng et al., 2024, "Were RNNs All We Needed?"): an LSTM with gates that depend on the input only, not on the
state. So all steps of a chunk can be computed at once."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from tbptt.models.layers import Dense, GaussianNoise, Linear
from tbptt.models.scan import scan, sequential


class MinLSTM(nn.Module):
    """One layer, time-major: h_t = f'_t · h_{t-1} + (1 - f'_t) · c_t, where f' = f / (f + i), f and i are sigmoids of
    the input, and c is linear in it.

    Args:
        inputs, hidden: the sizes D and H.
        forget_bias: the first bias of f. With a larger one the layer remembers for longer.
        parallel: whether all steps are computed at once; else one after the other.
    """

    def __init__(self, inputs: int, hidden: int, forget_bias: float = 1.0, parallel: bool = True):
        super().__init__()
        self.gates = nn.Linear(inputs, 3 * hidden)  # forget, input, candidate
        self.hidden, self.parallel = hidden, parallel
        for gate in self.gates.weight.detach().chunk(3):
            nn.init.xavier_uniform_(gate)
        nn.init.zeros_(self.gates.bias)
        nn.init.constant_(self.gates.bias.detach()[:hidden], forget_bias)

    def forward(self, x: Float[Tensor, "K B D"], h: Float[Tensor, "B H"]) -> Float[Tensor, "K B H"]:
        """(K, B, D) and the h before the chunk, (B, H) → all h of the chunk, (K, B, H)."""
        # In float32 under autocast too: bf16 is too coarse for products of many gates.
        f, i, c = self.gates(x).to(h.dtype).chunk(3, dim=-1)
        keep = torch.sigmoid(logsigmoid(f) - logsigmoid(i))
        return (scan if self.parallel else sequential)(keep, (1 - keep) * c, h)


class MinLSTMNetwork(nn.Module):
    """Dense(tanh) → noise for each of ``dense``; minLSTM layers ``hidden`` with noise between; Dense(outputs).

    The state is a list of the layers' h, (B, H) each.

    Args:
        inputs, outputs: features and predictions a step, D and O.
        dense: sizes of the dense layers; may be empty.
        hidden: sizes of the recurrent layers, at least one.
        noise_std: standard deviation of the noise, in units of the activations that it is added to.
        forget_bias, parallel: see :class:`MinLSTM`.
        noise_pool: whether noise is drawn as earlier versions did (:class:`tbptt.models.noise.GaussianNoise`).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dense: Sequence[int] = (64, 64),
        hidden: Sequence[int] = (64, 64),
        noise_std: float = 0.01,
        forget_bias: float = 1.0,
        parallel: bool = True,
        noise_pool: bool = False,
    ):
        super().__init__()
        sizes = [inputs, *dense, *hidden]
        pairs = list(pairwise(sizes))
        self.dense = nn.ModuleList(Dense(a, b) for a, b in pairs[: len(dense)])
        self.recurrent = nn.ModuleList(MinLSTM(a, b, forget_bias, parallel) for a, b in pairs[len(dense) :])
        self.noise = GaussianNoise(noise_std, noise_pool)
        self.head = Linear(sizes[-1], outputs)
        self.hidden = list(hidden)
        for layer in (*self.dense, self.head):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(B, K, D) and the state before the chunk → (B, K, O) and the state after it."""
        x = x.transpose(0, 1)  # (K, B, D), as LagFeatures has it in memory
        for layer in self.dense:
            x = self.noise(layer(x))
        after = []
        for i, (layer, h) in enumerate(zip(self.recurrent, state, strict=True)):
            x = layer(self.noise(x) if i else x, h)
            after.append(x[-1].clone())  # a view would keep the whole chunk in memory
        return self.head(x).transpose(0, 1), after

    def zero_state(self, batch: int) -> list[Tensor]:
        """The state at the start of every sequence."""
        return [self.head.weight.new_zeros(batch, size) for size in self.hidden]
