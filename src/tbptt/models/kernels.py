"""Compiled layers for the CPU (native/kernels.c): an LSTM and a dense layer with tanh, forward and backward, and noise.

They are built when the package is installed, if there is a C compiler, for the processor of that machine. PyTorch's own
layers are used if they were not built, on a GPU, in bf16, while a graph is written down (traced.py), and within
``torch_only``. Both give the same up to rounding.
"""

import ctypes
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tbptt.models.traced import traced

VERSION = 4  # of native/kernels.c
_PREFIX = {torch.float32: "float", torch.float64: "double"}
_POINTERS = {"lstm_forward": 11, "lstm_backward": 17, "dense_forward": 5, "dense_backward": 9, "noise": 3}
_SIZES = {
    "lstm_forward": 5,
    "lstm_backward": 4,
    "dense_forward": 3,
    "dense_backward": 3,
    "noise": 6,
    "lstm_room": 4,
    "dense_room": 2,
}
_torch_only = False


@cache
def library() -> Any | None:
    """The compiled library. None if it was not built, or was built for another version or another processor."""
    spec = importlib.util.find_spec("tbptt.models._kernels")
    if spec is None or spec.origin is None:
        return None
    try:
        found = ctypes.CDLL(spec.origin)
        if found.kernels_version() != VERSION or not found.kernels_fit():
            return None
    except (OSError, AttributeError):  # built on another system
        return None
    for prefix in _PREFIX.values():
        for name, sizes in _SIZES.items():
            function = getattr(found, f"{prefix}_{name}")
            function.argtypes = [ctypes.c_long] * sizes + [ctypes.c_void_p] * _POINTERS.get(name, 0)
            function.restype = ctypes.c_long if name.endswith("_room") else None
    return found


def describe(device: str = "cpu", precision: object = 32, cell: str = "lstm", dense: bool = True) -> str:
    """Which implementation a network's layers use: these, PyTorch's or cuDNN's.

    Args:
        device, precision, cell: as in a config; the device is ``cpu`` or ``cuda``.
        dense: whether the network has dense layers before its recurrent ones.
    """
    if device == "cuda":
        cudnn: Any = torch.backends.cudnn
        return f"cuDNN {cudnn.version()}" if cudnn.enabled and cudnn.is_available() else "torch"
    if library() is None or _torch_only or precision == "bf16" or (cell != "lstm" and not dense):
        return "torch"
    return f"compiled {VERSION}" + ("" if cell == "lstm" else f", {cell} of torch")


@contextmanager
def torch_only() -> Iterator[None]:
    """Within, PyTorch's layers are used."""
    global _torch_only
    before, _torch_only = _torch_only, True
    try:
        yield
    finally:
        _torch_only = before


def usable(x: Tensor, autocast: bool = False) -> bool:
    """Whether the compiled layers can compute on ``x``. Within autocast only what multiplies no matrices may."""
    if _torch_only or x.device.type != "cpu" or x.dtype not in _PREFIX:
        return False
    if torch.is_autocast_enabled("cpu") and not autocast:
        return False
    return not traced(x) and library() is not None


def lstm(
    x: Float[Tensor, "T B I"],
    h: Float[Tensor, "1 B H"],
    c: Float[Tensor, "1 B H"],
    w_ih: Float[Tensor, "G I"],
    w_hh: Float[Tensor, "G H"],
    bias: Float[Tensor, " G"],
) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "1 B H"], Float[Tensor, "1 B H"]]:
    """Compute what ``nn.LSTM`` with one layer computes.

    Args:
        x: (T, B, I).
        h, c: (1, B, H), the state before the first step.
        w_ih, w_hh: (4H, I) and (4H, H), gates in PyTorch's order.
        bias: (4H,), the sum of PyTorch's two biases.

    Returns:
        All h, (T, B, H), and the state after the last step, h and c, each (1, B, H).
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, h, c, w_ih, w_hh, bias)):
        return _LSTM.apply(x, h, c, w_ih, w_hh, bias)
    return _lstm_forward(x, h, c, w_ih, w_hh, bias, keep=False)[0]


def dense_tanh(
    x: Float[Tensor, "*R K"], weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"]
) -> Float[Tensor, "*R N"]:
    """tanh(x weightᵀ + bias): x (..., K), weight (N, K) → (..., N)."""
    return _DenseTanh.apply(x, weight, bias)


def noise(
    x: Float[Tensor, "*R N"], table: Float[Tensor, " 65536"], first: int, seed: int, counter: tuple[int, int, int]
) -> Float[Tensor, "*R N"]:
    """x + noise, whose gradient is that of x; :mod:`tbptt.models.noise` has the same without this library.

    Args:
        table: the noise for each of 65,536 equally likely 16 bits, of x's type.
        first: the index of x's first element.
        seed, counter: of the random bits.
    """
    return _Noise.apply(x, table, first, seed, counter)


def _call(name: str, dtype: torch.dtype, sizes: tuple[int, ...], *tensors: Tensor | None) -> Any:
    """Call a function of the library. Every tensor must be contiguous."""
    return getattr(library(), f"{_PREFIX[dtype]}_{name}")(*sizes, *(t if t is None else t.data_ptr() for t in tensors))


def _lstm_forward(
    x: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor, keep: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
    """What :func:`lstm` returns, and the tensors that the backward pass needs; these are only valid with ``keep``."""
    x, h0, c0 = x.contiguous(), h0.contiguous(), c0.contiguous()
    sizes = (*x.shape, w_hh.shape[1])
    steps, batch, _, hidden = sizes
    kept = steps if keep else 1
    h = x.new_empty(steps, batch, hidden)
    c, tanh_c = x.new_empty(kept, batch, hidden), x.new_empty(kept, batch, hidden)
    gates = x.new_empty(kept, batch, 4 * hidden)
    room = x.new_empty(_call("lstm_room", x.dtype, sizes))
    _call("lstm_forward", x.dtype, (*sizes, int(keep)), x, w_ih, w_hh, bias, h0, c0, h, c, gates, tanh_c, room)
    return (h, h[-1:].clone(), c[-1:].clone()), (x, h0, c0, w_ih, w_hh, h, c, gates, tanh_c)


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> Any:
        given, kept = _lstm_forward(x, h0, c0, w_ih, w_hh, bias, keep=True)
        ctx.save_for_backward(*kept)
        return given

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dh_end: Tensor, dc_end: Tensor) -> Any:
        if getattr(ctx, "used", False):
            raise RuntimeError("the compiled LSTM keeps its graph for one backward; use kernels.torch_only() for more")
        ctx.used = True
        x, h0, c0, w_ih, w_hh, h, c, gates, tanh_c = ctx.saved_tensors
        sizes = (*x.shape, w_hh.shape[1])
        dh, dh_end, dc_end = dh.contiguous(), dh_end.clone().contiguous(), dc_end.clone().contiguous()
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dw_ih, dw_hh, dbias = torch.empty_like(w_ih), torch.empty_like(w_hh), w_hh.new_empty(len(w_hh))
        room = x.new_empty(_call("lstm_room", x.dtype, sizes))
        # The kernel overwrites the gates with their gradients, so a graph allows one backward pass only.
        read = (x, w_ih, w_hh, h0, c0, h, c, gates, tanh_c, dh)
        _call("lstm_backward", x.dtype, sizes, *read, dh_end, dc_end, dx, dw_ih, dw_hh, dbias, room)
        return dx, dh_end, dc_end, dw_ih, dw_hh, dbias


class _DenseTanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        outputs, inputs = weight.shape
        y = x.new_empty(*x.shape[:-1], outputs)
        room = x.new_empty(_call("dense_room", x.dtype, (inputs, outputs)))
        _call("dense_forward", x.dtype, (x.numel() // inputs, inputs, outputs), x, weight, bias, y, room)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        outputs, inputs = weight.shape
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dw, dbias, dz = torch.empty_like(weight), weight.new_empty(outputs), torch.empty_like(y)
        room = x.new_empty(_call("dense_room", x.dtype, (inputs, outputs)))
        sizes = (x.numel() // inputs, inputs, outputs)
        _call("dense_backward", x.dtype, sizes, x, weight, y, dy.contiguous(), dx, dw, dbias, dz, room)
        return dx, dw, dbias


class _Noise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, table: Tensor, first: int, seed: int, counter: tuple[int, int, int]) -> Tensor:
        x = x.contiguous()
        y = torch.empty_like(x)
        _call("noise", x.dtype, (x.numel(), first, seed, *counter), table, x, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return dy, None, None, None, None
