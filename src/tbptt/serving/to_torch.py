"""A trained network as a program of torch.export (``.pt2``), which runs without its Python code. It is read back and
compared with the network before it has its name."""

import io
import json
from pathlib import Path
from typing import Any

import torch

from tbptt.compat import recurrent_layers_of_any_length
from tbptt.models.state import leaves, rebuild
from tbptt.serving import exported
from tbptt.serving.exported import Written, about, example, largest_difference, parts, quiet
from tbptt.serving.trained import Trained
from tbptt.system.files import replaced

KEY = "tbptt.json"  # of the extra file in it that holds what docs/export.md describes


def write(trained: Trained, out: Path) -> Written:
    """Write a network as a program whose ``module()(x, state)`` gives (y, state), for any batch and number of steps.

    Raises:
        ValueError: the network cannot be written so, or the file would give other numbers; ``out`` is then as it was.
            The message is one line.
    """
    with replaced(out) as beside:
        try:
            with quiet(), torch.no_grad():
                beside.write_bytes(_content(trained))
                return Written(out, largest_difference(_Run(beside, trained), trained))
        except OSError:
            raise
        except Exception as error:
            why = exported.reason(error)
            raise ValueError(f"{trained.source.said} cannot be written by torch.export: {why}") from None


def _content(trained: Trained) -> bytes:
    x, state = example(trained)
    start, some = trained.network.zero_state(1), torch.export.Dim.DYNAMIC
    sizes: Any = [None if part.dim is None else {part.dim: some} for part in parts(trained.network)]
    shapes = ({0: some, 1: some}, rebuild(start, sizes))
    network: Any = trained.network
    with recurrent_layers_of_any_length():
        program = torch.export.export(network, (x, rebuild(start, state)), dynamic_shapes=shapes)
    written = io.BytesIO()
    torch.export.save(program, written, extra_files={KEY: json.dumps(about(trained), allow_nan=False)})
    return written.getvalue()


class _Run:
    """The file, as :func:`tbptt.serving.exported.largest_difference` runs it."""

    def __init__(self, path: Path, trained: Trained):
        self._start = trained.network.zero_state(1)
        self._module = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def __call__(self, x: torch.Tensor, before: list[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        y, after = self._module(x, rebuild(self._start, before))
        return y, leaves(after)
