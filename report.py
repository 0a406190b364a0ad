"""Write a study's report again, also while the study runs: python report.py STUDY

With --verdict: hold the article's claims against a study of sweep=article, or against a file of its curves."""

from tbptt.system import early  # first: what follows takes a third of a second

if __name__ == "__main__":
    early.end_quietly()

import sys
from pathlib import Path

from tbptt.cli.main import report

if __name__ == "__main__":
    sys.exit(report(sys.argv[1:], Path(__file__).resolve().parent / "conf"))
