"""benchmarks/chunk_step.py: the floor of an update against PyTorch's count, and the table from its file alone."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_calibration import of_benchmarks
from torch.utils.flop_counter import FlopCounterMode

from tbptt.models import kernels
from tbptt.models.article import QNetwork

ARTICLE = {"batch": 15, "steps": 200, "inputs": 128, "dense": [64, 64], "hidden": [64, 64], "outputs": 2}
SMALL = {"batch": 3, "steps": 5, "inputs": 7, "dense": [6, 5], "hidden": [4, 8], "outputs": 2}


def counted(batch: int, steps: int, inputs: int, dense: list[int], hidden: list[int], outputs: int, cell: str) -> int:
    """What PyTorch's counter sees of an update with PyTorch's layers. Without oneDNN, whose LSTM is one operation that
    the counter takes for nothing, a layer is a product for each step."""
    network = QNetwork(inputs, dense, hidden, cell, outputs=outputs)
    x, state = torch.randn(batch, steps, inputs), network.zero_state(batch)
    with kernels.torch_only(), torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        network(x, state)[0].sum().backward()
    return int(counter.get_total_flops())


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("sizes", [ARTICLE, SMALL, {**SMALL, "dense": []}], ids=["article", "small", "no dense layer"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_floor_counts_the_products_that_pytorch_counts(sizes: dict[str, Any], cell: str) -> None:
    assert of_benchmarks("floor").update_flops(**sizes, cell=cell) == counted(**sizes, cell=cell)


def test_the_floor_is_of_the_sizes_that_the_contenders_have() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks" / "peers")
        import article

        assert article.sizes(article.article(chunks=1)) == ARTICLE


def test_the_peak_is_measured_of_each_core_and_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    floor = of_benchmarks("floor")
    if shutil.which("cc"):
        peak = floor.Peak(tmp_path)
        assert peak.missing == ""
        for found in peak.measure([None, None]):
            assert list(found) == floor.processor_sets()
            assert min(found.values()) > 0
    monkeypatch.setenv("CC", str(tmp_path / "none"))
    assert "no C compiler" in floor.Peak(tmp_path).missing


# --- the table ------------------------------------------------------------------------------------------------------


def contender(name: str, core_ms: list[list[float]], **other: Any) -> dict[str, Any]:
    """One process; in each round, passes of these core ms and half a ms more by the wall's clock."""
    rounds = [[[{"wall_ms": ms + 0.5, "core_ms": ms, "loss": 1.25} for ms in turn]] for turn in core_ms]
    facts = {"parameters": 1234, "updates": 20, "loss": 2.5, "versions": {"torch": "2.13", "layers": "compiled"}}
    kind = {"key": name, "set": None, "cell": "lstm", "float32": True, "missing": "", **other}
    return {"name": name, "facts": facts, "rounds": rounds, **kind}


def of_two_rounds(**other: Any) -> dict[str, Any]:
    """The core is half as fast in the second round, and so are most. The floor is 1 ms, then 2, with AVX2 2, then 4."""
    gflops = of_benchmarks("floor").update_flops(**SMALL) / 1e6
    contenders = [
        contender("ours", [[3, 3], [6, 6]]),
        contender("held", [[5, 5, 500], [10, 10, 10]], set="avx2"),
        contender("in bf16", [[2, 2], [4, 8]], float32=False),
        contender("a GRU", [[4], [8]], cell="gru"),
        {**contender("Keras", []), "facts": None, "missing": "not installed"},
    ]
    peaks = [[{"avx512": gflops, "avx2": gflops / 2}], [{"avx512": gflops / 2, "avx2": gflops / 4}]]
    said = {"machine": "a core", "both": False, "rounds": 2, "passes": 2, "updates": 20, "sizes": SMALL}
    return {**said, "no_peak": "", "peaks": peaks, "contenders": contenders, **other}


def again(record: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of ``--again`` for a file with this record."""
    file = folder / "measured.json"
    file.write_text(json.dumps(record))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["chunk_step.py", "--again", str(file)])
        of_benchmarks("chunk_step").main()
    return capsys.readouterr().out.splitlines()


def test_the_table_is_made_of_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    floor = of_benchmarks("floor")
    of_gru = 4 * floor.update_flops(**SMALL) / floor.update_flops(**SMALL, cell="gru")
    rows = {line[:31].strip(): line[31:].split() for line in again(of_two_rounds(), tmp_path, capsys)}
    # wall ms: median, smallest, largest; core ms; both as times ours; times the floor; parameters, losses, layers
    end = ["1,234", "2.500", "1.250", "compiled"]
    assert rows["ours"] == ["5.00", "3.50", "6.50", "4.50", "1.00", "1.00", "3.00", *end]
    assert rows["held"] == ["10.50", "5.50", "500.50", "10.00", "1.59", "1.67", "2.50", *end]
    assert rows["in bf16"] == ["3.50", "2.50", "8.50", "3.00", "0.86", "0.83", *end]
    assert rows["a GRU"] == ["6.50", "4.50", "8.50", "6.00", "1.30", "1.33", f"{of_gru:.2f}", *end]
    assert rows["Keras"] == ["not", "installed"]


def test_without_a_compiler_there_is_no_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = again(of_two_rounds(peaks=[], no_peak="no C compiler (cc)"), tmp_path, capsys)
    assert "no floor: no C compiler (cc)" in lines
    assert not any("x floor" in line for line in lines)
    assert [line.split()[6:8] for line in lines if line.startswith("ours")] == [["1.00", "1,234"]]


@pytest.mark.parametrize("name", ["chunk_step", "chunk_step_both"])
def test_the_page_has_what_was_measured(name: str) -> None:
    record = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    lines = of_benchmarks("chunk_table").for_a_page(record)
    assert len(lines) > 10
    assert "\n".join(lines) in (ROOT / "docs" / "performance.md").read_text()
