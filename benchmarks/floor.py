"""The floor of an update: the time that its matrix products alone would take at the core's peak, and what both are."""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import on_core

SOURCE = Path(__file__).parent / "native" / "fma_peak.c"
SETS = {"avx512": "AVX-512", "avx2": "AVX2", "plain": "plain C"}
GATES = {"lstm": 4, "gru": 3}  # products with the inputs, and with the state, a unit


def update_flops(
    batch: int,
    steps: int,
    inputs: int,
    dense: Sequence[int],
    hidden: Sequence[int],
    outputs: int,
    cell: str = "lstm",
) -> int:
    """Floating-point operations of an update's matrix products, a multiply-add as two.

    A layer's products come three times: forward, for the gradient of its weights, and for that of its inputs. The last
    one is not needed of the network's inputs, nor of the state before the chunk. Biases, activations, noise and the
    optimizer are left out: they are what takes an update away from its floor.

    Args:
        batch, steps: series, and steps of a chunk.
        inputs: features a step.
        dense, hidden: sizes of the dense layers and of the recurrent ones.
        outputs: of the head.
        cell: ``lstm`` or ``gru``.
    """
    rows, before, products = batch * steps, inputs, 0
    for size in dense:
        products += 3 * rows * before * size
        before = size
    for size in hidden:
        gates = GATES[cell] * size
        products += 3 * rows * before * gates + (3 * rows - batch) * size * gates
        before = size
    products += 3 * rows * before * outputs
    products -= rows * inputs * (dense[0] if dense else GATES[cell] * hidden[0])
    return 2 * products


def processor_sets() -> list[str]:
    """Those of ``SETS`` that this processor has, the widest first."""
    import torch

    x86 = platform.machine().lower() in ("x86_64", "amd64")
    widest = torch.backends.cpu.get_cpu_capability() if x86 else "DEFAULT"
    return list(SETS)[{"AVX512": 0, "AVX2": 1}.get(widest, 2) :]


class Peak:
    """Measures the peak of cores (native/fma_peak.c).

    Args:
        folder: where the program is built.

    Attributes:
        missing: why it cannot be measured; empty where it can.
    """

    def __init__(self, folder: str | Path):
        self._program = Path(folder) / "fma_peak"
        self.missing = self._build()

    def _build(self) -> str:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            return "no C compiler (cc)"
        command = [compiler, "-O2", "-ffp-contract=fast", "-o", str(self._program), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True)
        return f"{compiler} cannot build {SOURCE.name}: {done.stderr.strip()[-200:]}" if done.returncode else ""

    def measure(self, cores: Sequence[int | None]) -> list[dict[str, float]]:
        """GFLOP/s of each core by instruction set, all cores busy at once."""
        at_work = []
        for core in cores:
            with on_core(core):
                at_work.append(subprocess.Popen([self._program], stdout=subprocess.PIPE, text=True))
        return [dict(json.loads(process.communicate()[0])) for process in at_work]


def floor_ms(sizes: Mapping[str, Any], cell: str, peaks: Sequence[dict[str, float]], limited_to: str | None) -> float:
    """Of an update, at the mean peak of the cores that were at work.

    Args:
        sizes: what :func:`update_flops` takes.
        peaks: of a round, of each core.
        limited_to: the instruction set that may be used; None: the best.
    """
    each = [peak[limited_to] if limited_to else max(peak.values()) for peak in peaks]
    return update_flops(**sizes, cell=cell) / (1e6 * sum(each) / len(each))
