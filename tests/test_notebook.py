"""The notebook of docs/ runs from beginning to end in an empty folder, and shows what it says."""

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

NOTEBOOK = ROOT / "docs" / "from_csv_to_predictions.ipynb"


@pytest.mark.slow  # a minute; .ci/run runs it
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_the_notebook_goes_from_a_file_to_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "work").mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    done = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "work")}}
    ).execute()
    cells = [cell for cell in done.cells if cell.cell_type == "code"]
    shown = ["".join(str(output.get("text", output.get("data", ""))) for output in cell.outputs) for cell in cells]
    assert "data: trains 2 series: sp500" in shown[1]
    assert "best: trial" in shown[1]
    assert "val/loss" in shown[2]
    drawn = [cell for cell in cells if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert drawn == [cells[3], cells[5]]
    last_rows = cells[4].outputs[-1]["data"]["text/plain"]
    assert len(re.findall(r"(?m)^\d+ 2018-12-\d\d +(?:sp500|nasdaq)  new ", last_rows)) == 5
