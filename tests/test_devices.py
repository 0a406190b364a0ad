"""Which device trains, and what a GPU's errors mean; a GPU's answers are stand-ins. What only one can show is in
test_cuda.py."""

import os
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from omegaconf import DictConfig

from tbptt import devices
from tbptt.checks import problems
from tbptt.devices import NoGpu, pick_device

TOO_OLD = "CUDA error: no kernel image is available for execution on the device\nSearch for `cudaErrorNoKernelImage'"
WORKS = torch.ones


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing has been looked at or said yet."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for each in (devices._looked, devices._fall_back):
        each.cache_clear()
    yield
    for each in (devices._looked, devices._fall_back):
        each.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A GPU that is counted, and works on the CPU or raises; the list of what was tried on it."""

    def there(error: Exception | None = None, counted: bool = True) -> list[str]:
        tried: list[str] = []

        def ones(*size: int, device: str = "cpu") -> torch.Tensor:
            tried.append(device)
            if error:
                raise error
            return WORKS(*size)

        monkeypatch.setattr("torch.cuda.is_available", lambda: counted)
        monkeypatch.setattr("torch.ones", ones)
        return tried

    return there


def test_a_gpu_that_computes_is_taken(gpu: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
    tried = gpu()
    assert [pick_device("auto"), pick_device("cuda"), pick_device("cpu")] == ["cuda", "cuda", "cpu"]
    assert tried == ["cuda"]
    assert not caplog.records


@pytest.mark.parametrize("error", [RuntimeError(TOO_OLD), AssertionError("Torch not compiled with CUDA enabled")])
def test_auto_leaves_a_gpu_that_cannot_compute_and_says_so_once(
    gpu: Callable[..., list[str]], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    tried = gpu(error)
    assert [pick_device("auto") for _ in range(3)] == ["cpu"] * 3
    assert tried == ["cuda"]
    (said,) = [r.message for r in caplog.records]
    assert said == (f"device=auto: the CPU trains, as PyTorch cannot use the GPU ({str(error).splitlines()[0]})")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # PyTorch's optimizers ask one that is counted


def test_no_gpu_at_all_is_nothing_to_speak_of(gpu: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
    tried = gpu(counted=False)
    assert pick_device("auto") == "cpu"
    assert not tried
    assert not caplog.records


def test_what_pytorch_says_of_the_driver_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> bool:
        warnings.warn("CUDA initialization: the driver is too old (found version 11040).\nPlease update", stacklevel=1)
        return False

    monkeypatch.setattr("torch.cuda.is_available", counted)
    assert pick_device("auto") == "cpu"
    assert "(CUDA initialization: the driver is too old (found version 11040).)" in caplog.text


def test_cuda_that_cannot_compute_is_refused_with_the_reason(
    gpu: Callable[..., list[str]], config: Callable[..., DictConfig]
) -> None:
    gpu(RuntimeError(TOO_OLD))
    lacks = f"this machine has no GPU that PyTorch can use ({TOO_OLD.splitlines()[0]})"
    with pytest.raises(NoGpu) as raised:
        pick_device("cuda")
    assert str(raised.value) == f"device: got 'cuda'; {lacks}"
    assert problems(config("device=cuda")) == [f"device: got 'cuda'; {lacks}; takes auto or cpu here"]


def test_a_sweeps_command_looks_from_another_process(
    gpu: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context of its own would keep its workers off a GPU that takes one process at a time."""
    tried, commands = gpu(), []

    def ran(command: list[str], **_: object) -> object:
        commands.append(command)
        return type("Done", (), {"returncode": 0, "stdout": "it is busy\n", "stderr": ""})

    monkeypatch.setattr(devices.subprocess, "run", ran)
    with devices.from_another_process():
        assert [devices.why_no_gpu() for _ in range(2)] == ["it is busy"] * 2
    assert not tried
    assert len(commands) == 1
    assert devices.why_no_gpu() is None  # in this process it is another question
