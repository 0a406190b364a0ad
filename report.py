"""Write a study's report again, also while the study runs: python report.py STUDY

With --verdict: hold the article's claims against a study of sweep=article, or against a file of its curves."""

from pathlib import Path

from tbptt.cli import tool

if __name__ == "__main__":
    tool.script("report", Path(__file__).resolve().parent / "conf")
