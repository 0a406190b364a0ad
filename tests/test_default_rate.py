"""What the pages say of the default's learning rate is what the file of its study has."""

import re

from conftest import ROOT
from test_calibration import of_benchmarks

PAGE = (ROOT / "docs" / "learning_rate.md").read_text()


def test_the_page_shows_what_the_file_has() -> None:
    study = of_benchmarks("default_rate")
    lines = study.read(study.RESULTS)
    assert [line for line in study.table(lines) if line not in PAGE.splitlines()] == []
    done = [tuple(line[name] for name in study.Point._fields) for line in lines]
    known = {tuple(map(str, point)) for part in ("choose", "confirm") for point in study.points(part)}
    assert len(set(done)) == len(done)
    assert set(done) <= known


def test_the_front_page_says_no_better_of_the_default_than_its_confirming_runs() -> None:
    study = of_benchmarks("default_rate")
    default = ("confirm", "adam", study.BY_CHUNK)
    lines = [line for line in study.read(study.RESULTS) if (line["part"], line["optimizer"], line["rule"]) == default]
    shares = [float(line["test"]) / float(line["test_mean"]) for line in lines]
    front = (ROOT / "README.md").read_text()
    said = re.search(r"leaves (\S+) to (\S+) of the loss\nof predicting.* in each of (\d+) runs", front)
    assert said is not None
    assert said.groups() == (f"{min(shares):.2f}", f"{max(shares):.2f}", str(len(lines)))
    assert max(shares) <= 0.5
    assert max(shares) - min(shares) < 0.15
