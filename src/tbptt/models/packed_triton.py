"""LSTM and GRU layers of N networks at once on a GPU, each with weights and a number of steps of its own, with Triton.

One small network leaves nearly all of a GPU idle. Here a kernel (triton_kernels.py) computes all steps of all networks,
forward or backward, with a network or more on each of the GPU's processors. All shapes are static and nothing waits for
the host, so calls can be captured as a CUDA graph after a first one, which compiles the kernels.
"""

from typing import Any

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.autograd.function import once_differentiable

from tbptt.models import kernels

SIZES = (16, 32, 64, 128)  # units that a layer may have
TAKES = f"{', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]}"
RESIDENT = 64  # up to so many units the weights find room in a processor's shared memory
ROWS = 16  # sequences of a program
PRECISIONS = ("ieee", "tf32", "tf32x3")


def available() -> bool:
    """Whether Triton can be imported; it comes with PyTorch for CUDA."""
    try:
        import triton  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def why_not(hidden: int) -> str | None:
    """Why layers of ``hidden`` units cannot be computed here. None if they can."""
    if hidden not in SIZES:
        return f"{hidden} units; Triton's layers take {TAKES}"
    return None if available() else "Triton is not installed"


def lstm(
    xg: Float[Tensor, "N T B G"],
    w_hh: Float[Tensor, "N G H"],
    h0: Float[Tensor, "N B H"],
    c0: Float[Tensor, "N B H"],
    lengths: Int32[Tensor, " N"],
    precision: str = "ieee",
) -> tuple[Float[Tensor, "N T B H"], Float[Tensor, "N B H"], Float[Tensor, "N B H"]]:
    """Compute what N times ``nn.LSTM`` with one layer computes, in float32.

    Args:
        xg: (N, T, B, 4H), the inputs times w_ih plus both biases, gates in PyTorch's order.
        w_hh: (N, 4H, H); it may be part of a matrix with a row for each network.
        h0, c0: (N, B, H), the states before the first step.
        lengths: (N,), int32: how many steps each network has, 0 to T. Its h is 0 afterwards, and no gradient comes from
            there.
        precision: of the products of states and weights: ``ieee`` float32; ``tf32``, which keeps 10 bits of the
            factors; ``tf32x3``, three products in tf32, almost as exact as ``ieee``.

    Returns:
        All h, (N, T, B, H), and h and c after each network's last step, each (N, B, H).

    Raises:
        TypeError, ValueError: a type, a shape or a precision is none of these.
    """
    return _run(_LSTM, _lstm_forward, xg, w_hh, h0, c0, lengths, precision)


def gru(
    xg: Float[Tensor, "N T B G"],
    w_hh: Float[Tensor, "N G H"],
    b_hh: Float[Tensor, "N G"],
    h0: Float[Tensor, "N B H"],
    lengths: Int32[Tensor, " N"],
    precision: str = "ieee",
) -> tuple[Float[Tensor, "N T B H"], Float[Tensor, "N B H"]]:
    """Compute what N times ``nn.GRU`` with one layer computes, in float32.

    Args:
        xg: (N, T, B, 3H), the inputs times w_ih plus b_ih, gates in PyTorch's order.
        w_hh, b_hh: (N, 3H, H) and (N, 3H), as :func:`lstm` takes its w_hh.
        h0: (N, B, H).
        lengths, precision: as in :func:`lstm`.

    Returns:
        All h, (N, T, B, H), and h after each network's last step, (N, B, H).

    Raises:
        TypeError, ValueError: as :func:`lstm`.
    """
    return _run(_GRU, _gru_forward, xg, w_hh, b_hh, h0, lengths, precision)


def options(hidden: int) -> dict[str, Any]:
    """What the kernels are compiled with.

    Each warp reads all weights, so twice as many warps would read twice as much. Without a bound on registers ptxas may
    fall back to 32 and spill the rest.
    """
    return {"num_warps": 4 if hidden <= RESIDENT else 8, "num_stages": 2, "maxnreg": 255, "enable_fp_fusion": True}


def _run(function: Any, forward: Any, *given: Any) -> Any:
    if torch.is_grad_enabled() and any(t.requires_grad for t in given[:-1]):
        return function.apply(*given)
    return forward(*given, keep=False)[0]


def _launch(name: str, like: Tensor, precision: str, *given: Any, **constants: bool) -> None:
    """Start a kernel on the sequences of ``like``, (N, B, H)."""
    from tbptt.models import triton_kernels

    networks, batch, hidden = like.shape
    kernel = getattr(triton_kernels, name)[(networks, -(-batch // ROWS))]
    sizes = {"H": hidden, "ROWS": ROWS, "RESIDENT": hidden <= RESIDENT}
    with torch.cuda.device_of(like):
        kernel(*given, **sizes, **constants, PRECISION=precision, **options(hidden))


def _check(gates: int, precision: str, xg: Tensor, w_hh: Tensor, lengths: Tensor, *states: Tensor) -> None:
    """The kernels would read other memory."""
    networks, steps, batch, width = xg.shape
    hidden = width // gates
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision}; takes {', '.join(PRECISIONS)}")
    if hidden not in SIZES or width % gates or not networks * steps * batch:
        raise ValueError(f"xg is {tuple(xg.shape)}; takes {gates} gates of {TAKES} units, and at least one of the rest")
    kernels.check(torch.float32, (xg, (*xg.shape[:3], width)), (w_hh, (networks, width, hidden)))
    kernels.check(torch.float32, *((state, (networks, batch, hidden)) for state in states))
    if lengths.dtype is not torch.int32:
        raise TypeError(f"lengths are {lengths.dtype}; takes torch.int32")
    kernels.check(torch.int32, (lengths, (networks,)))
    if len({t.device for t in (xg, w_hh, lengths, *states)}) > 1:
        raise ValueError("a layer's inputs, weights, state and lengths are on different devices; takes one")


def _by_row(t: Tensor) -> Tensor:
    """The same, with each row contiguous."""
    return t if t[0].is_contiguous() else t.contiguous()


def _by_step(t: Tensor) -> Tensor:
    """(N, T, B, X) → (N, T B, X), the same memory."""
    return t.flatten(1, 2)


def _lstm_forward(
    xg: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, lengths: Tensor, precision: str, keep: bool
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
    """What :func:`lstm` returns, and the tensors that the backward pass needs; these are only valid with ``keep``."""
    _check(4, precision, xg, w_hh, lengths, h0, c0)
    xg, h0, c0, lengths = (t.contiguous() for t in (xg, h0, c0, lengths))
    networks, steps, batch, _ = xg.shape
    h = xg.new_empty(networks, steps + 1, batch, h0.shape[2])
    c, gates = (torch.empty_like(h), torch.empty_like(xg)) if keep else (h, h)
    h_end, c_end = torch.empty_like(h0), torch.empty_like(c0)
    turned = w_hh.transpose(1, 2).contiguous()
    given = (xg, turned, h0, c0, lengths, h, c, gates, h_end, c_end, steps, batch)
    _launch("lstm_forward", h0, precision, *given, KEEP=keep)
    return (h[:, 1:], h_end, c_end), (w_hh, lengths, h, c, gates)


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, xg: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, lengths: Tensor, precision: str
    ) -> tuple[Tensor, ...]:
        found, kept = _lstm_forward(xg, w_hh, h0, c0, lengths, precision, keep=True)
        ctx.save_for_backward(*kept)
        ctx.precision = precision
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dh_end: Tensor, dc_end: Tensor) -> Any:
        w_hh, lengths, h, c, gates = ctx.saved_tensors
        w, dh, dh_end, dc_end = _by_row(w_hh), dh.contiguous(), dh_end.contiguous(), dc_end.contiguous()
        dgates, dh0, dc0 = torch.empty_like(gates), torch.empty_like(dh_end), torch.empty_like(dc_end)
        given = (dh, w, w.stride(0), lengths, c, gates, dgates, dh_end, dc_end, dh0, dc0, *gates.shape[1:3])
        _launch("lstm_backward", dh_end, ctx.precision, *given)
        dw = None
        if ctx.needs_input_grad[1]:
            dw = torch.bmm(_by_step(dgates).transpose(1, 2), _by_step(h[:, :-1]))
        return dgates, dw, dh0, dc0, None, None


def _gru_forward(
    xg: Tensor, w_hh: Tensor, b_hh: Tensor, h0: Tensor, lengths: Tensor, precision: str, keep: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
    """What :func:`gru` returns, and the tensors that the backward pass needs; these are only valid with ``keep``."""
    _check(3, precision, xg, w_hh, lengths, h0)
    kernels.check(torch.float32, (b_hh, tuple(w_hh.shape[:2])))
    xg, h0, lengths = (t.contiguous() for t in (xg, h0, lengths))
    networks, steps, batch, _ = xg.shape
    hidden = h0.shape[2]
    h = xg.new_empty(networks, steps + 1, batch, hidden)
    gates = xg.new_empty(networks, steps, batch, 4 * hidden) if keep else h
    h_end = torch.empty_like(h0)
    turned, b = w_hh.transpose(1, 2).contiguous(), _by_row(b_hh)
    given = (xg, turned, b, b.stride(0), h0, lengths, h, gates, h_end, steps, batch)
    _launch("gru_forward", h0, precision, *given, KEEP=keep)
    return (h[:, 1:], h_end), (w_hh, lengths, h, gates)


class _GRU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, xg: Tensor, w_hh: Tensor, b_hh: Tensor, h0: Tensor, lengths: Tensor, precision: str
    ) -> tuple[Tensor, ...]:
        found, kept = _gru_forward(xg, w_hh, b_hh, h0, lengths, precision, keep=True)
        ctx.save_for_backward(*kept)
        ctx.precision = precision
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, dh_end: Tensor) -> Any:
        w_hh, lengths, h, gates = ctx.saved_tensors
        networks, steps, batch, _ = gates.shape
        two = 2 * w_hh.shape[2]  # the gates r and z, whose biases and products are added to those of x
        w, dh, dh_end = _by_row(w_hh), dh.contiguous(), dh_end.contiguous()
        dxg, dpast = gates.new_empty(networks, steps, batch, w.shape[1]), torch.empty_like(dh)
        dh0 = torch.empty_like(dh_end)
        given = (dh, w, w.stride(0), lengths, h, gates, dxg, dpast, dh_end, dh0, steps, batch)
        _launch("gru_backward", dh_end, ctx.precision, *given)
        dw = db = None
        if ctx.needs_input_grad[1]:
            dw, before = torch.empty_like(w, memory_format=torch.contiguous_format), _by_step(h[:, :-1])
            torch.bmm(_by_step(dxg[..., :two]).transpose(1, 2), before, out=dw[:, :two])
            torch.bmm(_by_step(dpast).transpose(1, 2), before, out=dw[:, two:])
        if ctx.needs_input_grad[2]:
            db = torch.cat((dxg[..., :two].sum((1, 2)), dpast.sum((1, 2))), 1)
        return dxg, dw, db, dh0, None, None
