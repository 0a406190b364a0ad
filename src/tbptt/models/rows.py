"""Many networks of one shape, each with its own weights, state and noise, in one call of the compiled library forward
and one backward (native/rows.h), without autograd.

The numbers are those of :func:`tbptt.models.at_once.network` for each network alone, bit for bit. Where networks are
small and chunks short, Python and autograd would take most of an update's time.
"""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tbptt.models import at_once, kernels
from tbptt.models.article import QNetwork
from tbptt.models.state import leaves

_LINE = 64  # bytes; no two threads write to one line of the cache


def why_not(networks: Sequence[QNetwork], dtype: torch.dtype) -> str | None:
    """Why these networks cannot be the rows of a :class:`NetworkRows`; None if they can."""
    if not kernels.usable(torch.empty(0, dtype=dtype)):
        return "the compiled layers are not used here"
    for i, network in enumerate(networks):
        if problem := _why_not(network, dtype):
            return f"network {i}: {problem}"
        if _shape(network) != _shape(networks[0]):
            return f"network {i} has layers of other kinds or sizes than the first one"
    return None if networks else "there are no networks"


def _why_not(network: QNetwork, dtype: torch.dtype) -> str | None:
    if type(network) is not QNetwork or not network.is_as_made():
        return "it is no QNetwork as it was made, with noise by counter"
    weights, dense, recurrent = network.weights(), len(network.dense), len(network.recurrent)
    if len(set(weights)) != 2 * dense + 4 * recurrent + 2:
        return "its layers share weights, or have other weights than they were made with"
    may_be_frozen = {layer.bias_hh_l0 for layer in network.recurrent}
    if any(not w.requires_grad and w not in may_be_frozen for w in weights):
        return "a weight is frozen that is no bias_hh of a recurrent layer"
    if any(w.device.type != "cpu" or w.dtype is not dtype or not w.is_contiguous() for w in weights):
        return f"a weight is not contiguous numbers of {dtype} on the CPU"
    try:
        _sizes(network)
    except ValueError:
        return "the sizes of its layers do not fit together"
    return None


def _shape(network: QNetwork) -> tuple[object, ...]:
    return network.cell, len(network.dense), [w.shape for w in network.weights()]


def _sizes(network: QNetwork) -> list[int]:
    """Of the dense and the recurrent layers. Raises ValueError where they do not fit together."""
    weights = network.weights()
    x = weights[0].new_empty(1, 1, weights[0].shape[1])
    return at_once.layer_sizes(x, leaves(network.zero_state(1)), weights, len(network.dense), network.cell == "lstm")


class _Row(ctypes.Structure):
    """``row`` in native/rows.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "dweights", "table")),
        ("seed", ctypes.c_long),
    )


class _Call(ctypes.Structure):
    """``call`` in native/rows.h."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("which", "updates", "x", "state", "dstate", "y", "dy", "memory", "mode")
        ),
        *((name, ctypes.c_long) for name in ("n", "kept", "carried", "add", "next")),
    )


class _Forward(NamedTuple):
    """A forward pass: what its call was made of, which must stay in memory as long as the call is used."""

    steps: int
    batch: int
    first_step: int
    rows: Any
    updates: Any
    x: Any
    tensors: object


class NetworkRows:
    """N networks of one shape, the rows, of which any are computed together.

    The weights and gradients are read and written where they are, so they must stay there: make this after
    :class:`tbptt.training.flat.FlatParameters`, and :meth:`put` a row again whose parameters have moved. The noise is
    that of the network's noise layer when the row was put in.

    Args:
        networks: one for each row; see :func:`why_not`.
        gradients: of each network, the memory of its gradients: one contiguous tensor per trained parameter, in the
            order of ``parameters()``, as in ``FlatParameters.grads``.
        threads: how many threads share the rows of a call, this one among them.

    Raises:
        ValueError: the networks cannot be rows, or gradients do not fit them.
    """

    def __init__(self, networks: Sequence[QNetwork], gradients: Sequence[Sequence[Tensor]], threads: int = 1):
        dtype = networks[0].head.weight.dtype if networks else torch.float32
        if problem := why_not(networks, dtype):
            raise ValueError(problem)
        first = networks[0]
        self.dtype, self.outputs, self.inputs = dtype, len(first.head.bias), first.weights()[0].shape[1]
        self._layers = len(first.dense), len(first.recurrent), int(first.cell == "lstm")
        self._sizes, self._first_shape = _sizes(first), _shape(first)
        self._states = [size for size in self._sizes[self._layers[0] :] for _ in range(2 if self._layers[2] else 1)]
        self._rows = (_Row * len(networks))()
        self._held: list[object] = [None] * len(networks)  # what the rows point to
        for row, (network, of_network) in enumerate(zip(networks, gradients, strict=True)):
            self.put(row, network, of_network)
        self._pool = ThreadPoolExecutor(threads - 1, "rows") if threads > 1 else None
        self._threads, self._mode = threads, ctypes.create_string_buffer(128)
        self._memory = self._rooms = torch.empty(0, dtype=dtype)  # both only grow
        self._gradients: list[Tensor] = []  # of the state
        self._needs: dict[tuple[int, int, bool], tuple[int, int]] = {}
        self._last: _Forward | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, row: int, network: QNetwork, gradients: Sequence[Tensor]) -> None:
        """Give a row another network of the same shape. Raises as the class does."""
        problem = why_not([network], self.dtype)
        if not problem and _shape(network) != self._first_shape:
            problem = "network 0 has layers of other kinds or sizes than the rows"
        if problem:
            raise ValueError(problem)
        weights = network.weights()
        trained = [w for w in weights if w.requires_grad]
        of = dict(zip(trained, gradients, strict=True))
        for w, g in of.items():
            kernels.check(self.dtype, (g, tuple(w.shape)))
            if not g.is_contiguous():
                raise ValueError("a gradient is not contiguous")
        table = network.noise.table(self.dtype)
        at = [of[w].data_ptr() if w in of else None for w in weights]
        both = at_once.pointers(weights), (ctypes.c_void_p * len(at))(*at)
        self._held[row] = [*both, table, [w.detach() for w in weights], gradients]
        self._rows[row] = _Row(
            *map(ctypes.addressof, both), None if table is None else table.data_ptr(), network.noise.seed
        )

    def zero_state(self, batch: int) -> list[Tensor]:
        """The state of all rows at the start of every sequence: of each recurrent layer h, and c of an LSTM,
        (N, B, H) each."""
        return [torch.zeros(len(self), batch, size, dtype=self.dtype) for size in self._states]

    def reset(self, state: Sequence[Tensor], rows: Sequence[int]) -> None:
        """Set the state of some rows to that at the start of every sequence."""
        for tensor in state:
            tensor[list(rows)] = 0

    def forward(
        self,
        x: Tensor | Sequence[Tensor],
        rows: Sequence[int],
        state: Sequence[Tensor],
        updates: Sequence[int],
        first_step: int = 0,
        keep: bool = True,
    ) -> Float[Tensor, "n T B O"]:
        """Compute n rows in training mode, to be followed by :meth:`backward`.

        Args:
            x: (T, B, I) for all rows, or one such tensor for each of them.
            rows: n different numbers.
            state: of all rows, as from :meth:`zero_state`; that of these rows is before the call the state before the
                first step, and after the call that after the last step.
            updates: of each of the n rows, the number of the update since its training began, on which its noise
                depends.
            first_step: the step of the chunk at which x begins.
            keep: keep what :meth:`backward` needs; it is valid until the next such call.

        Returns:
            (n, T, B, O), the predictions.

        Raises:
            ValueError, TypeError: a size or type does not fit.
        """
        forward, y = self._forward(x, rows, state, updates, first_step, keep, noisy=True)
        if keep:
            self._last = forward
        return y

    def predict(
        self, x: Tensor | Sequence[Tensor], rows: Sequence[int], state: Sequence[Tensor]
    ) -> Float[Tensor, "n T B O"]:
        """Compute n rows without noise, as networks do in eval mode, and carry on the state. What :meth:`forward` kept
        stays. Arguments, result and errors are those of :meth:`forward`."""
        return self._forward(x, rows, state, [0] * len(rows), 0, keep=False, noisy=False)[1]

    def backward(self, dy: Float[Tensor, "n T B O"], *, carried: bool = False, add: bool = False) -> None:
        """Write the gradients of the weights of the rows of the last :meth:`forward`, from that of its result.

        Args:
            dy: (n, T, B, O).
            carried: the steps that the last call of this method went back through follow those of this one, in one
                chunk: the gradient of the state goes on from there. Otherwise that of the state after is 0.
            add: add to the gradients that are there.
        """
        last = self._last
        if last is None:
            raise RuntimeError("there was no forward pass to go back through")
        n, (kept, room) = len(last.rows), self._need(last.steps, last.batch, True)
        kernels.check(self.dtype, (dy, (n, last.steps, last.batch, self.outputs)))
        dy = dy.contiguous()
        if not self._gradients or self._gradients[0].shape[1] != last.batch:
            if carried:
                raise ValueError("no gradient of a state of this batch is there to go on from")
            self._gradients = self.zero_state(last.batch)
        dstate = at_once.pointers(self._gradients)
        call = _Call(n=n, kept=kept, carried=carried, add=add, dy=dy.data_ptr(), memory=self._memory.data_ptr())
        call.dstate = ctypes.addressof(dstate)
        self._run("rows_backward", last, call, room, keep=True, noisy=True, held=(dy, dstate))

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _forward(
        self,
        x: Tensor | Sequence[Tensor],
        rows: Sequence[int],
        state: Sequence[Tensor],
        updates: Sequence[int],
        first_step: int,
        keep: bool,
        noisy: bool,
    ) -> tuple[_Forward, Tensor]:
        n = len(rows)
        inputs = [x.contiguous()] * n if isinstance(x, Tensor) else [each.contiguous() for each in x]
        if not n or len(set(rows)) != n or min(rows) < 0 or max(rows) >= len(self):
            raise ValueError(f"rows are {list(rows)}; takes different numbers from 0 to {len(self) - 1}")
        if len(inputs) != n or len(updates) != n:
            raise ValueError(f"{n} rows have {len(inputs)} inputs and {len(updates)} updates; takes one for each row")
        steps, batch, _ = inputs[0].shape
        for each in inputs if not isinstance(x, Tensor) else inputs[:1]:
            kernels.check(self.dtype, (each, (steps, batch, self.inputs)))
        for tensor, size in zip(state, self._states, strict=True):
            kernels.check(self.dtype, (tensor, (len(self), batch, size)))
            if not tensor.is_contiguous():
                raise ValueError("a state is not contiguous")
        numbers = ctypes.c_long * n
        forward = _Forward(
            steps, batch, first_step, numbers(*rows), numbers(*updates), at_once.pointers(inputs), (inputs, state)
        )
        y = torch.empty(n, steps, batch, self.outputs, dtype=self.dtype)
        kept, room = self._need(steps, batch, keep)
        states = at_once.pointers(state)
        call = _Call(n=n, kept=kept, y=y.data_ptr(), state=ctypes.addressof(states))
        if keep:
            self._last = None
            if len(self._memory) < n * kept:
                self._memory = torch.empty(n * kept, dtype=self.dtype)
            call.memory = self._memory.data_ptr()
        self._run("rows_forward", forward, call, room, keep, noisy, held=(y, states))
        return forward, y

    def _plan(self, steps: int, batch: int, first_step: int, keep: bool, noisy: bool) -> Any:
        """``plan`` in native/network.h. What each row has of its own is 0 in it."""
        plan = (
            steps,
            batch,
            self.inputs,
            self.outputs,
            *self._layers,
            keep,
            noisy,
            first_step,
            0,
            0,
            0,
            0,
            *self._sizes,
        )
        return (ctypes.c_long * len(plan))(*plan)

    def _need(self, steps: int, batch: int, keep: bool) -> tuple[int, int]:
        """How many numbers a row keeps, and how many each thread has room for; whole lines of the cache."""
        asked = steps, batch, keep
        if asked not in self._needs:
            plan, found, line = self._plan(steps, batch, 0, keep, True), kernels.library(), _LINE // self.dtype.itemsize
            kept, room = (
                -(-getattr(found, kernels.PREFIX[self.dtype] + name)(plan) // line) * line
                for name in ("network_kept", "rows_room")
            )
            self._needs[asked] = kept, room + line
        return self._needs[asked]

    def _run(self, name: str, f: _Forward, call: _Call, room: int, keep: bool, noisy: bool, held: object) -> None:
        """Have the threads make a call of the library together. ``held`` stays in memory until all have."""
        found: Any = kernels.library()
        function = getattr(found, kernels.PREFIX[self.dtype] + name)
        threads = min(self._threads, call.n)
        if len(self._rooms) < threads * room:
            self._rooms = torch.empty(threads * room, dtype=self.dtype)
        plan, rooms = self._plan(f.steps, f.batch, f.first_step, keep, noisy), self._rooms
        call.which, call.updates, call.x = map(ctypes.addressof, (f.rows, f.updates, f.x))
        if threads > 1:
            found.kernels_mode(self._mode)
            call.mode = ctypes.addressof(self._mode)

        def work(thread: int, *_: object) -> None:
            function(plan, self._rows, ctypes.byref(call), rooms.data_ptr() + thread * room * rooms.itemsize)

        others = [self._pool.submit(work, i, held, f) for i in range(1, threads)] if self._pool is not None else []
        work(0)
        for other in others:
            if not other.cancel():  # it had begun
                other.result()
