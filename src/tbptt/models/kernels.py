"""Compiled layers for the CPU (native/kernels.c): an LSTM, a GRU and a dense layer, forward and backward, and noise.

They are built when the package is installed, if there is a C compiler: once for each of a few instruction sets, of
which the best that this processor has is used. PyTorch's own layers are used if they were not built, on a GPU, in bf16,
while a graph is written down (traced.py), and within ``torch_only``. Both give the same up to rounding.
"""

import ctypes
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tbptt.models.traced import traced

VERSION = 5  # of what native/kernels.c computes
_FUNCTIONS = 6  # of its functions, and of what they take
SETS = ("avx512", "avx2", "plain")  # the best first; plain is what every processor of the architecture has
PREFIX = {torch.float32: "float_", torch.float64: "double_"}
# Of each function, how many whole numbers and how many pointers it takes.
_TAKES = {
    "lstm_forward": (5, 10),
    "lstm_backward": (4, 13),
    "lstm_kept": (4, 0),
    "lstm_room": (4, 0),
    "gru_forward": (5, 9),
    "gru_backward": (4, 13),
    "gru_kept": (4, 0),
    "gru_room": (4, 0),
    "dense_forward": (4, 5),
    "dense_backward": (4, 8),
    "dense_room": (2, 0),
    "noise": (6, 3),
    "network_forward": (0, 9),
    "network_backward": (0, 9),
    "network_kept": (0, 1),
    "network_room": (0, 1),
    "rows_forward": (0, 4),
    "rows_backward": (0, 4),
    "rows_room": (0, 1),
}
_NUMBERS = [name for name in _TAKES if name.endswith(("_kept", "_room"))]  # they return one
log = logging.getLogger("tbptt")
_torch_only = False


@cache
def library() -> Any | None:
    """The compiled library for the best instruction set that this processor has. None if there is none.

    The environment's TBPTT_KERNELS names another set, to compare them. Where that is not there, a warning says so, and
    there is no library.
    """
    asked = os.environ.get("TBPTT_KERNELS")
    if not asked:
        return next((found for name in SETS if (found := of_set(name))), None)
    found = of_set(asked) if asked in SETS else None
    if found is None:
        here = " or ".join(name for name in SETS if of_set(name)) or "nothing, as no layers were compiled"
        log.warning("TBPTT_KERNELS=%s: PyTorch's layers are used; takes %s here", asked, here)
    return found


@cache
def of_set(name: str) -> Any | None:
    """The library for one of SETS. None if it was not built, or was built for another version, or if this processor has
    not the instructions."""
    spec = importlib.util.find_spec(f"tbptt.models._kernels_{name}")
    if spec is None or spec.origin is None:
        return None
    try:
        found: Any = ctypes.CDLL(spec.origin)
        if found.kernels_version() != _FUNCTIONS or not found.kernels_fit():
            return None
    except (OSError, AttributeError):  # built on another system
        return None
    found.set_name = name
    found.kernels_mode.argtypes = [ctypes.c_void_p]
    for prefix in PREFIX.values():
        for function, (numbers, pointers) in _TAKES.items():
            one = getattr(found, prefix + function)
            one.argtypes = [ctypes.c_long] * numbers + [ctypes.c_void_p] * pointers
            one.restype = ctypes.c_long if function in _NUMBERS else None
    return found


def describe(device: str = "cpu", precision: object = 32, cell: str = "lstm", dense: bool = True) -> str:
    """Which implementation a network's layers use: these, PyTorch's or cuDNN's.

    Args:
        device, precision: as in a config; the device is ``cpu`` or ``cuda``.
        cell: the kind of its recurrent layers.
        dense: whether it has dense layers before them.
    """
    if device == "cuda":
        cudnn: Any = torch.backends.cudnn
        return f"cuDNN {cudnn.version()}" if cudnn.enabled and cudnn.is_available() else "torch"
    found, is_compiled = library(), cell in ("lstm", "gru")
    if found is None or _torch_only or precision == "bf16" or not (is_compiled or dense):
        return "torch"
    return f"compiled {VERSION} ({found.set_name})" + ("" if is_compiled else f", {cell} of torch")


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
    if _torch_only or x.device.type != "cpu" or x.dtype not in PREFIX:
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
    if _any_trained(x, h, c, w_ih, w_hh, bias):
        return _LSTM.apply(x, h, c, w_ih, w_hh, bias)
    return _lstm_forward(x, h, c, w_ih, w_hh, bias, keep=False)[0]


def gru(
    x: Float[Tensor, "T B I"],
    h: Float[Tensor, "1 B H"],
    w_ih: Float[Tensor, "G I"],
    w_hh: Float[Tensor, "G H"],
    b_ih: Float[Tensor, " G"],
    b_hh: Float[Tensor, " G"],
) -> tuple[Float[Tensor, "T B H"], Float[Tensor, "1 B H"]]:
    """Compute what ``nn.GRU`` with one layer computes.

    Args:
        x: (T, B, I).
        h: (1, B, H), the state before the first step.
        w_ih, w_hh: (3H, I) and (3H, H), gates in PyTorch's order.
        b_ih, b_hh: (3H,).

    Returns:
        All h, (T, B, H), and the last one, (1, B, H).
    """
    if _any_trained(x, h, w_ih, w_hh, b_ih, b_hh):
        return _GRU.apply(x, h, w_ih, w_hh, b_ih, b_hh)
    return _gru_forward(x, h, w_ih, w_hh, b_ih, b_hh, keep=False)[0]


def dense(
    x: Float[Tensor, "*R K"], weight: Float[Tensor, "N K"], bias: Float[Tensor, " N"], tanh: bool = False
) -> Float[Tensor, "*R N"]:
    """x weightᵀ + bias, or its tanh: x (..., K), weight (N, K) → (..., N)."""
    return _Dense.apply(x, weight, bias, tanh)


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


def _any_trained(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _call(name: str, dtype: torch.dtype, sizes: tuple[int, ...], *tensors: Tensor | None) -> Any:
    """Call a function of the library. Every tensor must be contiguous."""
    return getattr(library(), PREFIX[dtype] + name)(*sizes, *[t if t is None else t.data_ptr() for t in tensors])


def check(dtype: torch.dtype, *given: tuple[Tensor, tuple[int, ...]]) -> None:
    """Compare tensors with the type and the shapes that a function takes. The library would read other memory.

    Raises:
        TypeError, ValueError: where PyTorch's layers raise RuntimeError.
    """
    for tensor, shape in given:
        if tensor.dtype is not dtype:
            raise TypeError(f"a layer has {tensor.dtype} beside an input of {dtype}; takes one type")
        if tensor.shape != shape:
            raise ValueError(f"a layer's input, state or weight is {tuple(tensor.shape)}; takes {shape}")


def _memory(name: str, like: Tensor, *sizes: int) -> Tensor:
    """As many numbers as this function of the library says."""
    return like.new_empty(_call(name, like.dtype, sizes))


def _lstm_forward(
    x: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor, keep: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
    """What :func:`lstm` returns, and the tensors that the backward pass needs; these are only valid with ``keep``."""
    x, h0, c0, w_ih, w_hh, bias = (t.contiguous() for t in (x, h0, c0, w_ih, w_hh, bias))
    sizes = (*x.shape, w_hh.shape[1])
    steps, batch, inputs, hidden = sizes
    state, gates = (1, batch, hidden), 4 * hidden
    check(x.dtype, (h0, state), (c0, state), (w_ih, (gates, inputs)), (w_hh, (gates, hidden)), (bias, (gates,)))
    h, c_end = x.new_empty(steps + 1, batch, hidden), torch.empty_like(c0)
    kept, room = _memory("lstm_kept", x, steps, batch, hidden, keep), _memory("lstm_room", x, *sizes)
    _call("lstm_forward", x.dtype, (*sizes, keep), x, w_ih, w_hh, bias, h0, c0, h, c_end, kept, room)
    return (h[1:], h[-1:].clone(), c_end), (x, w_ih, w_hh, h, kept)


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, c0: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> Any:
        given, kept = _lstm_forward(x, h0, c0, w_ih, w_hh, bias, keep=True)
        ctx.save_for_backward(*kept)
        return given

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dh_end: Tensor, dc_end: Tensor) -> Any:
        x, w_ih, w_hh, h, kept = ctx.saved_tensors
        sizes = (*x.shape, w_hh.shape[1])
        dh, dh_end, dc_end = dh.contiguous(), dh_end.clone().contiguous(), dc_end.clone().contiguous()
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        found = (dx, torch.empty_like(w_ih), torch.empty_like(w_hh), w_hh.new_empty(len(w_hh)))
        room = _memory("lstm_room", x, *sizes)
        _call("lstm_backward", x.dtype, sizes, x, w_ih, w_hh, h, kept, dh, dh_end, dc_end, *found, room)
        return dx, dh_end, dc_end, *found[1:]


def _gru_forward(
    x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, keep: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """What :func:`gru` returns, and the tensors that the backward pass needs; these are only valid with ``keep``."""
    x, h0, w_ih, w_hh, b_ih, b_hh = (t.contiguous() for t in (x, h0, w_ih, w_hh, b_ih, b_hh))
    sizes = (*x.shape, w_hh.shape[1])
    steps, batch, inputs, hidden = sizes
    gates = 3 * hidden
    check(x.dtype, (h0, (1, batch, hidden)), (w_ih, (gates, inputs)), (w_hh, (gates, hidden)))
    check(x.dtype, (b_ih, (gates,)), (b_hh, (gates,)))
    h = x.new_empty(steps + 1, batch, hidden)
    kept, room = _memory("gru_kept", x, steps, batch, hidden, keep), _memory("gru_room", x, *sizes)
    _call("gru_forward", x.dtype, (*sizes, keep), x, w_ih, w_hh, b_ih, b_hh, h0, h, kept, room)
    return (h[1:], h[-1:].clone()), (x, w_ih, w_hh, h, kept)


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h0: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Any:
        given, kept = _gru_forward(x, h0, w_ih, w_hh, b_ih, b_hh, keep=True)
        ctx.save_for_backward(*kept)
        return given

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dh_end: Tensor) -> Any:
        x, w_ih, w_hh, h, kept = ctx.saved_tensors
        sizes = (*x.shape, w_hh.shape[1])
        dh, dh_end = dh.contiguous(), dh_end.clone().contiguous()
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        biases = w_hh.new_empty(len(w_hh)), w_hh.new_empty(len(w_hh))
        found = (dx, torch.empty_like(w_ih), torch.empty_like(w_hh), *biases)
        room = _memory("gru_room", x, *sizes)
        _call("gru_backward", x.dtype, sizes, x, w_ih, w_hh, h, kept, dh, dh_end, *found, room)
        return dx, dh_end, *found[1:]


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, tanh: bool) -> Tensor:
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        outputs, inputs = weight.shape
        check(x.dtype, (x, (*x.shape[:-1], inputs)), (weight, (outputs, inputs)), (bias, (outputs,)))
        y = x.new_empty(*x.shape[:-1], outputs)
        room = _memory("dense_room", x, inputs, outputs)
        sizes = (x.numel() // inputs, inputs, outputs, int(tanh))
        _call("dense_forward", x.dtype, sizes, x, weight, bias, y, room)
        ctx.save_for_backward(x, weight, y)
        ctx.sizes = sizes
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, weight, y = ctx.saved_tensors
        outputs, inputs = weight.shape
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dw, dbias = torch.empty_like(weight), weight.new_empty(outputs)
        room = _memory("dense_room", x, inputs, outputs)
        _call("dense_backward", x.dtype, ctx.sizes, x, weight, y, dy.contiguous(), dx, dw, dbias, room)
        return dx, dw, dbias, None


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
