"""The layers of many networks at once, in Triton, are PyTorch's, network by network: interpreted, and on a GPU where
there is one. They compile for one where there is none."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_alone import CASES, LAYERS

import tbptt
from tbptt.models import packed_triton

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed; it is in the extra dev, on Linux"
)
H100 = 227 * 1024  # bytes of shared memory that a program may have


def said_by(folder: Path, *words: str, **environment: str) -> Any:
    """What packed_alone.py prints. Nothing that was compiled before is taken."""
    paths = [str(Path(tbptt.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"TRITON_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(paths)} | environment
    script = Path(__file__).with_name("packed_alone.py")
    ended = subprocess.run([sys.executable, str(script), *words], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def check(compared: list[dict[str, Any]], tolerance: float) -> None:
    assert len(compared) == len(LAYERS) * len(CASES)
    for (cell, case), found in zip([(cell, case) for cell in LAYERS for case in CASES], compared, strict=True):
        ends = ["0", "1"] if cell == "lstm" else ["0"]
        assert set(found["apart"]) == {"h", "x", "weights", *(f"{at} {i}" for at in ("begin", "end") for i in ends)}
        assert max(found["apart"].values()) <= tolerance, (cell, case, found)
        assert found["after the end"] == 0, (cell, case)
        assert found["same again"], (cell, case)
        assert found["same without a graph"], (cell, case)


@needs_triton
def test_each_network_is_pytorchs_alone_with_all_its_gradients(tmp_path: Path) -> None:
    """Against float64, as a part of the largest number of each."""
    check(said_by(tmp_path, "compare", "cpu", TRITON_INTERPRET="1"), 2e-6)


@needs_triton
@pytest.mark.usefixtures("gpu")
def test_so_it_is_on_a_gpu_and_captured_as_a_graph(tmp_path: Path) -> None:
    compared = said_by(tmp_path, "compare", "cuda")
    check(compared, 1e-5)
    assert all(found["same captured"] for found in compared)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return list(said_by(tmp_path_factory.mktemp("compiled"), "compile"))


@needs_triton
def test_every_kernel_compiles_for_an_h100_and_fits_into_it(compiled: list[dict[str, Any]]) -> None:
    both = {(f"{cell}_{way}", hidden) for cell in LAYERS for way in ("forward", "backward") for hidden in (64, 128)}
    assert {(kernel["kernel"], kernel["hidden"]) for kernel in compiled} == both
    for kernel in compiled:
        assert kernel["target"] == "sm_90a"
        assert kernel["spilled"] <= 64, kernel  # bytes a thread: 16 numbers of a few thousand instructions a step
        assert kernel["registers"] > 32  # what ptxas falls back to
        assert kernel["shared"] <= (H100 // 2 if kernel["hidden"] == 64 else H100)  # two programs a processor


@needs_triton
def test_threads_read_weights_from_different_banks(compiled: list[dict[str, Any]]) -> None:
    """Where the first dimension lies closest together, threads beside each other read numbers a whole row apart."""
    assert all(kernel["orders"] == ["1, 0"] for kernel in compiled)


@needs_triton
def test_weights_that_are_part_of_a_row_are_not_copied(compiled: list[dict[str, Any]]) -> None:
    """Backward; forward they are turned."""
    assert {kernel["kernel"] for kernel in compiled if kernel["weights"]} == {"lstm_backward", "gru_backward"}


def test_it_is_said_for_which_sizes_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_triton, "available", lambda: True)
    assert [hidden for hidden in range(300) if packed_triton.why_not(hidden) is None] == [16, 32, 64, 128]
    assert packed_triton.why_not(48) == "48 units; Triton's layers take 16, 32, 64 or 128"
    monkeypatch.setattr(packed_triton, "available", lambda: False)
    assert packed_triton.why_not(64) == "Triton is not installed"


def test_without_triton_they_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # its import fails
    assert not packed_triton.available()


def test_what_does_not_fit_is_refused_and_no_other_memory_read() -> None:
    lengths = torch.tensor([2, 3], dtype=torch.int32)
    h, w4, w3 = torch.zeros(2, 5, 16), torch.zeros(2, 64, 16), torch.zeros(2, 48, 16)
    x4, x3, bias = torch.zeros(2, 3, 5, 64), torch.zeros(2, 3, 5, 48), torch.zeros(2, 48)
    for given, error in [
        ((x4, w4, h, h[:, :4], lengths), "takes (2, 5, 16)"),
        ((x4, w4, h, h, lengths.long()), "lengths are torch.int64; takes torch.int32"),
        ((x4, w4, h, h, lengths[:1]), "takes (2,)"),
        ((x4, w4[:, :48], h, h, lengths), "takes (2, 64, 16)"),
        ((x4.double(), w4, h, h, lengths), "takes one type"),
        ((x4[..., :44], w4, h, h, lengths), "takes 4 gates of 16, 32, 64 or 128 units"),
        ((x4[:, :0], w4, h, h, lengths), "at least one"),
        ((x4, w4, h, h, lengths, "bf16"), "precision=bf16; takes ieee, tf32, tf32x3"),
        ((x4.to("meta"), w4, h, h, lengths), "on different devices; takes one"),
    ]:
        with pytest.raises((ValueError, TypeError), match=re.escape(error)):
            packed_triton.lstm(*given)
    for given, error in [
        ((x3, w3, bias[:1], h, lengths), "takes (2, 48)"),
        ((x3, w3, bias, h[:1], lengths), "takes (2, 5, 16)"),
        ((x4, w3, bias, h, lengths), "takes 3 gates of 16, 32, 64 or 128 units"),
    ]:
        with pytest.raises(ValueError, match=re.escape(error)):
            packed_triton.gru(*given)
