"""What does not fit into memory is refused with a line, before it is read."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from tbptt.data.prices import read_prices
from tbptt.system import memory
from tbptt.system.memory import free_memory, too_large

GIGABYTE = 1 << 30


def limited(gigabytes: int, *command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command under a ceiling."""
    shell = f'ulimit -v {gigabytes * GIGABYTE // 1024} && exec "$@"'
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, *command], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_free_memory_is_what_the_narrowest_limit_leaves(tmp_path: Path) -> None:
    code = "from tbptt.system.memory import free_memory; print(free_memory())"
    free = int(limited(1, "-c", code, cwd=tmp_path).stdout)
    assert 0 < free < GIGABYTE
    assert (free_memory() or 0) > free


def test_what_fits_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_limits", lambda: iter([3_000_000_000, 2_000_000_000]))
    assert too_large(2_000_000_000) is None
    assert too_large(2_100_000_000) == "needs about 2.1 GB of memory, and 2.0 GB are free"
    monkeypatch.setattr(memory, "_limits", lambda: iter([]))
    assert too_large(10**18) is None


def test_a_gigabyte_under_a_ceiling_costs_a_line(tmp_path: Path) -> None:
    with (tmp_path / "large.csv").open("w") as file:
        file.write("a,b\n" + "100.01,99.98\n" * 10_000)
        file.truncate(GIGABYTE)  # what follows takes no room on the disk
    done = limited(2, str(ROOT / "train.py"), "data=prices", "data.path=large.csv", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("data.path: large.csv cannot be read: it needs about 8.6 GB of memory, and ")
    assert line.endswith("% of its rows would fit")
    assert [path.name for path in tmp_path.iterdir()] == ["large.csv"]


@pytest.mark.slow
def test_a_gigabyte_of_prices_that_outgrows_its_ceiling_costs_a_line(tmp_path: Path) -> None:
    rows = (",".join(["100.01"] * 10) + "\n") * 15_000
    with (tmp_path / "large.csv").open("w") as file:
        file.write(",".join("abcdefghij") + "\n")
        for _ in range(1000):
            file.write(rows)
    done = limited(4, str(ROOT / "train.py"), "data=prices", "data.path=large.csv", cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("data.path: large.csv cannot be read: ")
    assert [path.name for path in tmp_path.iterdir()] == ["large.csv"]


@pytest.mark.parametrize("name", ["prices.csv", "prices.parquet"])
def test_a_table_that_needs_more_than_there_is_is_not_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000.0)})
    path = tmp_path / name
    table.to_csv(path, index=False) if name.endswith("csv") else table.to_parquet(path)
    assert len(read_prices(path)["a"]) == 1000
    monkeypatch.setattr(memory, "_limits", lambda: iter([10_000]))
    with pytest.raises(ValueError, match=r"needs about 0\.0 GB of memory"):
        read_prices(path)


def test_bytes_that_are_no_text_are_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,2\n\0\0\0")
    with pytest.raises(ValueError, match="it is no text"):
        read_prices(tmp_path / "a.csv")


def test_files_in_a_containers_cache_count_as_free(tmp_path: Path) -> None:
    facts = {"memory.max": "1000\n", "memory.current": "900\n", "memory.stat": "anon 250\ninactive_file 600\n"}
    for name, content in facts.items():
        (tmp_path / name).write_text(content)
    assert memory._left_in(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    with pytest.raises(ValueError, match="max"):
        memory._left_in(tmp_path)
