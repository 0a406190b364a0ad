"""The article's network for N trials at once, each with weights of its own: a row of a matrix.

What all trials share, the inputs, is computed once. A layer is one product of N matrices, on views of the matrix: no
weight is copied. Recurrent layers are Triton kernels on a GPU (packed_triton.py); elsewhere, and where these cannot
compute them, a loop over the steps, which is the reference too.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tbptt.models.article import QNetwork, State, leave_autocast
from tbptt.models.packed_noise import PackedNoise


class Place(NamedTuple):
    """Where a trained parameter lies in a row, [start, stop), and its shape."""

    start: int
    stop: int
    shape: torch.Size


def places(network: QNetwork) -> dict[str, Place]:
    """The places of a network's trained parameters, by their names, in the order of ``named_parameters``: as
    FlatParameters has them without blocks."""
    found: dict[str, Place] = {}
    start = 0
    for name, p in network.named_parameters():
        if p.requires_grad:
            found[name] = Place(start, start := start + p.numel(), p.shape)
    return found


def why_not_packed(network: object) -> str | None:
    """Why a network cannot be a row of a pack; None if it can. A frozen bias must be zero, as a row has none of it."""
    if type(network) is not QNetwork:
        return f"{type(network).__name__} has no form for many trials at once; takes model=article"
    if network.noise.std and not network.noise.is_counted:
        return "its noise is drawn from a pool, in an order that others would change; takes model.noise_from=counter"
    if any(bool(p.any()) for p in network.parameters() if not p.requires_grad):
        return "it has frozen parameters that are not zero"
    return None


class PackedNetwork:
    """N networks of one shape.

    Args:
        network: one of that shape.
        weights: (N, P), row n laid out as :func:`places` says. Not copied: the layers are views of it.
        noise: None for none.

    Attributes:
        grad: (N, P) the gradient of the last :meth:`backward`, always in the same memory.
        training: whether noise is added.
    """

    def __init__(self, network: QNetwork, weights: Float[Tensor, "N P"], noise: PackedNoise | None = None):
        self.weights, self.grad = weights.detach(), torch.zeros_like(weights)
        self.noise = None if noise is None or noise.is_none else noise
        self.training = True
        self.hidden, self.is_lstm = network.hidden, network.cell == "lstm"
        self.sizes = [places(network)[f"dense.{i}.bias"].shape[0] for i in range(len(network.dense))]
        self.named: dict[str, Tensor] = {}
        for name, (start, stop, shape) in places(network).items():
            # A leaf of its own: the gradient of a slice of one leaf would be a whole matrix for each parameter.
            self.named[name] = self.weights[:, start:stop].unflatten(1, shape).requires_grad_()

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Compute the gradient of a sum over all trials."""
        found = torch.autograd.grad(loss, list(self.named.values()))
        torch.cat([g.flatten(1) for g in found], dim=1, out=self.grad)

    def zero_state(self, batch: int) -> State:
        """The state at the start of every sequence: for each recurrent layer (h, c) or (h,), (N, B, H)."""
        count = 2 if self.is_lstm else 1
        return [
            tuple(self.weights.new_zeros(len(self.weights), batch, size) for _ in range(count)) for size in self.hidden
        ]

    def __call__(
        self, x: Float[Tensor, "B K D"], state: State, lengths: Int[Tensor, " N"], first_step: int = 0
    ) -> tuple[Float[Tensor, "N B K O"], State]:
        """The outputs of K steps, and the state after each trial's last one.

        Args:
            x: the inputs of all trials.
            state: as :meth:`zero_state` has it.
            lengths: int32, how many of the steps each trial has. The outputs at later ones mean nothing.
            first_step: the step of the chunk at which x begins: the noise depends on it.
        """
        shared = x.transpose(0, 1)  # (K, B, D)
        steps, batch, features = shared.shape
        now = shared.reshape(1, steps * batch, features).expand(len(self.weights), -1, -1)  # (N, K·B, …)
        noise = self._noise(first_step * batch, steps * batch)
        for i in range(len(self.sizes)):
            now = _plus(self._linear(f"dense.{i}.weight", f"dense.{i}.bias", now).tanh(), noise)
        after: State = []
        for i, before in enumerate(state):
            now = _plus(now, noise) if i else now
            now, new = self._recurrent(f"recurrent.{i}", now, before, lengths)
            after.append(new)
        y = self._linear("head.weight", "head.bias", now)
        return y.unflatten(1, (steps, batch)).transpose(1, 2), after

    def _linear(self, weight: str, bias: str, x: Tensor) -> Tensor:
        """(N, M, inputs) → (N, M, outputs)."""
        return torch.baddbmm(self.named[bias][:, None], x, self.named[weight].transpose(1, 2))

    def _recurrent(
        self, name: str, x: Tensor, before: tuple[Tensor, ...], lengths: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(N, K·B, inputs) and the state before → (N, K·B, H) and the state after."""
        if leave_autocast(x):
            with torch.autocast(x.device.type, enabled=False):
                return self._recurrent(name, x.to(before[0].dtype), before, lengths)
        w_hh, b_hh = self.named[f"{name}.weight_hh_l0"], self.named.get(f"{name}.bias_hh_l0")
        b_ih = self.named[f"{name}.bias_ih_l0"]
        w_ih = self.named[f"{name}.weight_ih_l0"].transpose(1, 2)
        layers = recurrent_layers(x, w_hh.shape[2])
        if self.is_lstm:
            bias = b_ih if b_hh is None else b_ih + b_hh
            xg = torch.baddbmm(bias[:, None], x, w_ih).unflatten(1, (-1, before[0].shape[1]))
            h, *after = layers.lstm(xg, w_hh, *before, lengths)
        else:
            xg = torch.baddbmm(b_ih[:, None], x, w_ih).unflatten(1, (-1, before[0].shape[1]))
            b_hh = torch.zeros_like(b_ih) if b_hh is None else b_hh
            h, *after = layers.gru(xg, w_hh, b_hh, *before, lengths)
        return h.flatten(1, 2), tuple(after)

    def _noise(self, first: int, rows: int) -> Iterator[Tensor]:
        """The noise of each call in turn, (N, rows, size); nothing where there is none."""
        sizes = [*self.sizes, *self.hidden[:-1]]
        if self.noise is None or not self.training or not sizes:
            return iter(())
        drawn = self.noise.draw([first * size for size in sizes], [rows * size for size in sizes])
        return iter([one.unflatten(1, (rows, size)) for one, size in zip(drawn, sizes, strict=True)])


def _plus(x: Tensor, noise: Iterator[Tensor]) -> Tensor:
    drawn = next(noise, None)
    return x if drawn is None else (x + drawn).to(x.dtype)


class StepByStep:
    """The recurrent layers of N trials as a loop over the steps: of :mod:`packed_triton`'s functions, with the same
    results, on any device.

    N trials, T steps, B sequences, H units. Steps from a trial's length on leave its state as it is; h is 0 there.
    """

    @staticmethod
    def lstm(
        xg: Float[Tensor, "N T B G"],
        w_hh: Float[Tensor, "N G H"],
        h0: Float[Tensor, "N B H"],
        c0: Float[Tensor, "N B H"],
        lengths: Int[Tensor, " N"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``xg``: what the inputs and the biases give the gates, G = 4·H. → (h (N, T, B, H), the last h, the last c)"""
        h, c, w, found = h0, c0, w_hh.transpose(1, 2), []
        for t in range(xg.shape[1]):
            i, f, g, o = torch.baddbmm(xg[:, t], h, w).chunk(4, dim=2)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            new_h = torch.sigmoid(o) * torch.tanh(new_c)
            is_over = (t >= lengths)[:, None, None]
            h, c = torch.where(is_over, h, new_h), torch.where(is_over, c, new_c)
            found.append(new_h.masked_fill(is_over, 0.0))
        return torch.stack(found, dim=1), h, c

    @staticmethod
    def gru(
        xg: Float[Tensor, "N T B G"],
        w_hh: Float[Tensor, "N G H"],
        b_hh: Float[Tensor, "N G"],
        h0: Float[Tensor, "N B H"],
        lengths: Int[Tensor, " N"],
    ) -> tuple[Tensor, Tensor]:
        """``xg``: what the inputs and the input biases give the gates, G = 3·H. → (h (N, T, B, H), the last h)"""
        h, w, found = h0, w_hh.transpose(1, 2), []
        for t in range(xg.shape[1]):
            xr, xz, xn = xg[:, t].chunk(3, dim=2)
            hr, hz, hn = torch.baddbmm(b_hh[:, None], h, w).chunk(3, dim=2)
            z = torch.sigmoid(xz + hz)
            new = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
            new = new + z * (h - new)
            is_over = (t >= lengths)[:, None, None]
            h = torch.where(is_over, h, new)
            found.append(new.masked_fill(is_over, 0.0))
        return torch.stack(found, dim=1), h


def recurrent_layers(x: Tensor, hidden: int) -> Any:
    """What computes the recurrent layers of ``hidden`` units for an input like this one: has ``lstm`` and ``gru``."""
    if x.is_cuda and x.dtype == torch.float32:
        kernels = import_module("tbptt.models.packed_triton")
        if kernels.why_not(hidden) is None:
            return kernels
    return StepByStep
