"""What all files of a network have in common: its state as named tensors, what a user of the file has to know, and the
comparison of the file with the network.

B sequences of a batch, K steps of a chunk, F features, O outputs, S scales (1, or one a series).
"""

import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tbptt.config.plain import plain
from tbptt.config.try_out import input_size
from tbptt.models.state import batch_dims, leaves, rebuild, with_places
from tbptt.runs import checkpoint
from tbptt.serving.trained import Trained

if TYPE_CHECKING:
    from tbptt.models.protocol import Network

BATCH, STEPS = 3, 5  # of the chunk that is followed; any other has to give the same numbers
# (batch, lengths of chunks that follow each other): what the file is compared on.
COMPARED = ((1, (1, 1, 9)), (2, (6, 1, 40)), (4, (64, 3)), (BATCH, (STEPS,)))
TOLERANCE = 1e-5  # of a number's size, where that is above 1

Run = Callable[[Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]]  # x, state → y, the state after


@dataclass(frozen=True)
class Written:
    """A file that was written.

    Attributes:
        path: where it is.
        difference: the largest difference between its numbers and the network's, as :func:`largest_difference` says.
        opset: ONNX's opset; None for another format.
    """

    path: Path
    difference: float
    opset: int | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor of a network's state.

    Attributes:
        name, next: what it is called before and after a chunk, such as ``state.0.h`` and ``next.0.h``.
        dim: the dimension that counts the sequences; None if none does.
        start: its value at the start of one sequence.
    """

    name: str
    next: str
    dim: int | None
    start: Tensor

    def begun(self, batch: int) -> Tensor:
        """Its value at the start of ``batch`` sequences."""
        return self.start if self.dim is None else torch.cat([self.start] * batch, dim=self.dim)


def parts(network: "Network") -> list[Part]:
    """The tensors of a network's state, in the order of :func:`tbptt.models.state.leaves`.

    Raises ValueError if the state is not one sequence's beside another's: nothing could be said of any batch then.
    """
    one, more = network.zero_state(1), leaves(network.zero_state(3))
    places = [place.removeprefix("state") for place, _ in with_places(one)]
    names = [".".join(re.findall(r"[^\[\]']+", place)) for place in places]
    if len(set(names)) < len(names) or not all(re.fullmatch(r"[\w.]*", name) for name in names):
        names = [str(i) for i in range(len(names))]  # keys that are no words
    found = []
    for name, dim, leaf, three in zip(names, batch_dims(network), leaves(one), more, strict=True):
        before, after = (f"{word}.{name}".rstrip(".") for word in ("state", "next"))
        part = Part(before, after, dim, leaf.detach().clone())
        if not torch.equal(part.begun(3), three.detach()):
            shapes = f"{tuple(leaf.shape)} for 1 sequence and {tuple(three.shape)} for 3"
            raise ValueError(f"its {before} at the start is not one sequence's beside another's ({shapes})")
        found.append(part)
    return found


def about(trained: Trained) -> dict[str, Any]:
    """What a user of the file has to know to make its inputs and to read its outputs, as JSON holds it; docs/export.md
    says what each entry means."""
    data, scaler = trained.config.data, trained.scaler
    std = scaler.target_std
    std = std[:, None].expand(-1, trained.task.outputs) if std.dim() == 1 else std
    numbers = {**scaler.state_dict(), "target_std": std}
    return {
        "tbptt": version("tbptt"),
        "run_id": trained.source.run_id,
        "config_sha256": checkpoint.digest(plain(trained.config)),
        "task": plain(trained.config)["task"],
        "decides": trained.task.decides,
        "outputs": trained.task.outputs,
        "series": trained.series,
        "window": trained.window,
        "features": str(data.features),
        "inputs": trained.inputs,
        "input_window": int(data.input_window) if trained.inputs else 1,
        "scaler": {name: None if value is None else _listed(value.tolist()) for name, value in numbers.items()},
        "state": [_said(part) for part in parts(trained.network)],
        "how_to": how_to(trained),
    }


def how_to(trained: Trained) -> str:
    """How to make the network's inputs of prices and to read its predictions, with the names of the other entries of
    :func:`about`: for whoever has the file and nothing else."""
    window, scaler = trained.window, trained.scaler
    before = "p_t - p_(t-k)" if trained.config.data.features == "lagged_change" else "p_(t-k+1) - p_(t-k)"
    lines = [
        f"x: (sequences, steps, {input_size(trained.config)}) float32. Step t has the price p_t and sees W = {window} "
        f"prices before it: x_t[k] = ({before} - input_mean) / input_std for k = 1 to W, in float64 until the end.",
    ]
    if trained.inputs:
        lines.append(
            "Behind these, first, for each of inputs in order and for its value v at t, t-1 and so on, input_window "
            "of them: (v - extra_mean) / extra_std, kept within 10000 and -10000, 0 where v is missing or extra_std is "
            "null. Then, in the same order, 1 where v is known and 0 where it is missing."
        )
    mixed = "" if scaler.mixing is None else " That is a row of mixtures: the targets are it @ inverse of mixing."
    lines += [
        f"y: (sequences, steps, {trained.task.outputs}) float32. In the units of the task's targets it is "
        f"y * target_std + target_mean, output by output.{mixed}",
        "These numbers are in scaler, with a row that all series share, or a row for each of series in order.",
        "state: for each tensor its name, its name after the chunk (next), its shape, its type, and its numbers before "
        "the first step (start, of one sequence). What comes out after a chunk goes in with the chunk that follows.",
    ]
    return "\n".join(lines)


def first_state(trained: Trained, by_name: bool) -> str:
    """The state before the first step, in words.

    Args:
        by_name: whether its tensors are inputs of their own names; else places in the tree ``state``.
    """
    places, found = with_places(trained.network.zero_state(1)), []
    state = parts(trained.network)
    for part, (place, _) in zip(state, places, strict=True):
        shape = ", ".join("sequences" if i == part.dim else str(n) for i, n in enumerate(part.start.shape))
        found.append(f"{part.name if by_name else place} ({shape}) {str(part.start.dtype).removeprefix('torch.')}")
    zeros = not any(part.start.count_nonzero() for part in state)
    return f"{', '.join(found)}, {'all 0' if zeros else 'as the entry state of about says'}"


def _listed(value: Any) -> Any:
    """Numbers as JSON has them: what is not finite is null."""
    if isinstance(value, list):
        return [_listed(each) for each in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None


def _said(part: Part) -> dict[str, Any]:
    shape: list[Any] = list(part.start.shape)
    if part.dim is not None:
        shape[part.dim] = "batch"
    start = _listed(part.start.tolist()) if part.start.count_nonzero() else 0
    kind = str(part.start.dtype).removeprefix("torch.")
    return {"name": part.name, "next": part.next, "shape": shape, "type": kind, "start": start}


class Flat(nn.Module):
    """A network whose state is not a tree, but one argument and one result a tensor."""

    def __init__(self, network: "Network"):
        super().__init__()
        self.network, self._start = network, network.zero_state(1)

    def forward(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        y, after = self.network(x, rebuild(self._start, state))
        return (y, *leaves(after))


def example(trained: Trained) -> tuple[Tensor, list[Tensor]]:
    """A chunk (BATCH, STEPS, F) that the network is followed on, and the state before it."""
    x = torch.zeros(BATCH, STEPS, input_size(trained.config))
    return x, [part.begun(BATCH) for part in parts(trained.network)]


@torch.no_grad()
def largest_difference(run: Run, trained: Trained) -> float:
    """The largest difference between what a file and its network give, on random chunks of several batch sizes and
    lengths, the state carried from chunk to chunk: of a number that is larger than 1, as a share of it.

    Args:
        run: computes a chunk with the file.

    Raises:
        ValueError: the file gives other shapes, types or numbers than the network.
    """
    random, worst = torch.Generator().manual_seed(0), 0.0
    state, network = parts(trained.network), trained.network
    for batch, lengths in COMPARED:
        before = network.zero_state(batch)
        carried = [part.begun(batch) for part in state]
        for steps in lengths:
            x = torch.randn(batch, steps, input_size(trained.config), generator=random)
            y, before = network(x, before)
            try:
                found, carried = run(x, carried)
            except Exception as error:
                lines = str(error).splitlines() or [type(error).__name__]
                raise ValueError(f"it cannot compute {batch} sequences of {steps} steps: {lines[0][:300]}") from None
            both = zip([y, *leaves(before)], [found, *carried], ["y", *(part.next for part in state)], strict=True)
            worst = max([worst, *(_difference(*each) for each in both)])
    return worst


def _difference(expected: Tensor, found: Tensor, name: str) -> float:
    if (expected.shape, expected.dtype) != (found.shape, found.dtype):
        said, takes = ((tuple(each.shape), str(each.dtype).removeprefix("torch.")) for each in (found, expected))
        raise ValueError(f"its {name} is {said[0]} of {said[1]}, and the network's {takes[0]} of {takes[1]}")
    if not expected.numel():
        return 0.0
    expected, found = expected.double(), found.double()
    worst = float(((expected - found).abs() / expected.abs().clamp(min=1)).max())
    if not worst <= TOLERANCE:
        raise ValueError(f"its {name} differs from the network's by {worst:.3g}, which is more than {TOLERANCE:g}")
    return worst


@contextmanager
def quiet() -> Iterator[None]:
    """Within, neither warnings nor log lines nor what is printed are shown: torch's own would reach the user."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


_ONE_LENGTH = "followed through its forward, it computes chunks of one length or one number of sequences only: it loops"
_OPERATION = (
    r"No ONNX function found for <OpOverload\(op='([\w.]+)'",
    r"operator '([\w:.]+)' to ONNX",
    r"No decompositions registered for .*?<OpOverload\(op='([\w.]+)'",
)


def reason(error: BaseException) -> str:
    """Why a network cannot be written down, in one line; the causes of an error say more than it does."""
    texts: list[str] = []
    each: BaseException | None = error
    while each is not None and len(texts) < 10:
        texts.append(str(each) or type(each).__name__)
        each = each.__cause__ or each.__context__
    for pattern in _OPERATION:
        for text in texts:
            if match := re.search(pattern, text):
                return f"its operation {match[1].replace('::', '.')} has no form in ONNX"
    if any("specialized it to be a constant" in text or "Constraints violated" in text for text in texts):
        return f"{_ONE_LENGTH} over the steps in Python, or takes a size as a number"
    said = [line for line in texts[-1].splitlines() if line.strip()]
    return " ".join((said or [type(error).__name__])[0].split())[:300]


def first_reason(reasons: Sequence[str]) -> str:
    """Of several, the one that helps most: it names an operation, or says that only one length works."""
    ranked = sorted(reasons, key=lambda text: (not text.startswith("its operation"), not text.startswith(_ONE_LENGTH)))
    return ranked[0]
