"""benchmarks/gpu.py --first-day without a GPU: its parts work, and each survives what happens to the others."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import torch
from test_calibration import of_benchmarks
from torch import Tensor

PARTS = """
import json, os, subprocess, sys, time
part, *words = sys.argv[1:]
print("a library says something", flush=True)
print(json.dumps({"what": part, "ms": [3.0, 1.0, 2.0], "words": words}), flush=True)
if part == "packed":
    raise ImportError("no module packed_triton")
if part == "streams":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(json.dumps({"what": "child", "pid": child.pid}), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/first_day.py with parts that are made up."""
    module = of_benchmarks("first_day")
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.setattr(module, "PARTS", tmp_path / "parts.py")
    monkeypatch.setattr(module, "LIMITS", {"steps": 60, "packed": 60, "streams": 6, "leaks": 60})
    return module


def options(file: Path, **other: Any) -> Namespace:
    return Namespace(**{"json": file, "device": "cpu", "small": True, "only": None, "minutes": 8.0, **other})


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is not only waiting to be asked how it ended."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_each_part_survives_the_one_before(day: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that fails, and one that hangs, which ends with all that it has started; all is in the file."""
    file = tmp_path / "results" / "found.json"
    assert day.first_day(options(file)) == 1
    parts = json.loads(file.read_text())["parts"]
    assert {name: part["status"] for name, part in parts.items()} == {
        "steps": "done",
        "packed": "failed",
        "streams": "out of time",
        "leaks": "done",
    }
    for name, part in parts.items():
        words = ["--device", "cpu", "--small"]
        assert part["findings"][0] == {"what": name, "ms": [3.0, 1.0, 2.0], "words": words}, "every repetition"
    assert parts["packed"]["said"].endswith("ImportError: no module packed_triton\n")
    assert not runs(parts["streams"]["findings"][1]["pid"])
    said = capsys.readouterr().out
    assert "packed: failed (ImportError: no module packed_triton)" in said
    assert "what leaks  ms 2  words" in said, "of the repetitions the median"
    assert day.first_day(options(file, only=["leaks"])) == 0
    assert list(json.loads(file.read_text())["parts"]) == ["leaks"]


def test_no_part_begins_without_time(day: ModuleType, tmp_path: Path) -> None:
    assert day.first_day(options(tmp_path / "found.json", minutes=0.01)) == 1
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert {part["status"] for part in parts.values()} == {"left out: no time"}
    assert len(parts) == 4


def packed_lstm(xg: Tensor, w_hh: Tensor, h: Tensor, c: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What the packed kernel computes, step by step."""
    assert lengths.dtype == torch.int32
    found = []
    for step in xg.unbind(1):
        i, f, g, o = (step + torch.bmm(h, w_hh.mT)).chunk(4, dim=2)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        found.append(h)
    return torch.stack(found, dim=1), h, c


@pytest.fixture
def findings() -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """What a part of benchmarks/first_day_parts.py finds on the CPU, with one thread as there."""
    parts, threads = of_benchmarks("first_day_parts"), torch.get_num_threads()
    torch.set_num_threads(1)

    def found(name: str) -> list[dict[str, Any]]:
        seen: list[dict[str, Any]] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parts, "say", lambda what, **facts: seen.append(json.loads(json.dumps(facts))))
            patch.setattr(parts, "OPTIMIZERS", ("adam", "muon"))
            kernel = ModuleType("tbptt.models.packed_triton")
            kernel.lstm = packed_lstm  # type: ignore[attr-defined]
            patch.setitem(sys.modules, kernel.__name__, kernel)
            patch.setattr("tbptt.models.packed_triton", kernel, raising=False)
            parts.PARTS[name](parts.Here("cpu", small=True))
        return seen

    yield found
    torch.set_num_threads(threads)


def test_every_part_has_a_limit() -> None:
    assert list(of_benchmarks("first_day_parts").PARTS) == list(of_benchmarks("first_day").LIMITS)


def test_what_the_parts_find_on_a_cpu(findings: Callable[[str], list[dict[str, Any]]]) -> None:
    layouts = findings("layouts")
    assert all(f["elements"] == f["of_parameters"] and not f["copied"] for f in layouts)
    assert layouts[0]["starts"] == [0, 4 * 64 * 64, 8 * 64 * 64, 8 * 64 * 64 + 4 * 64]
    (dtypes,) = findings("dtypes")
    assert dtypes["head"] == "torch.bfloat16"
    assert [f["waited"] for f in findings("waits")] == [None] * 4
    assert [f["largest_relative_difference"] for f in findings("graphs")] == [0.0] * 2
    packed = findings("packed")
    assert [(f["trials"], f["way"]) for f in packed] == [(1, "packed"), (1, "cuDNN"), (2, "packed"), (2, "cuDNN")]
    assert all(f["largest_difference"] < 1e-6 for f in packed)
    assert [(f["trials"], f["updates"]) for f in findings("packs")] == [(1, 2), (2, 2)]
    updates = findings("updates")
    assert {f.get("precision") for f in updates} == {None, "32", "bf16"}
    assert [f["segment_length"] for f in updates[-3:]] == ["auto", None, 5000]
    for name, key in (("steps", "both_us_a_step"), ("streams", "updates_a_second")):
        assert all(value > 0 for f in findings(name) for value in f[key])
    assert findings("leaks") == [{"bytes": [0, 0], "after_collecting": 0}]
