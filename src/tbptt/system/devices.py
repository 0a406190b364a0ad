"""The device that trains: whether a GPU works here, and what an error of the GPU means for a run and its process.

This module is imported early, so it imports torch only inside functions.
"""

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

log = logging.getLogger("tbptt")

NONE_SEEN = "PyTorch sees none"
# Keys that may ask for a GPU.
ASK_FOR_GPU = ("device", "precision", "cuda_graphs")
GPU_FAILED, NO_GPU = 60, 61  # exit statuses of a worker: another process may succeed; no process will
LESS_MEMORY = "fewer study.workers on this GPU, less segment_memory, a shorter segment_length or a smaller model help"
# How errors of CUDA and its libraries are told apart by their text. BLAMES_THE_CALL: the call was wrong, not the GPU.
OUT_OF_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")
CONTEXT_IS_LOST = (
    *("CUDA error: ", "CUDA driver error: ", "CUDA unknown error", "CUDA driver initialization failed"),
    *("No CUDA GPUs are available", "error from cudaGetDeviceCount"),
    *("CUDNN_STATUS_EXECUTION_FAILED", "CUDNN_STATUS_INTERNAL_ERROR", "CUDNN_STATUS_MAPPING_ERROR"),
    *("CUDNN_STATUS_NOT_INITIALIZED", "CUBLAS_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_INTERNAL_ERROR"),
    *("CUBLAS_STATUS_MAPPING_ERROR", "CUBLAS_STATUS_NOT_INITIALIZED"),
)
BLAMES_THE_CALL = ("STATUS_INVALID_VALUE", "STATUS_NOT_SUPPORTED", "STATUS_BAD_PARAM", "STATUS_ARCH_MISMATCH")


class GpuTrouble(Exception):
    """A GPU stopped a run. The run can be resumed; what it finished is kept.

    Attributes:
        what: the message without the part that says how to go on.
    """

    def __init__(self, what: str, how_to_go_on: str = ""):
        super().__init__(f"{what}{how_to_go_on}")
        self.what = what


class GpuFailed(GpuTrouble):
    """The CUDA context is lost: this process cannot use the GPU any more, but another process may."""


class GpuMemory(GpuTrouble):
    """The GPU has too little free memory."""


class NoGpu(GpuTrouble):
    """No GPU works here."""


def gpu_trouble(error: BaseException) -> GpuTrouble | None:
    """The GPU's trouble that an error reports, or None if it is about something else.

    Looks at the error and at every error before it in the chain of causes and contexts: Lightning cleans up after an
    error, and if the CUDA context is lost, the clean-up raises another error.
    """
    for each in _chain(error):
        if isinstance(each, GpuTrouble):
            return each
        if not isinstance(each, RuntimeError):
            continue
        text, kind = str(each).strip(), type(each).__name__
        first = (text.splitlines() or [kind])[0].split(" Including ")[0].rstrip(".")
        # The CPU's allocator raises a plain RuntimeError, whose text names none of these.
        is_cuda = kind in ("OutOfMemoryError", "AcceleratorError") or any(
            s in text for s in ("CUDA", "CUDNN", "CUBLAS")
        )
        if kind == "OutOfMemoryError" or (is_cuda and any(sign in text for sign in OUT_OF_MEMORY)):
            return GpuMemory(f"out of memory on the GPU: {first}; {LESS_MEMORY}")
        lost = kind == "AcceleratorError" or any(sign in text for sign in CONTEXT_IS_LOST)
        if lost and not any(sign in text for sign in BLAMES_THE_CALL):
            return GpuFailed(f"the GPU failed: {first}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, then its causes or contexts (``raise … from …``, or raised while another was handled), newest first."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def lacks_gpu(lines: Iterable[str]) -> str | None:
    """The first of a config's problems (``lines``) that says that a GPU is missing; None if there is no such line."""
    about = (line for line in lines if line.split(":")[0] in ASK_FOR_GPU and "GPU" in line)
    return next(about, None) if why_no_gpu() else None


def release_memory() -> None:
    """Release GPU memory that PyTorch holds but does not use, for this process's next trial and for other processes."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


_apart = False


@contextmanager
def from_another_process() -> Iterator[None]:
    """Within, :func:`why_no_gpu` tries the GPU in a process of its own. A CUDA context in this process would hold some
    hundred MB until the process ends, and would lock others out of a GPU that takes one process at a time."""
    global _apart
    before, _apart = _apart, True
    try:
        yield
    finally:
        _apart = before


def why_no_gpu() -> str | None:
    """Why PyTorch cannot compute on a GPU here, in a line; None if it can. The GPU is tried once per process."""
    return _looked(_apart)


@cache
def _looked(apart: bool) -> str | None:
    if not apart:
        return look()
    code = "from tbptt.system.devices import look; print(look() or '')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if found.returncode:
        return (found.stderr.strip().splitlines() or [f"a try of it ended with {found.returncode}"])[-1]
    return found.stdout.strip() or None


def look() -> str | None:
    """Compute on the GPU; see :func:`why_no_gpu`. That PyTorch counts a GPU is not enough: it may be too old for this
    build of PyTorch or for the driver, or another process may use it exclusively."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        is_there = torch.cuda.is_available()
    if not is_there:
        return _first_line(said[0].message) if said else NONE_SEEN
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the returned line says the same
            torch.ones(8, device="cuda").add_(1).sum().item()  # item() waits for the GPU
    except Exception as error:  # each reason has another exception class
        return _first_line(error)
    return None


def _first_line(said: object) -> str:
    return (str(said).strip().splitlines() or [type(said).__name__])[0]


def pick_device(device: str) -> str:
    """``cpu`` or ``cuda``; ``auto`` is ``cuda`` if a GPU works here, else ``cpu``. Raises NoGpu if ``cuda`` was asked
    for and no GPU works."""
    if device == "cpu":
        return device
    reason = why_no_gpu()
    if reason is None:
        return "cuda"
    if device == "cuda":
        raise NoGpu(f"device: got 'cuda'; this machine has no GPU that PyTorch can use ({reason})")
    _fall_back(reason)
    return "cpu"


def describe(device: str) -> str:
    """``cpu``, or ``cuda`` and the GPU's name."""
    import torch

    return f"cuda ({torch.cuda.get_device_name()})" if device == "cuda" else "cpu"


@cache
def _fall_back(reason: str) -> None:
    """Warn once, and hide the GPU from PyTorch: its optimizers ask any GPU that is counted whether it is capturing."""
    if reason != NONE_SEEN:
        log.warning("device=auto: the CPU trains, as PyTorch cannot use the GPU (%s)", reason)
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
