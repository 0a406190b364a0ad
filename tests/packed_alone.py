"""What tests/test_packed_triton.py runs in processes of their own, as Triton decides when it is imported whether it
interprets kernels or compiles them: `packed_alone.py compare DEVICE` and `packed_alone.py compile`. Prints JSON."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tbptt.models import packed_triton

INPUTS = 5
LAYERS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}
# Units, sequences and each network's steps. 20 sequences are more than a program's 16; in the last, one has no step.
CASES = [
    (16, 15, (5, 1, 4)),
    (64, 3, (4, 4, 1)),
    (64, 15, (2, 3)),
    (32, 20, (3, 2)),
    (128, 3, (3, 2)),
    (16, 3, (0, 2)),
]


def rows_of(networks: list[nn.Module]) -> Tensor:
    """All weights, a network a row, and three numbers more, so that no row begins at a multiple of 16 bytes."""
    rows = [nn.utils.parameters_to_vector(network.parameters()).detach() for network in networks]
    return nn.functional.pad(torch.stack(rows), (3, 0))


def weights(rows: Tensor, network: nn.Module) -> list[Tensor]:
    """w_ih, w_hh, b_ih and b_hh of all networks, views of the rows."""
    views, at = [], 3
    for parameter in network.parameters():
        views.append(rows[:, at : at + parameter.numel()].unflatten(1, parameter.shape))
        at += parameter.numel()
    return views


def products(cell: str, x: Tensor, of_weights: list[Tensor]) -> Tensor:
    w_ih, _, b_ih, b_hh = of_weights
    xg = torch.einsum("ntbi,ngi->ntbg", x, w_ih) + b_ih[:, None, None]
    return xg + b_hh[:, None, None] if cell == "lstm" else xg


def layer(cell: str, xg: Tensor, of_weights: list[Tensor], state: list[Tensor], lengths: Tensor) -> tuple[Tensor, ...]:
    if cell == "lstm":
        return packed_triton.lstm(xg, of_weights[1], *state, lengths)
    return packed_triton.gru(xg, of_weights[1], of_weights[3], *state, lengths)


def parted(a: Tensor, b: Tensor) -> float:
    """How far two tensors are apart, as a part of the second's largest number."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) if b.numel() else 0.0


def alone(cell: str, network: nn.Module, x: Tensor, state: list[Tensor], v: list[Tensor]) -> dict[str, Tensor]:
    """What one network of PyTorch computes in float64, with its gradients. ``v``: those of what it computes."""
    network = network.double()
    x = x.double().requires_grad_()
    begun = [s.double().requires_grad_() for s in state]
    h, end = x.new_zeros(0, *begun[0].shape), begun
    if len(x):
        h, last = network(x, tuple(s[None] for s in begun) if cell == "lstm" else begun[0][None])
        end = [s[0] for s in (last if cell == "lstm" else [last])]
    sum((a * b.double()).sum() for a, b in zip((h, *end), v, strict=True)).backward()
    none = nn.utils.parameters_to_vector(network.parameters()).detach() * 0
    grads = [p.grad.flatten() for p in network.parameters() if p.grad is not None]
    found = {"h": h, "x": torch.zeros_like(x) if x.grad is None else x.grad}
    found["weights"] = torch.cat(grads) if grads else none
    found |= {f"end {i}": s for i, s in enumerate(end)}
    return found | {f"begin {i}": s.grad for i, s in enumerate(begun) if s.grad is not None}


def compare(cell: str, hidden: int, batch: int, steps: tuple[int, ...], device: str) -> dict[str, Any]:
    """The largest difference from PyTorch's networks, each alone, of each thing computed; and what else must hold."""
    torch.manual_seed(0)
    networks = [LAYERS[cell](INPUTS, hidden) for _ in steps]
    rows = rows_of(networks).to(device).requires_grad_()
    x = torch.randn(len(steps), max(steps), batch, INPUTS, device=device, requires_grad=True)
    parts = range(2 if cell == "lstm" else 1)
    state = [torch.randn(len(steps), batch, hidden, device=device, requires_grad=True) for _ in parts]
    lengths = torch.tensor(steps, dtype=torch.int32, device=device)
    views = weights(rows, networks[0])
    found = layer(cell, products(cell, x, views), views, state, lengths)
    v = [torch.randn_like(y) for y in found]  # those of h after a network's end, too
    loss = sum((a * b).sum() for a, b in zip(found, v, strict=True))
    sources = [x, rows, *state]
    dx, drows, *dstate = torch.autograd.grad(loss, sources, retain_graph=True)
    again = torch.autograd.grad(loss, sources)
    with torch.no_grad():
        without_graph = layer(cell, products(cell, x, views), views, state, lengths)
    apart: dict[str, float] = {}
    rest = 0.0
    for n, (network, length) in enumerate(zip(networks, steps, strict=True)):
        theirs = alone(
            cell, network, x[n, :length].detach().cpu(), [s[n].detach().cpu() for s in state],
            [v[0][n, :length].cpu(), *(d[n].cpu() for d in v[1:])],
        )  # fmt: skip
        ours = {"h": found[0][n, :length], "x": dx[n, :length], "weights": drows[n, 3:]}
        ours |= {f"end {i}": y[n] for i, y in enumerate(found[1:])}
        ours |= {f"begin {i}": d[n] for i, d in enumerate(dstate)}
        for name in theirs:
            apart[name] = max(apart.get(name, 0.0), parted(ours[name], theirs[name]))
        rest += float(found[0][n, length:].abs().sum() + dx[n, length:].abs().sum())
    return {
        "apart": apart,
        "after the end": rest,
        "same again": all(torch.equal(a, b) for a, b in zip(again, (dx, drows, *dstate), strict=True)),
        "same without a graph": all(torch.equal(a, b) for a, b in zip(without_graph, found, strict=True)),
        "same captured": captured(cell, x, views, state, lengths, found) if device == "cuda" else None,
    }


def captured(
    cell: str, x: Tensor, views: list[Tensor], state: list[Tensor], lengths: Tensor, found: tuple[Tensor, ...]
) -> bool:
    """Whether a CUDA graph of the layer computes the same, with lengths that were set after it was captured."""
    sources = [t.detach().clone().requires_grad_() for t in (x, *state)]
    views = [w.detach() for w in views]
    ends = torch.ones_like(lengths)

    def both() -> list[Tensor]:
        ys = layer(cell, products(cell, sources[0], views), views, sources[1:], ends)
        return [*ys, *torch.autograd.grad(sum(y.sum() for y in ys), sources)]

    graph, other = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    other.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(other):
        both()  # compiles
    torch.cuda.current_stream().wait_stream(other)
    with torch.cuda.graph(graph):
        there = both()
    ends.copy_(lengths)
    graph.replay()
    expected = (*found, *both()[len(found) :])
    return all(parted(a, b) <= 1e-6 for a, b in zip(there, expected, strict=True))


def compile_all() -> list[dict[str, Any]]:
    """Each kernel as it would be started on an H100 or H200, compiled and not started."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    target = GPUTarget("cuda", 90, 32)
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda device: 0
        )
    )
    found: list[dict[str, Any]] = []
    run = JITFunction.run

    def compiled(self: Any, *given: Any, **options: Any) -> None:
        kernel = run(self, *given, **options | {"warmup": True})
        about = {"kernel": self.fn.__name__, "hidden": options["H"], "weights": given[1].data_ptr()}
        found.append(about | needs(kernel))

    JITFunction.run = compiled
    for cell in LAYERS:
        for hidden in (packed_triton.RESIDENT, packed_triton.SIZES[-1]):
            networks = [LAYERS[cell](INPUTS, hidden) for _ in range(2)]
            views = weights(rows_of(networks).requires_grad_(), networks[0])
            state = [torch.zeros(2, 3, hidden) for _ in range(2 if cell == "lstm" else 1)]
            xg = products(cell, torch.zeros(2, 4, 3, INPUTS), views)
            h, *_ = layer(cell, xg, views, state, torch.ones(2, dtype=torch.int32))
            h.sum().backward()
            for each in found[-2:]:
                each["weights"] = each["weights"] == views[1].data_ptr()
    return found


def needs(kernel: Any) -> dict[str, Any]:
    """Of a compiled kernel: its target, its registers, the bytes that it spills, those of shared memory that it takes,
    and the orders in which tiles' dimensions lie there."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        said = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True, check=True)
    registers, spilled = re.findall(r"REG:(\d+) STACK:(\d+)", said.stdout + said.stderr)[0]
    layouts = re.findall(r"_shared<.*order = \[(\d, \d)\]", kernel.asm["ttgir"])
    return {
        "target": re.findall(r"\.target (\S+)", kernel.asm["ptx"])[0],
        "registers": int(registers),
        "spilled": int(spilled),
        "shared": kernel.metadata.shared,
        "orders": sorted(set(layouts)),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "compile":
        print(json.dumps(compile_all()))
    else:
        print(json.dumps([compare(cell, *case, sys.argv[2]) for cell in LAYERS for case in CASES]))
