"""Which device trains, and what a GPU's errors mean; a GPU's answers are stand-ins. What only one can show is in
test_cuda.py."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import SEES, gpus_seen
from mlflow import MlflowClient
from omegaconf import DictConfig

from tbptt.config.checks import problems
from tbptt.config.plain import plain
from tbptt.models import kernels
from tbptt.runs.context import RunContext
from tbptt.runs.epoch import Epoch
from tbptt.runs.fit import _and_then, fit
from tbptt.runs.resume import _changed, resume_problems, resumed_config
from tbptt.system import devices
from tbptt.system.devices import GpuFailed, NoGpu, pick_device
from tbptt.system.stores import absolute_uri

TOO_OLD = "CUDA error: no kernel image is available for execution on the device\nSearch for `cudaErrorNoKernelImage'"
WORKS = torch.ones


def test_tests_see_no_gpu_and_neither_do_their_processes() -> None:
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert (torch.cuda.is_available(), torch.cuda.device_count()) == (False, 0)
    assert torch.cuda.is_available is not SEES["is_available"]


@pytest.mark.parametrize("at_first", ["all", "2,3"])
def test_tests_of_a_gpu_see_what_the_machine_has(monkeypatch: pytest.MonkeyPatch, at_first: str) -> None:
    monkeypatch.setenv("GPUS_OF_THE_TESTS", at_first)
    with gpus_seen():
        assert os.environ.get("CUDA_VISIBLE_DEVICES", "all") == at_first
        assert torch.cuda.is_available is SEES["is_available"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert torch.cuda.is_available is not SEES["is_available"]


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing has been looked at or said yet."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for each in (devices._looked, devices._fall_back):
        each.cache_clear()
    yield
    for each in (devices._looked, devices._fall_back):
        each.cache_clear()


@pytest.fixture
def stand_in(anew: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
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


def test_a_gpu_that_computes_is_taken(stand_in: Callable[..., list[str]], caplog: pytest.LogCaptureFixture) -> None:
    tried = stand_in()
    assert [pick_device("auto"), pick_device("cuda"), pick_device("cpu")] == ["cuda", "cuda", "cpu"]
    assert tried == ["cuda"]
    assert not caplog.records


@pytest.mark.parametrize("error", [RuntimeError(TOO_OLD), AssertionError("Torch not compiled with CUDA enabled")])
def test_auto_leaves_a_gpu_that_cannot_compute_and_says_so_once(
    stand_in: Callable[..., list[str]], caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    tried = stand_in(error)
    assert [pick_device("auto") for _ in range(3)] == ["cpu"] * 3
    assert tried == ["cuda"]
    (said,) = [r.message for r in caplog.records]
    assert said == (f"device=auto: the CPU trains, as PyTorch cannot use the GPU ({str(error).splitlines()[0]})")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # PyTorch's optimizers ask one that is counted


def test_no_gpu_at_all_is_nothing_to_speak_of(
    stand_in: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    tried = stand_in(counted=False)
    assert pick_device("auto") == "cpu"
    assert not tried
    assert not caplog.records


def test_what_pytorch_says_of_the_driver_is_the_reason(
    anew: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def counted() -> bool:
        warnings.warn("CUDA initialization: the driver is too old (found version 11040).\nPlease update", stacklevel=1)
        return False

    monkeypatch.setattr("torch.cuda.is_available", counted)
    assert pick_device("auto") == "cpu"
    assert "(CUDA initialization: the driver is too old (found version 11040).)" in caplog.text


def test_cuda_that_cannot_compute_is_refused_with_the_reason(
    stand_in: Callable[..., list[str]], config: Callable[..., DictConfig]
) -> None:
    stand_in(RuntimeError(TOO_OLD))
    lacks = f"this machine has no GPU that PyTorch can use ({TOO_OLD.splitlines()[0]})"
    with pytest.raises(NoGpu) as raised:
        pick_device("cuda")
    assert str(raised.value) == f"device: got 'cuda'; {lacks}"
    assert problems(config("device=cuda")) == [f"device: got 'cuda'; {lacks}; takes auto or cpu here"]


def test_a_sweeps_command_looks_from_another_process(
    stand_in: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context of its own would keep its workers off a GPU that takes one process at a time."""
    tried, commands = stand_in(), []

    def ran(command: list[str], **_: object) -> object:
        commands.append(command)
        return type("Done", (), {"returncode": 0, "stdout": "it is busy\n", "stderr": ""})

    monkeypatch.setattr(devices.subprocess, "run", ran)
    with devices.from_another_process():
        assert [devices.why_no_gpu() for _ in range(2)] == ["it is busy"] * 2
    assert not tried
    assert len(commands) == 1
    assert devices.why_no_gpu() is None  # in this process it is another question


# --- what a run was trained by --------------------------------------------------------------------------------


def test_a_run_begun_on_a_gpu_goes_on_on_the_cpu_without_what_only_gpus_have(
    here: Path, small: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(epoch: Epoch) -> bool:
        raise GpuFailed("it fell off the bus")

    monkeypatch.setattr("tbptt.runs.fit.pick_device", lambda device: "cpu")  # a GPU that the CPU stands in for
    monkeypatch.setattr(devices, "describe", lambda device: "cuda (A GPU)")
    monkeypatch.setattr(kernels, "describe", lambda *_: "cuDNN 91002")
    ids: list[str] = []
    with pytest.raises(GpuFailed):
        fit(
            small("epochs=3", "precision=tf32", "cuda_graphs=true"),
            RunContext(on_start=ids.append, after_epoch=lambda epoch: epoch.number == 1 and stop(epoch)),
        )
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr("tbptt.runs.resume.why_no_gpu", lambda: None)
    cfg = small(f"resume={ids[0]}")
    begun = resumed_config(cfg, ["resume"])
    assert (begun.precision, begun.cuda_graphs) == ("tf32", True)
    assert not caplog.records

    monkeypatch.setattr("tbptt.runs.resume.why_no_gpu", lambda: "it is gone")
    monkeypatch.setattr("tbptt.config.checks.why_no_gpu", lambda: "it is gone")
    assert resume_problems(cfg, ["resume"], False) == []
    assert resume_problems(small(f"resume={ids[0]}", "device=cpu"), ["resume", "device"], False) == []
    assert not caplog.records
    begun = resumed_config(cfg, ["resume"])
    assert (begun.precision, begun.cuda_graphs) == (32, False)
    (said,) = [r.message for r in caplog.records]
    assert said == "resume: it goes on on the CPU, without precision=tf32 and cuda_graphs=true, which only GPUs have"
    assert fit(begun, RunContext(resume=ids[0])).stop_reason == "epochs"
    tags = MlflowClient(absolute_uri("sqlite:///mlruns/mlflow.db")).get_run(ids[0]).data.tags
    assert tags["device"] == "cuda (A GPU), then cpu"
    assert tags["versions.kernels"] == f"cuDNN 91002, then {kernels.describe()}"


@pytest.mark.parametrize(("begun", "goes_on"), [("true", False), ("auto", "auto"), ("false", False)])
def test_graphs_that_were_not_required_are_kept_on_the_cpu(
    begun: str, goes_on: object, small: Callable[..., DictConfig]
) -> None:
    cfg = small("device=cpu")
    state = {"config": plain(small("precision=tf32", f"cuda_graphs={begun}"))}
    assert _changed(state, cfg, ["device"]).cuda_graphs == goes_on


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({}, f"compiled {kernels.VERSION} (avx2)"),
        ({"dense": False}, f"compiled {kernels.VERSION} (avx2)"),
        ({"cell": "gru", "dense": False}, f"compiled {kernels.VERSION} (avx2)"),
        ({"cell": "minlstm"}, f"compiled {kernels.VERSION} (avx2), minlstm of torch"),
        ({"cell": "minlstm", "dense": False}, "torch"),
        ({"precision": "bf16"}, "torch"),
        ({"precision": "bf16", "device": "cuda"}, "cuDNN 91002"),
        ({"device": "cuda"}, "cuDNN 91002"),
    ],
)
def test_a_run_says_which_layers_it_really_has(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], layers: str
) -> None:
    monkeypatch.setattr(kernels, "library", lambda: SimpleNamespace(set_name="avx2"))
    monkeypatch.setattr("torch.backends.cudnn.is_available", lambda: True)
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91002)
    assert kernels.describe(**settings) == layers
    if "device" not in settings:
        monkeypatch.setattr(kernels, "library", lambda: None)
        assert kernels.describe(**settings) == "torch"
    monkeypatch.setattr("torch.backends.cudnn.is_available", lambda: False)
    assert kernels.describe("cuda") == "torch"


def test_a_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H200")
    assert [devices.describe(device) for device in ("cpu", "cuda")] == ["cpu", "cuda (NVIDIA H200)"]


@pytest.mark.parametrize(
    ("before", "now", "tag"),
    [
        ({}, "cpu", "cpu"),
        ({"device": "cpu"}, "cpu", "cpu"),
        ({"device": "cpu"}, "cuda (A)", "cpu, then cuda (A)"),
        ({"device": "cpu, then cuda (A)"}, "cuda (A)", "cpu, then cuda (A)"),
    ],
)
def test_a_run_that_goes_on_elsewhere_says_so(before: dict[str, str], now: str, tag: str) -> None:
    assert _and_then(before, {"device": now}) == {"device": tag}
